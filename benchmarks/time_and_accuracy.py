"""Measure the time of `rootstock train` on real sets, and the quality of the model.

    python benchmarks/time_and_accuracy.py --data-dir ../shared/data --quality fast \
        --out benchmarks/results/time_and_accuracy.json

Each row is one command in an empty folder, with the default backbone and without a GPU. Processor
time is the sum over all cores; on a machine with other work, compare that. Trials run in the
command's process (`search.engine=sequential`), so that their time is counted. A row with the same
set, quality, seed, and machine replaces the one in the file.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from operator import itemgetter
from pathlib import Path
from typing import Any

from sets import find_sets

from rootstock.data.manifest import Manifest
from rootstock.system.cpu import usable_cores

TABLES = {
    "animals_boxes": "largest_box.csv",
    "blood_boxes": "red_cells.csv",
    "street_scenes": "labels.csv",
}
"""The table file of each set that is not a folder of classes."""
SETS = ("ants_bees", "flowers12", "sign_digits", *TABLES)


def main() -> int:
    """Measure each existing set; write the result after each."""
    options = parse_options()
    rows = json.loads(options.out.read_text())["runs"] if options.out.exists() else []
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder in find_sets(options.data_dir, options.sets, Path(scratch)):
            for seed in options.seeds:
                row = measure(folder / TABLES.get(name, ""), options.quality, seed) | {"set": name}
                same = ("quality", "machine", "set", "seed")
                rows = [one for one in rows if any(one[key] != row[key] for key in same)] + [row]
                rows.sort(key=itemgetter(*same))
                command = "python benchmarks/time_and_accuracy.py --data-dir ../shared/data"
                text = json.dumps({"command": command, "runs": rows}, indent=1)
                options.out.write_text(text + "\n")
                print(json.dumps(row), flush=True)
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--quality", default="fast", choices=("fast", "balanced", "best"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def measure(data: Path, quality: str, seed: int) -> dict[str, Any]:
    """Run the command on ``data``; return its time and the model's quality.

    The seed divides the images and starts the training.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["train", data.resolve(), "--out", "run", "--set", f"quality={quality}"]
        command += ["--set", "search.engine=sequential", "--set", f"seed={seed}"]
        before, load = resource.getrusage(resource.RUSAGE_CHILDREN), os.getloadavg()[0]
        begun = time.monotonic()
        subprocess.run([sys.executable, "-m", "rootstock", *command], cwd=folder, check=True)
        seconds = time.monotonic() - begun
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        reports, artifacts = Path(folder, "run/reports"), Path(folder, "run/artifacts")
        metrics = json.loads((reports / "metrics.json").read_text())
        bundle = json.loads((artifacts / "model/bundle.json").read_text())
        train_images = len(Manifest.read(artifacts / "manifest.parquet").rows("train"))
    processor = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    headline = next(name for name in metrics if f"{name}_low" in metrics)
    return {
        "quality": quality,
        "seed": seed,
        "machine": f"{platform.machine()}, cores used: {usable_cores()}",
        "load_before": round(load, 1),
        "date": datetime.date.today().isoformat(),
        "task": bundle["task"],
        "strategy": bundle["strategy"],
        "test_images": int(metrics["n_test"]),
        "train_images": train_images,
        "metric": headline,
        "value": round(metrics[headline], 4),
        "low": round(metrics[f"{headline}_low"], 4),
        "high": round(metrics[f"{headline}_high"], 4),
        "minutes": round(seconds / 60, 2),
        "processor_minutes": round(processor / 60, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
