"""Stage `evaluate`: ModelBundle and test images in, Evaluation and its pictures out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.data.layout import base_folder
from rootstock.data.manifest import ImageRow, Manifest
from rootstock.errors import DataError
from rootstock.evaluate.report import Evaluation, evaluate, write_evaluation
from rootstock.model.batch_predict import predict_rows
from rootstock.model.predictor import Inferred, Predictor
from rootstock.ports.runs import RunLogger
from rootstock.system.files import read_json
from rootstock.workflow.forecast import compare_forecast
from rootstock.workflow.index import index_images


def evaluate_model(config: Config, paths: Paths, *, runs: RunLogger) -> Evaluation:
    """Measure the bundle once on the test split, as it would be served; log it to the run."""
    manifest = Manifest.read(paths.manifest)
    root = base_folder(paths.below(config.data.root))
    training = read_json(paths.training, made_by="train")
    evaluation = _evaluate(Predictor(paths.model), manifest.rows("test"), root)
    write_evaluation(evaluation, paths.reports, root=root)
    forecast = compare_forecast(config, paths, training, evaluation.metrics)
    with runs.run("evaluate", run_id=training["run_id"]) as run:
        run.log_metrics(forecast)
        run.log_metrics({f"test_{name}": value for name, value in evaluation.metrics.items()})
        run.log_files(paths.reports, folder="reports")
    return evaluation


def evaluate_folder(config: Config, paths: Paths, *, model: Path) -> dict[str, Any]:
    """Measure any bundle on any labelled folder; returns the metrics.

    The folder's own test split is used, or every image where it brings none.
    Raises:
        DataError: the folder has classes that the model does not know.
    """
    manifest = index_images(config, paths)
    root = base_folder(paths.below(config.data.root))
    rows = manifest.rows("test" if "test" in manifest.given_splits else None)
    evaluation = _evaluate(Predictor(model), rows, root)
    write_evaluation(evaluation, paths.reports, root=root)
    return evaluation.metrics


def _evaluate(predictor: Predictor, rows: list[ImageRow], root: Path) -> Evaluation:
    number = {label: index for index, label in enumerate(predictor.classes)}
    unknown = sorted({row.label for row in rows} - set(number))
    if unknown:
        raise DataError(
            f"the model does not know the classes {', '.join(unknown)}",
            hint=f"it knows {', '.join(predictor.classes)}",
        )
    labels = np.array([number[row.label] for row in rows])
    found = predict_rows(predictor, rows, root)
    return evaluate(
        found.probabilities,
        labels,
        classes=predictor.classes,
        paths=[row.path for row in rows],
        honesty=measure_honesty(predictor, found, labels),
    )


def measure_honesty(predictor: Predictor, found: Inferred, labels: np.ndarray) -> dict[str, float]:
    """Whether the model keeps on these images what it promises.

    ``coverage_95``: in how many 95 % prediction sets the true class is, ``set_size_95``: how many
    classes they hold, ``unknown_share``: how many images are called unknown. Empty for a model
    that keeps no reference.
    """
    if predictor.bundle.reference is None or not len(labels):
        return {}
    answers = [predictor.answer(*row, coverage=0.95) for row in zip(*found, strict=True)]
    sets = [answer.labels or () for answer in answers]
    return {
        "coverage_95": float(
            np.mean([predictor.classes[y] in kept for y, kept in zip(labels, sets, strict=True)])
        ),
        "set_size_95": float(np.mean([len(kept) for kept in sets])),
        "unknown_share": float(np.mean([bool(answer.unknown) for answer in answers])),
    }
