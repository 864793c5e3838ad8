"""The evidence for the answers: a section of the evaluation, and its picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rootstock.data.manifest import ImageRow
from rootstock.data.read import read_file
from rootstock.errors import ExplainError
from rootstock.explain.faithfulness import Faithfulness, measure_faithfulness
from rootstock.explain.heat_map import HeatMap, explain_images
from rootstock.explain.overlay import draw_overlay
from rootstock.explain.similar import ImageIndex, precision_at
from rootstock.model.predictor import Predictor
from rootstock.plots.sheet import plot_captioned_tiles
from rootstock.system.escape import markdown_table
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import PICTURE_FOLDER

MAX_SHOWN = 24
MAX_MEASURED = 12
"""Images whose maps are compared with random orders; each takes 36 forward passes."""
RETRIEVED = (1, 5, 10)
MAX_SEARCHED, MAX_TARGETS = 2_000, 20
"""Test images that are searched, and classes listed in the table."""
PICTURE = f"{PICTURE_FOLDER}/heat_maps.png"


@dataclass(frozen=True)
class Explanations:
    """Heat maps of some test images, the largest errors first.

    ``targets`` are the images' targets for people. ``wrong`` is a bool per image, None for tasks
    without right and wrong. ``faithfulness`` is None for tasks whose answers have no probability.
    """

    targets: Sequence[str]
    heat_maps: Sequence[HeatMap]
    wrong: Sequence[bool] | None
    faithfulness: Faithfulness | None

    def draw(self, path: Path) -> None:
        """Draw the maps over their images."""
        wrong = self.wrong or [False] * len(self.targets)
        tiles = []
        for target, heat_map, is_wrong in zip(self.targets, self.heat_maps, wrong, strict=True):
            output, title = heat_map.output, f"is {target}" if is_wrong else target
            if self.wrong is None and output != target:
                title = f"{output} (is {target})"
            said = f"answered {output}" if is_wrong else ""
            tiles.append((draw_overlay(heat_map), title, said))
        order = "the largest errors first"
        if self.wrong is not None:
            order = f"{sum(wrong)} of these {len(tiles)} answers are wrong"
        about = f"orange: evidence for the answer; {order}"
        plot_captioned_tiles(tiles, path, headlines=("Evidence for the answers", about))

    def render(self) -> str:
        """Return the section as Markdown."""
        lines = [
            "## Evidence for the answers",
            "",
            "Orange marks the evidence for each answer, on the part of the image that the model "
            "sees. "
            "If it is not on the subject, the model may have learnt a shortcut.",
            "",
            f"![heat maps]({PICTURE})",
        ]
        if self.faithfulness:
            lines += ["", _say(self.faithfulness)]
        return "\n".join(lines) + "\n"


def explain_tests(
    predictor: Predictor,
    rows: Sequence[ImageRow],
    decisions: np.ndarray,
    targets: Targets,
    root: Path,
) -> Explanations | None:
    """Explain up to 24 test images, largest errors first; None if the network has no maps."""
    task = predictor.task
    errors = task.errors(decisions, targets)
    errors = np.zeros(len(rows)) if errors is None else np.nan_to_num(errors)
    chosen = _choose(errors)
    shown = [rows[index] for index in chosen]
    heat_maps = []
    for row in shown:
        prepared = predictor.prepare(read_file(root / row.path, predictor.limits).content)
        try:
            explained = explain_images(predictor, [prepared], method="maps")
        except ExplainError:
            return None
        heat_maps += [one.heat_map for one in explained]
    measured = heat_maps[:: max(1, len(heat_maps) // MAX_MEASURED)][:MAX_MEASURED]
    can_measure = task.confidences(decisions) is not None
    faithfulness = measure_faithfulness(predictor, measured) if can_measure else None
    captions = [task.caption(row.target) for row in shown]
    wrong = [bool(errors[index]) for index in chosen] if task.discrete else None
    return Explanations(captions, heat_maps, wrong, faithfulness)


def render_retrieval(features: np.ndarray, rows: Sequence[ImageRow]) -> str:
    """Return the section on images found by features [N,D]; empty for very few images."""
    if len(rows) <= max(RETRIEVED):
        return ""
    picks = np.linspace(0, len(rows) - 1, min(MAX_SEARCHED, len(rows))).round().astype(int)
    paths, targets = zip(*((rows[i].path, rows[i].target) for i in picks), strict=True)
    index = ImageIndex.make(features[picks], paths, targets, "")
    precision = precision_at(index, RETRIEVED)
    lowest = sorted(precision, key=lambda target: precision[target][RETRIEVED[0]])[:MAX_TARGETS]
    overall = [
        float(np.average([one[n] for one in precision.values()],
                         weights=[targets.count(target) for target in precision]))
        for n in RETRIEVED
    ]  # fmt: skip
    lines = [
        "## Similar images",
        "",
        "Share of the nearest test images of a test image, by the model's features, that have its "
        "class (precision at 1, 5, and 10), lowest first:",
        "",
        *markdown_table(
            ("class", *(f"at {n}" for n in RETRIEVED)),
            [
                ("all", *(f"{value:.3f}" for value in overall)),
                *(
                    (target, *(f"{precision[target][n]:.3f}" for n in RETRIEVED))
                    for target in lowest
                ),
            ],
        ),
    ]
    return "\n".join(lines) + "\n"


def _choose(errors: np.ndarray) -> np.ndarray:
    """Return the numbers of up to 24 images: the largest errors, then evenly spread right ones."""
    wrong = np.argsort(-errors, kind="stable")[: min(MAX_SHOWN, np.count_nonzero(errors))]
    right = np.flatnonzero(errors == 0)
    n_right = min(MAX_SHOWN - len(wrong), len(right))
    picks = np.linspace(0, len(right) - 1, n_right).round().astype(int)
    return np.concatenate([wrong, right[picks]])


def _say(measured: Faithfulness) -> str:
    return (
        f"Checked on {measured.n_images} images: if their parts are blurred in the order of the "
        f"map, the mean probability of the answer is {measured.deletion:.2f} "
        f"({measured.random_deletion:.2f} in a random order; lower is better). If the parts are "
        f"shown in that order, it is {measured.insertion:.2f} ({measured.random_insertion:.2f}; "
        "higher is better)."
    )
