"""Compare tasks other than one class per image with scikit-learn on the same cached features.

python benchmarks/tasks.py --data-dir DIR [--store FOLDER] [--out benchmarks/results/tasks.json]

``DIR`` contains street_scenes, blood_boxes, and animals_boxes, as folders or tars. Features are of
the default backbone. The baselines read the last depth, pooled (boxes: the same map as our head;
masks: the same positions), and use the same splits. Rows of other tasks in the file are kept.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sets import find_set
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, RidgeCV
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from stamp import describe_run

from rootstock.backbones.load import LAST, load_backbone
from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.data.layout import base_folder
from rootstock.data.preprocess import Geometry
from rootstock.features.reader import FeatureReader
from rootstock.features.store.store import FeatureStore
from rootstock.heads.linear import LinearHead, MapHead, read_head
from rootstock.plan.rules import dense_input_size
from rootstock.ports.runs import NullRunLogger
from rootstock.system.files import write_json
from rootstock.tasks.dataset import Dataset
from rootstock.tasks.localisation.boxes import tidy
from rootstock.tasks.segmentation.learning import SegmentationSolver
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import AnswerOptions
from rootstock.training.objectives import HEAD_FILE, UNSEEN_LOSS, HeadObjective
from rootstock.training.penalty import is_past_best, strongest_of_equals
from rootstock.training.tracked import Tracking
from rootstock.workflow.index import index_images

SPLITS = ("train", "val", "test")
COVERAGE = 0.9
FEW_MASKS = 20
BASELINE_STRENGTHS = np.logspace(-5, 2, 15)
RIDGE_STRENGTHS = np.logspace(-2, 6, 33)


class Prepared:
    """A table of images, indexed, with the features of the default backbone."""

    def __init__(self, table: Path, store: Path, scratch: Path, overrides: list[str]) -> None:
        config = load_config(None, overrides=[f"data.root={table}", *overrides])
        self.dataset = Dataset.of(index_images(config, Paths(scratch / "index")))
        backbone = load_backbone("packaged", config.backbone.name)
        task, depths = self.dataset.task, backbone.tap_names
        # Positions are read from the deepest map, whatever the depth of the class
        self.taps = [task.read_tap(LAST, depths)] if task.spatial else depths
        self.parts = {tap: backbone.parts(tap) for tap in self.taps}
        geometry: Geometry = "squash" if task.spatial else "crop"
        size = dense_input_size(backbone.card.input_size[1]) if task.output_grid else None
        rendering = self.dataset.manifest.rendering
        self.reader = FeatureReader(
            base_folder(table),
            backbone,
            backbone.card.preprocess(size, rendering, geometry),
            FeatureStore(store),
        )
        self.grid = config.train.l2_grid
        self.files: dict[tuple[str, str], Path] = {}
        for split in SPLITS:
            rows = self.dataset.manifest.rows(split)
            self.reader.extract(rows, self.taps)
            for tap in self.taps:
                path = self.files[split, tap] = scratch / f"{split}-{tap}.npy"
                np.save(path, self.reader.read(rows, tap))

    def features(self, split: str, tap: str) -> np.ndarray:
        return np.load(self.files[split, tap]).astype(np.float32)

    def targets(self, split: str) -> Targets:
        return self.dataset.targets(split)


def fit_heads(data: Prepared, scratch: Path) -> tuple[str, dict[str, np.ndarray]]:
    """Return the depth with the lowest loss on unseen images, and its outputs for val and test."""
    task = data.dataset.task
    objective = HeadObjective(
        train_features={tap: data.files["train", tap] for tap in data.taps},
        val_features={tap: data.files["val", tap] for tap in data.taps},
        task=task,
        train_targets=data.targets("train"),
        val_targets=data.targets("val"),
        weighting="none",
        tracking=Tracking(NullRunLogger(), "", {}),
        parts=data.parts,
    )
    losses = {}
    for tap in data.taps:
        folder = scratch / f"head-{tap}"
        folder.mkdir()
        metrics = objective({"tap": tap, "strengths": data.grid}, folder, lambda *_: None)
        losses[tap] = metrics.get(UNSEEN_LOSS, metrics[task.selection])
        print(f"  {tap}: {json.dumps({k: round(float(v), 4) for k, v in metrics.items()})}")
    best = min(losses, key=lambda tap: losses[tap])
    head = read_head(scratch / f"head-{best}" / HEAD_FILE)
    return best, {split: head.outputs(data.features(split, best)) for split in ("val", "test")}


def measure_labels(data: Prepared, scratch: Path) -> dict[str, Any]:
    """Measure several labels per image on street scenes."""
    task, test, val = data.dataset.task, data.targets("test"), data.targets("val")
    tap, outputs = fit_heads(data, scratch)
    calibration = task.calibrate(outputs["val"], val)
    found = {"tap": tap}
    for name, wish in (("chosen", "f1"), ("half", "0.5")):
        chosen = task.choose_thresholds(outputs["val"], val, calibration, wish)
        metrics = task.metrics(task.decide(outputs["test"], chosen), test)
        found |= {f"{name}_micro_f1": metrics["micro_f1"], f"{name}_macro_f1": metrics["macro_f1"]}
    found["mean_average_precision"] = metrics["mean_average_precision"]
    train = data.features("train", LAST)
    scores, precisions = [], []
    for k in range(len(test.names)):
        truth = data.targets("train").values[:, k]
        if len(set(truth.tolist())) < 2:
            scores.append(np.zeros(len(test)))
        else:
            model = make_pipeline(
                StandardScaler(),
                LogisticRegressionCV(
                    Cs=BASELINE_STRENGTHS, cv=5, max_iter=2000, scoring="neg_log_loss"
                ),
            )
            scores.append(model.fit(train, truth).decision_function(data.features("test", LAST)))
        if test.values[:, k].any():
            precisions.append(average_precision_score(test.values[:, k], scores[-1]))
    return found | {"baseline_mean_average_precision": float(np.mean(precisions))}


def measure_numbers(data: Prepared, scratch: Path) -> dict[str, Any]:
    """Measure the count of red cells on blood smears."""
    task, test, val = data.dataset.task, data.targets("test"), data.targets("val")
    tap, outputs = fit_heads(data, scratch)
    calibration = task.calibrate(outputs["val"], val)
    decisions = task.decide(outputs["test"], calibration)
    reference = task.remember(task.decide(outputs["val"], calibration), val)
    options = AnswerOptions(coverage=COVERAGE)
    answers = [task.answer(one, test.names, options, reference) for one in decisions]
    inside = [
        one.values[0].low <= true <= one.values[0].high
        for one, true in zip(answers, test.values[:, 0], strict=True)
    ]
    baseline = make_pipeline(StandardScaler(), RidgeCV(RIDGE_STRENGTHS))
    baseline.fit(data.features("train", LAST), data.targets("train").values[:, 0])
    said = baseline.predict(data.features("test", LAST))
    metrics = task.metrics(decisions, test)
    return {
        "tap": tap,
        **{name: metrics[name] for name in ("mean_absolute_error", "r2", "spearman")},
        "covered_90": float(np.mean(inside)),
        "baseline_mean_absolute_error": float(np.abs(said - test.values[:, 0]).mean()),
    }


def measure_boxes(data: Prepared, scratch: Path) -> dict[str, Any]:
    """Measure one class and one box per image on animals."""
    task, test, val = data.dataset.task, data.targets("test"), data.targets("val")
    tap, outputs = fit_heads(data, scratch)
    metrics = task.metrics(task.decide(outputs["test"], task.calibrate(outputs["val"], val)), test)
    grid = data.parts[tap][0].width
    train = data.targets("train").values
    of_class = make_pipeline(
        StandardScaler(), LogisticRegressionCV(Cs=BASELINE_STRENGTHS, cv=5, max_iter=2000)
    )
    of_class.fit(data.features("train", tap)[:, grid:], train[:, 0])
    of_box = make_pipeline(StandardScaler(), RidgeCV(RIDGE_STRENGTHS))
    of_box.fit(data.features("train", tap)[:, :grid], train[:, 1:])
    said = data.features("test", tap)
    probabilities = of_class.predict_proba(said[:, grid:])
    baseline = task.metrics(
        np.column_stack([probabilities, tidy(of_box.predict(said[:, :grid]))]), test
    )
    names = ("localisation_accuracy", "accuracy", "mean_iou")
    return {
        "tap": tap,
        **{name: metrics[name] for name in names},
        **{f"baseline_{name}": baseline[name] for name in names},
    }


def measure_masks(data: Prepared, scratch: Path) -> dict[str, Any]:
    """Measure a class per pixel on street scenes, with all masks and with few."""
    task, test, val, train = (
        data.dataset.task, *(data.targets(split) for split in ("test", "val", "train"))
    )  # fmt: skip
    tap, outputs = fit_heads(data, scratch)
    calibration = task.calibrate(outputs["val"], val)
    said, known = data.features("test", tap), data.features("train", tap)
    names = ("mean_iou", "pixel_accuracy")

    def measure(logits: np.ndarray, prefix: str) -> dict[str, float]:
        metrics = task.metrics(task.decide(logits, calibration), test)
        return {f"{prefix}{name}": metrics[name] for name in names}

    found = measure(outputs["test"], "")
    solver = SegmentationSolver().reading(data.parts[tap])
    few = np.linspace(0, len(train) - 1, FEW_MASKS).round().astype(int)
    path = solver.cross_validate(
        known[few], train.take(few), folds=3, strengths=data.grid, seed=0, enough=is_past_best
    )
    l2 = path.strengths[strongest_of_equals(path.strengths, path.losses)]
    head = solver.fit(known[few], train.take(few), l2=l2)
    found |= measure(head.outputs(said), f"of_{FEW_MASKS}_masks_")
    rows, sampled = solver.sample_positions(known, train)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    model.fit(rows, sampled.values)
    scaler, regression = model.steps[0][1], model.steps[1][1]
    weights = np.zeros((len(train.names), rows.shape[1]), np.float32)
    bias = np.full(len(train.names), -30.0, np.float32)
    weights[regression.classes_] = regression.coef_ / scaler.scale_
    bias[regression.classes_] = regression.intercept_ - weights[regression.classes_] @ scaler.mean_
    shapes = tuple((part.channels, part.grid) for part in data.parts[tap])
    baseline = MapHead(LinearHead(weights, bias), shapes, task.output_grid)
    return {"tap": tap, **found, **measure(baseline.outputs(said), "baseline_")}


Measure = Callable[[Prepared, Path], dict[str, Any]]
SETS: Mapping[str, tuple[str, str, Measure]] = {
    "multi_label": ("street_scenes", "labels.csv", measure_labels),
    "regression": ("blood_boxes", "red_cells.csv", measure_numbers),
    "localisation": ("animals_boxes", "largest_box.csv", measure_boxes),
    "segmentation": ("street_scenes", "", measure_masks),
}


def main() -> None:
    """Measure each task and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--store", type=Path, default=Path(".rootstock/features"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/tasks.json"))
    parser.add_argument("--only", choices=SETS)
    parser.add_argument("--seeds", type=int, default=1, help="number of splits, if none are given")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name, (folder, table, measure) in SETS.items():
        if options.only and name != options.only:
            continue
        with tempfile.TemporaryDirectory() as unpacked:
            found = find_set(options.data_dir, folder, Path(unpacked))
            if found is None:
                print(f"{options.data_dir} has no {folder}")
                continue
            of_seeds = []
            for seed in range(options.seeds):
                with tempfile.TemporaryDirectory() as scratch:
                    data = Prepared(found / table, options.store, Path(scratch), [f"seed={seed}"])
                    of_seeds.append(measure(data, Path(scratch)))
                print(name, json.dumps(of_seeds[-1]))
        numbers = [key for key in of_seeds[0] if key != "tap"]
        of_each = {key: [round(float(one[key]), 4) for one in of_seeds] for key in numbers}
        # Not the mean: a baseline may fail on one split, which would flatter the other side.
        medians = {key: round(float(np.median(values)), 4) for key, values in of_each.items()}
        taps = [one["tap"] for one in of_seeds]
        rows[name] = {"set": folder, "taps": taps, "median": medians, "of_seeds": of_each}
    facts = describe_run("python benchmarks/tasks.py --data-dir ../shared/data --seeds 5")
    write_json(options.out, rows | facts)


if __name__ == "__main__":
    main()
