"""How long one waits where there is nothing to compute: --help, a plan again, an idle `dvc repro`.

    python benchmarks/startup.py --project .

--project is a folder in which `make demo` or `dvc repro` has ended; it is changed by neither. Every
command is a process of its own, run once to warm the system's caches and then --times times.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

QUIET = {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "true"}


def main() -> int:
    """Time the commands, print a table; 1 if one of them fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--project", type=Path, default=Path())
    parser.add_argument("--images", default="data/raw", help="below the project")
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    if not (options.project / "dvc.lock").is_file():
        print(f"no run has ended in {options.project}: `make demo` there first", file=sys.stderr)
        return 1
    rootstock = [sys.executable, "-m", "rootstock"]
    print("| command | first s | median s | slowest s | aim s |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as out:
        commands = (
            ("rootstock --help", [*rootstock, "--help"], 0.5),
            ("rootstock plan", [*rootstock, "plan", options.images, "--out", out], 5.0),
            ("dvc repro", [sys.executable, "-m", "dvc", "repro"], 3.0),
        )
        for name, command, aim in commands:
            try:
                first, *others = [run(command, options.project) for _ in range(1 + options.times)]
            except subprocess.CalledProcessError as error:
                print(f"{name} failed:\n{error.stderr}", file=sys.stderr)
                return 1
            middle, slowest = statistics.median(others), max(others)
            print(
                f"| `{name}` | {first:.2f} | {middle:.2f} | {slowest:.2f} | {aim:g} |", flush=True
            )
    return 0


def run(command: list[str], folder: Path) -> float:
    """Seconds of one process.

    Raises:
        CalledProcessError: it failed.
    """
    started = time.perf_counter()
    environment = os.environ | QUIET
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
