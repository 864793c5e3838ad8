"""Compare two models on corrupted images, for the gate."""

from __future__ import annotations

from pathlib import Path

from rootstock.data.manifest import ImageRow
from rootstock.explain.robustness import TYPICAL_SEVERITY, Sample, measure_corruptions
from rootstock.model.predictor import Predictor
from rootstock.tasks.metric_words import name_metric

GATE_IMAGES = 100
"""Test images on which both models are compared with each corruption, if the gate asks for it."""


def refuse_fragile(
    challenger: Predictor, champion: Predictor, rows: list[ImageRow], root: Path, allowed: float
) -> str:
    """Return why the challenger is not robust enough; empty if it is."""
    typical = []
    for predictor in (challenger, champion):
        sample = Sample.read(predictor, rows, root, most=GATE_IMAGES)
        scores = measure_corruptions(predictor, sample, severities=[TYPICAL_SEVERITY])
        typical.append(scores.typical)
    loss = typical[1] - typical[0]
    if loss <= allowed:
        return ""
    return (
        f"not promoted: on corrupted images its {name_metric(challenger.task.score)} is "
        f"{typical[0]:.3f}, the champion's {typical[1]:.3f}; `registry.gate.max_robustness_loss` "
        f"allows a loss of {allowed:g}"
    )
