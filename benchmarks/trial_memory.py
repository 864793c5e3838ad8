"""Measure the memory of a head search with one trial at a time and with four, on mapped features.

    python benchmarks/trial_memory.py --rows 50000

Each trial reads the same float16 matrix. `own` is the peak of the memory that the trials' processes
do not share; `shared` is what they share, mostly the mapped features. If the features were copied
to each trial, `own` would contain them once per trial.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
from watch import sampled

from rootstock.integrations.ray.search import RaySearcher
from rootstock.ports.runs import NullRunLogger
from rootstock.training.objectives import HeadObjective
from rootstock.training.tracked import Tracking

WIDTH, CLASSES, TRIALS = 1280, 10, 4
VAL_SHARE = 10
OTHERS = ("Agent", "IDLE")
"""Ray's processes that run no trial."""


def main() -> None:
    """Print one row for each number of concurrent trials."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        objective = objective_over(folder, options.rows)
        size = options.rows * WIDTH * 2 / 1e6
        print(f"features: {options.rows} x {WIDTH} float16, {size:.0f} MB\n")
        print("| trials at once | own MB | shared MB | seconds |\n| --- | --- | --- | --- |")
        for concurrent in (1, TRIALS):
            started = time.perf_counter()
            own, shared = search(objective, folder / str(concurrent), concurrent)
            seconds = time.perf_counter() - started
            print(f"| {concurrent} | {own:.0f} | {shared:.0f} | {seconds:.0f} |", flush=True)


def objective_over(folder: Path, rows: int) -> HeadObjective:
    """Fit heads on random features with a few classes in them."""
    random = np.random.default_rng(0)
    files, labels = {}, {}
    for split, count in (("train", rows), ("val", rows // VAL_SHARE)):
        labels[split] = np.arange(count) % CLASSES
        features = random.standard_normal((count, WIDTH), dtype=np.float32)
        features[np.arange(count), labels[split]] += 2
        files[split] = folder / f"{split}.npy"
        np.save(files[split], features.astype(np.float16))
    taps = [f"tap{number}" for number in range(TRIALS)]
    return HeadObjective(
        train_features=dict.fromkeys(taps, files["train"]),
        val_features=dict.fromkeys(taps, files["val"]),
        train_labels=labels["train"],
        val_labels=labels["val"],
        n_classes=CLASSES,
        class_weight=None,
        tracking=Tracking(NullRunLogger(), ""),
    )


def search(objective: HeadObjective, folder: Path, concurrent: int) -> tuple[float, float]:
    """Return the peak of own and shared megabytes of all trials' processes together."""
    cores = len(os.sched_getaffinity(0))
    searcher = RaySearcher(concurrent=concurrent, cpus_per_trial=cores / concurrent)
    candidates = [{"tap": tap, "strengths": [0.1, 1.0]} for tap in objective.train_features]
    with sampled(trials_memory) as seen:
        trials = searcher.search(
            objective, candidates,
            directory=folder, metric="val_log_loss", mode="min", early_stop=False,
        )  # fmt: skip
    assert not any(trial.error for trial in trials)
    return max(own for own, _ in seen), max(shared for _, shared in seen)


def trials_memory() -> tuple[float, float]:
    """Return own and shared megabytes of the trials' processes; a page shared by n counts once."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            name = " ".join(process.cmdline())
            if name.startswith("ray::") and not any(other in name for other in OTHERS):
                found.append(process.memory_full_info())
    own = sum(info.uss for info in found) / 1e6
    return own, sum(info.pss for info in found) / 1e6 - own


if __name__ == "__main__":
    main()
