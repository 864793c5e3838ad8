"""Measure start-up times: --help, a repeated plan, an idle `dvc repro`, and a service until it is
ready, with a model folder and with a champion that it served before.

    python benchmarks/startup.py --project .

--project is a folder in which `make demo` or `dvc repro` has finished. The benchmark changes only
the service's model cache there. Every command runs in a separate process, once to warm the
system's caches and then --times times.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

QUIET = {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "true"}


def main() -> int:
    """Time the commands, and print a table; return 1 if one of them fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--project", type=Path, default=Path())
    parser.add_argument("--images", default="data/raw", help="below the project")
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    if not (options.project / "dvc.lock").is_file():
        print(
            f"no run has finished in {options.project}: run `make demo` there first",
            file=sys.stderr,
        )
        return 1
    rootstock = [sys.executable, "-m", "rootstock"]
    print("| command | first s | median s | slowest s | goal s |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as out:
        commands = (
            ("rootstock --help", [*rootstock, "--help"], 0.5),
            ("rootstock plan", [*rootstock, "plan", options.images, "--out", out], 5.0),
            ("dvc repro", [sys.executable, "-m", "dvc", "repro"], 3.0),
        )
        for name, command, aim in commands:
            try:
                times = [run(command, options.project) for _ in range(1 + options.times)]
            except subprocess.CalledProcessError as error:
                print(f"{name} failed:\n{error.stderr}", file=sys.stderr)
                return 1
            tell(name, times, aim)
    for model in ("artifacts/model", "models:/rootstock@champion"):
        times = [ready(model, options.project) for _ in range(1 + options.times)]
        tell(f"rootstock serve --model {model}", times, 5.0)
    return 0


def tell(name: str, times: list[float], aim: float) -> None:
    """Print one row."""
    first, *others = times
    middle, slowest = statistics.median(others), max(others)
    print(f"| `{name}` | {first:.2f} | {middle:.2f} | {slowest:.2f} | {aim:g} |", flush=True)


def ready(model: str, folder: Path, python: str | Path = sys.executable) -> float:
    """Return the seconds until a service answers /readyz with 200; end it afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [python, "-m", "rootstock", "serve", "--port", str(port), "--model", model]
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | QUIET,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
                return time.perf_counter() - started
            except OSError:
                if process.poll() is not None:
                    raise RuntimeError(f"{' '.join(command)} did not start") from None
                time.sleep(0.02)
    finally:
        process.terminate()
        process.wait(30)


def run(command: list[str], folder: Path) -> float:
    """Return the seconds of one process.

    Raises:
        CalledProcessError: It failed.
    """
    started = time.perf_counter()
    environment = os.environ | QUIET
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
