"""Measure how corruptions and attacks change answers, on any labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.explain.fooling import measure_fooling
from rootstock.explain.robustness import Sample, measure_corruptions
from rootstock.explain.robustness_report import write_robustness
from rootstock.model.predictor import Predictor
from rootstock.workflow.index import index_labelled, log_notices
from rootstock.workflow.project import Project


def measure_robustness(
    config: Config, paths: Paths, *, model: Path, out: Path, most: int
) -> dict[str, Any]:
    """Write the effects of corruptions and attacks on up to ``most`` images; return the numbers.

    Uses the folder's own test split, or every image if it has none.
    Raises:
        DataError: the folder has classes that the model does not know.
    """
    predictor = Predictor(model)
    manifest = index_labelled(config, paths, predictor.task)
    log_notices(manifest)
    rows = manifest.rows("test" if "test" in manifest.given_splits else None)
    sample = Sample.read(predictor, rows, Project(config, paths).root, most=most)
    corruptions = measure_corruptions(predictor, sample)
    fooling = measure_fooling(predictor, sample)
    return write_robustness(predictor.task.score, sample, corruptions, fooling, out)
