"""Measure how easily a model is fooled: common corruptions, and adversarial images.

It uses the task's score, so it works for every task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rootstock.data.entry import count
from rootstock.data.manifest import ImageRow
from rootstock.explain.corruptions import CORRUPTIONS, MOVING, SEVERITIES
from rootstock.features.loading import read_pixels
from rootstock.model.predictor import Predictor
from rootstock.system.escape import markdown_table
from rootstock.system.progress import Progress
from rootstock.system.threads import spread
from rootstock.tasks.dataset import read_targets
from rootstock.tasks.metric_words import name_metric
from rootstock.tasks.targets import Targets

TYPICAL_SEVERITY = 3
ROBUST_PREFIX = "robust_"
"""Prefix of the score's name: its mean over the corruptions at severity 3."""
BATCH_IMAGES = 16


@dataclass(frozen=True)
class Sample:
    """Decoded images uint8[H,W,3] with their targets, the targets as texts, and paths."""

    pixels: Sequence[np.ndarray]
    targets: Targets
    texts: Sequence[str]
    paths: Sequence[str]

    def take(self, count: int) -> Sample:
        """Return about ``most`` of the images, evenly spread."""
        step = max(1, len(self.pixels) // count)
        rows = np.arange(0, len(self.pixels), step)[:count]
        texts, paths = [self.texts[row] for row in rows], [self.paths[row] for row in rows]
        return Sample([self.pixels[row] for row in rows], self.targets.take(rows), texts, paths)

    @classmethod
    def read(
        cls, predictor: Predictor, rows: Sequence[ImageRow], root: Path, *, most: int
    ) -> Sample:
        """Read up to ``most`` images, evenly spread over the rows."""
        picks = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))
        chosen = [rows[index] for index in picks]
        preprocess = predictor.bundle.preprocess

        def read(row: ImageRow) -> np.ndarray:
            side, rendering = preprocess.decoded_side, preprocess.rendering
            return read_pixels(row, root, short_side=side, rendering=rendering)

        targets = read_targets(predictor.task, chosen, predictor.names)
        texts, paths = [row.target for row in chosen], [row.path for row in chosen]
        return cls(list(spread(read, chosen)), targets, texts, paths)


@dataclass(frozen=True)
class CorruptionScores:
    """Scores of ``n_images`` images: clean, and by corruption for severities 1 to 5.

    ``unknown``: the share of images that the model answers with `unknown`.
    """

    n_images: int
    clean: float
    scores: dict[str, list[float]] = field(default_factory=dict)
    unknown: dict[str, list[float]] = field(default_factory=dict)

    @property
    def typical(self) -> float:
        """The mean score over the corruptions at severity 3, or at the only severity measured."""
        middle = [one[min(TYPICAL_SEVERITY, len(one)) - 1] for one in self.scores.values()]
        return float(np.mean(middle))


def render_corruptions(metric: str, result: CorruptionScores) -> str:
    """Return the section of an evaluation at severity 3."""
    name = name_metric(metric)
    rows = [("none", f"{result.clean:.3f}", "")]
    for kind, scores in result.scores.items():
        rows.append((kind, f"{scores[-1]:.3f}", f"{result.unknown[kind][-1]:.0%}"))
    lines = [
        "## Corrupted images",
        "",
        f"{count(result.n_images, 'test image')}, degraded as if by a bad camera (severity "
        f"{TYPICAL_SEVERITY} of {len(SEVERITIES)}), with the share that is answered `unknown`. "
        "`rootstock robustness` measures every severity, and the effect of attacks.",
        "",
        *markdown_table(("corruption", name, "unknown"), rows),
    ]
    return "\n".join(lines) + "\n"


def measure_corruptions(
    predictor: Predictor, sample: Sample, *, severities: Sequence[int] = SEVERITIES
) -> CorruptionScores:
    """Return the scores under every corruption, or only those that keep the target true."""
    clean, _ = _score(predictor, sample, list(sample.pixels))
    result = CorruptionScores(len(sample.pixels), clean)
    moving = MOVING if predictor.task.spatial else frozenset()
    chosen = {name: one for name, one in CORRUPTIONS.items() if name not in moving}
    with Progress("corruptions", len(chosen) * len(severities), "setting") as progress:
        for name, corrupt in chosen.items():
            scored = []
            for severity in severities:
                changed = [corrupt(pixels, severity) for pixels in sample.pixels]
                scored.append(_score(predictor, sample, changed))
                progress.update(1)
            result.scores[name] = [round(score, 6) for score, _ in scored]
            result.unknown[name] = [round(unknown, 6) for _, unknown in scored]
    return result


def _score(
    predictor: Predictor, sample: Sample, pixels: Sequence[np.ndarray]
) -> tuple[float, float]:
    """Return the score, and the share of images that the model answers with `unknown`."""
    decisions, unknown = [], 0
    for start in range(0, len(pixels), BATCH_IMAGES):
        batch = [predictor.cut(one) for one in pixels[start : start + BATCH_IMAGES]]
        inferred = predictor.infer(batch)
        decisions.append(inferred.decisions)
        unknown += int(np.sum(predictor.are_unknown(inferred.features)))
    task = predictor.task
    value = task.metrics(np.concatenate(decisions), sample.targets)[task.score]
    return float(value), unknown / len(pixels)
