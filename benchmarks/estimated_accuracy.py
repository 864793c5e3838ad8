"""Compare the accuracy estimated without labels with the true one, on shifted images of six sets.

    python benchmarks/estimated_accuracy.py --data-dir ../shared/data --cache features \
        --out benchmarks/results/estimated_accuracy.json

A head is fitted on four fifths of the images and calibrated on the others. Then it answers the test
images, six corruptions of them, and the images of the first half of the classes. For each, the
service's estimate is compared with the truth. A set passes if the mean absolute error of its
estimates is at most 3 points, or if there are none. The thresholds of
`rootstock.evaluate.without_labels` were chosen on these sets.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from few_images import Arrays
from label_features import INPUT_PIXELS, SETS, SHIFTS, read_set
from sets import class_targets
from stamp import describe_run

from rootstock.backbones.packaged import DEFAULT_NAME
from rootstock.evaluate.without_labels import estimate_accuracy
from rootstock.metrics import stability_index
from rootstock.model.novelty import Reference
from rootstock.system.files import write_json
from rootstock.tasks.single_label.task import SingleLabel

STRENGTHS = (0.1, 0.01)
BINS = 10
MAX_POINTS = 3.0


def main() -> None:
    """Measure all sets; write and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, help="folder for computed features")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/estimated_accuracy.json")
    )
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in SETS:
            arrays = read_set(name, options.data_dir, options.cache or Path(scratch))
            if arrays:
                results[name] = measure(arrays)
                print(name, results[name]["mean_error_points"], results[name]["n_told"], flush=True)
    passed = sum(one["passes"] for one in results.values())
    told = [shift for one in results.values() for shift in one["shifts"] if shift["told"]]
    covered = float(np.mean([one["in_interval"] for one in told]))
    write_json(
        options.out,
        describe_run("python benchmarks/estimated_accuracy.py --data-dir ../shared/data")
        | {
            "backbone": DEFAULT_NAME,
            "input_pixels": INPUT_PIXELS,
            "passed": passed,
            "sets": results,
            "truth_in_interval": round(covered, 3),
        },
    )
    print(
        f"{passed} of {len(results)} sets; the truth is in {covered:.0%} of {len(told)} intervals"
    )


def measure(arrays: Arrays) -> dict[str, Any]:
    """Return the estimate and the truth for each shift of one set."""
    task, features = SingleLabel(), arrays["pool"].astype(np.float32)
    labels, n_classes = arrays["pool_y"], int(arrays["pool_y"].max()) + 1
    n_val = len(labels) // 5
    train, val = slice(n_val, None), slice(n_val)
    targets, val_targets = (class_targets(labels[part], n_classes) for part in (train, val))
    heads = [task.head().fit(features[train], targets, l2=l2) for l2 in STRENGTHS]
    losses = [task.losses(head.outputs(features[val]), val_targets).mean() for head in heads]
    head = heads[int(np.argmin(losses))]
    calibration = task.calibrate(head.outputs(features[val]), val_targets)
    usual = task.decide(head.outputs(features[val]), calibration)
    reference = Reference.measure(features[train], features[val], task.remember(usual, val_targets))
    edges = np.quantile(reference.distances, np.linspace(0, 1, BINS + 1)[1:-1])
    parts = {"test": arrays["test"]}
    parts |= {f"{name} {severity}": arrays[f"{name} {severity}"] for name, severity in SHIFTS}
    if n_classes > 2:
        parts["half of the classes"] = arrays["test"][arrays["test_y"] < n_classes // 2]
    shifts = []
    for name, some in parts.items():
        truth = arrays["test_y"][: len(some)]
        if name == "half of the classes":
            truth = arrays["test_y"][arrays["test_y"] < n_classes // 2]
        decisions = task.decide(head.outputs(some.astype(np.float32)), calibration)
        bins = np.searchsorted(edges, reference.distance(some))
        shares = np.bincount(bins, minlength=BINS) / len(bins)
        votes = np.bincount(decisions.argmax(axis=1), minlength=n_classes) / len(decisions)
        estimate = estimate_accuracy(
            decisions.max(axis=1),
            {
                "features": stability_index(shares, np.full(BINS, 1 / BINS)),
                "classes": stability_index(votes, reference.remembered["shares"]),
            },
            {"features": BINS - 1, "classes": n_classes - 1},
            n_val,
        )
        right = float(np.mean(decisions.argmax(axis=1) == truth))
        shift: dict[str, Any] = {"shift": name, "n": len(some), "accuracy": round(right, 4)}
        shift["told"] = estimate.value is not None
        if estimate.value is not None and estimate.low is not None and estimate.high is not None:
            shift |= {
                "estimate": round(estimate.value, 4),
                "error_points": round(100 * (estimate.value - right), 2),
                "in_interval": estimate.low <= right <= estimate.high,
            }
        else:
            untold = 100 * (float(decisions.max(axis=1).mean()) - right)
            shift |= {"reason": estimate.reason, "error_points_if_told": round(untold, 2)}
        shifts.append(shift)
    errors = [abs(one["error_points"]) for one in shifts if one["told"]]
    mean = round(float(np.mean(errors)), 2) if errors else None
    return {
        "n_train": len(labels) - n_val,
        "n_val": n_val,
        "n_told": len(errors),
        "mean_error_points": mean,
        "passes": mean is None or mean <= MAX_POINTS,
        "shifts": shifts,
    }


if __name__ == "__main__":
    main()
