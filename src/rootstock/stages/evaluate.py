"""Stage `evaluate`: ModelBundle and test images in, Evaluation and its pictures out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rootstock.config import Config, Paths
from rootstock.data.files import read_json
from rootstock.data.manifest import ImageRow, Manifest
from rootstock.errors import DataError
from rootstock.evaluate.report import Evaluation, evaluate, write_evaluation
from rootstock.ports import RunLogger
from rootstock.predict import Predictor
from rootstock.stages.index import index_images

BATCH = 32


def evaluate_model(config: Config, paths: Paths, *, runs: RunLogger) -> Evaluation:
    """Measure the bundle once on the test split, as it would be served; log it to the run."""
    manifest = Manifest.read(paths.manifest)
    root = paths.below(config.data.root)
    training = read_json(paths.training, made_by="train")
    evaluation = _evaluate(Predictor(paths.model), manifest, root, split="test")
    with runs.run("evaluate", run_id=training["run_id"]) as run:
        write_evaluation(evaluation, paths.reports, root=root)
        run.log_metrics({f"test_{name}": value for name, value in evaluation.metrics.items()})
        run.log_files(paths.reports, folder="reports")
    return evaluation


def evaluate_folder(config: Config, paths: Paths, *, model: Path) -> dict[str, Any]:
    """Measure any bundle on any labelled folder; returns the metrics.

    The folder's test split is used, or every image where the folder brings none of its own.
    Raises:
        DataError: the folder has classes that the model does not know.
    """
    manifest = index_images(config, paths)
    split = "test" if manifest.has_given("test") else None
    root = paths.below(config.data.root)
    evaluation = _evaluate(Predictor(model), manifest, root, split=split)
    write_evaluation(evaluation, paths.reports, root=root)
    return evaluation.metrics


def predict_rows(predictor: Predictor, rows: list[ImageRow], root: Path) -> np.ndarray:
    """Calibrated probabilities float32[N,K] of manifest rows.

    Raises:
        DataError: an image has changed or vanished since it was indexed.
    """
    answers = []
    for start in tqdm(range(0, len(rows), BATCH), desc="predict", unit="batch", disable=None):
        batch = [read_row(row, root) for row in rows[start : start + BATCH]]
        answers.append(predictor.probabilities(np.stack(batch)))
    return np.concatenate(answers)
