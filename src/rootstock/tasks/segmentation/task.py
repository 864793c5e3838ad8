"""Segmentation: every position of an image has a class."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from PIL import Image

from rootstock.data.target_rules import Settled
from rootstock.errors import DataError
from rootstock.metrics import stability_index
from rootstock.system.escape import list_names
from rootstock.tasks.answer import Answer
from rootstock.tasks.comparison import Comparison
from rootstock.tasks.segmentation import files, grids, masks, measures, strata
from rootstock.tasks.segmentation.answer import Area, MaskAnswer
from rootstock.tasks.segmentation.classes import FILES
from rootstock.tasks.segmentation.colours import make_palette, to_hex
from rootstock.tasks.segmentation.folders import PairReader, find_pairs
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import (
    AnswerOptions,
    Arrays,
    Calibration,
    Editor,
    Evidence,
    Report,
    Subject,
    Task,
    TensorSpec,
)

if TYPE_CHECKING:
    import torch

    from rootstock.data.columns import Columns
    from rootstock.tasks.learning import HeadSolver, TargetLoss

MAP_GRIDS = (grids.GRID // 4, grids.GRID // 2, grids.GRID)
"""Cells along each side of the maps that heads read, from the deepest one up."""
MAX_MASK_SIDE = 1024
"""Longer side of the mask in an answer, in pixels."""
MAX_EXPLAINED = 3
"""Number of classes of an answer for which heat maps are drawn."""
OTHER_TARGETS = ("label", "labels", "target")
"""If a table has one of these columns, a column `mask` only describes its images."""


class Segmentation(Task):
    """One class per position of an image.

    The text in a table or for a folder is the path of the mask, in the manifest the classes on a
    grid of points (`masks.write_text`). ``values`` are uint8[N,P,P]; outputs are float32[N,K*G*G],
    decisions log-probabilities float16[N,K,G,G].
    """

    name: ClassVar[str] = "segmentation"
    editor: ClassVar[Editor] = "mask"
    corrects_texts: ClassVar[bool] = False
    averages_networks: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = ("mask",)
    spatial: ClassVar[bool] = True
    output_grid: ClassVar[int] = grids.GRID
    gate_metrics: ClassVar[tuple[str, ...]] = ("mean_iou", "pixel_accuracy")

    # Data

    def recognise(self, root: Path, columns: Columns | None) -> str:
        """Return the folders of images and masks, or the column `mask`."""
        if columns is None:
            pairs = find_pairs(root)
            return f"the folders {pairs[0][1]} and {pairs[0][2]}" if pairs else ""
        if any(columns.find(name) for name in OTHER_TARGETS):
            return ""
        return super().recognise(root, columns)

    def open_folder(self, root: Path, *, need_train: bool) -> PairReader | None:
        """Return a reader of files with the same stem in `images/` and `masks/`."""
        pairs = find_pairs(root)
        return PairReader(root, pairs, need_train) if pairs else None

    def read_cells(self, columns: Columns, names: Sequence[str]) -> list[str]:
        """Return the path of each mask, with slashes."""
        return [text.replace("\\", "/") for text in super().read_cells(columns, names)]

    def linked_files(self, texts: Sequence[str]) -> list[str]:
        """Return the mask files, and the files that define their classes."""
        return [*texts, *FILES]

    def read_names(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return the classes in the order of their indexes."""
        return masks.read_names(texts[0])

    def width(self, names: Sequence[str]) -> int:
        """Return one output for each class and position."""
        return len(names) * grids.GRID**2

    def read_tap(self, depth: str, taps: Sequence[str]) -> str:
        """Return the maps of the three deepest taps that have one, whatever the depth."""
        with_map = taps[-1 - len(MAP_GRIDS) : -1]
        sides = MAP_GRIDS[: len(with_map)][::-1]
        return "+".join(f"{tap}@{side}" for tap, side in zip(with_map, sides, strict=True))

    def probe_tap(self, depth: str, taps: Sequence[str]) -> str:
        """Return the map of ``depth``; for the last tap the maps that heads read."""
        if depth == taps[-1]:
            return self.read_tap(depth, taps)
        above = len(taps) - 2 - list(taps).index(depth)
        return f"{depth}@{MAP_GRIDS[min(above, len(MAP_GRIDS) - 1)]}"

    def parse(self, texts: Sequence[str], names: Sequence[str]) -> np.ndarray:
        """Return class numbers uint8[N,P,P] by ``names``; ignored points are `masks.IGNORED`."""
        values = np.empty((len(texts), masks.POINTS, masks.POINTS), np.uint8)
        numbers = {name: number for number, name in enumerate(names)}
        for row, text in enumerate(texts):
            own, grid = masks.read_names(text), masks.read_grid(text)
            if own != tuple(names):
                if unknown := [name for name in masks.list_present(text) if name not in numbers]:
                    raise DataError(
                        f"masks show the class {unknown[0]!r}, which is not one of "
                        f"{list_names(list(names)[:10])}",
                        hint="write the names of the model's classes in classes.txt",
                    )
                renumbered = np.full(256, masks.IGNORED, np.uint8)
                renumbered[: len(own)] = [numbers.get(name, masks.IGNORED) for name in own]
                grid = renumbered[grid]
            values[row] = grid
        return values

    def strata(self, texts: Sequence[str]) -> list[str]:
        """Return the rarest class of each image."""
        return strata.stratify(texts)

    def balance(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the classes of each image."""
        return [tuple(masks.list_present(text)) or (strata.EMPTY,) for text in texts]

    def caption(self, text: str) -> str:
        """Return the classes in the mask."""
        return ", ".join(masks.list_present(text)) if masks.is_settled(text) else text

    def check_texts(self, root: Path, texts: Sequence[str]) -> None:
        """Refuse JPEG masks."""
        files.check_names(root, texts)

    def settle(
        self, root: Path, texts: Sequence[str], paths: Sequence[str], sizes: np.ndarray
    ) -> Settled:
        """Return the masks on a grid of points."""
        return files.settle_masks(root, texts, paths, sizes)

    def correct(self, old: str, new: str) -> str:
        """Refuse the correction: a mask is corrected in its file."""
        raise DataError(
            f"a mask cannot be replaced by {new!r}",
            hint="edit the mask file; the index reads it again",
        )

    def check(self, root: Path, texts: Sequence[str], listed: Sequence[str], least: int) -> None:
        """Refuse data without a usable image."""
        if not texts:
            raise DataError(
                f"none of the {len(listed)} files in {root} is a usable image",
                hint="convert the files to JPEG or PNG, download them, or remove them",
            )

    # Training

    def head(self, weighting: str = "none") -> HeadSolver:
        """Return softmax regression at positions."""
        from rootstock.tasks.segmentation.learning import SegmentationSolver

        return SegmentationSolver()

    def loss(
        self,
        targets: Targets,
        *,
        weighting: str,
        label_smoothing: float,
        device: torch.device,
    ) -> TargetLoss:
        """Return the mean cross-entropy of the points."""
        from rootstock.tasks.segmentation.learning import PointLoss

        return PointLoss(len(targets.names), label_smoothing, device)

    def average(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the logs of the mean probabilities at each position."""
        from rootstock.tasks.learning import average_classes

        by_position = outputs.unflatten(2, (-1, grids.GRID**2))
        return average_classes(by_position).flatten(1)

    def losses(
        self, outputs: np.ndarray, targets: Targets, calibration: Calibration | None = None
    ) -> np.ndarray:
        """Return each image's mean log-loss over its points."""
        temperature = calibration["temperature"] if calibration else 1.0
        return measures.losses(outputs, targets.values, temperature)

    def validate(self, outputs: np.ndarray, targets: Targets) -> dict[str, float]:
        """Return the loss, the mean IoU and the share of points with the right class."""
        counts = measures.Counts.of(grids.as_grids(outputs), targets.values)
        return {
            "val_loss": float(self.losses(outputs, targets).mean()),
            "val_mean_iou": float(measures.mean_overlap(counts.overlaps())[0]),
            "val_pixel_accuracy": float(counts.accuracies()[0]),
        }

    def calibrate(self, outputs: np.ndarray, targets: Targets) -> Calibration:
        """Return the temperature."""
        from rootstock.tasks.single_label.measures import fit_temperature

        logits, classes = measures.sample_cells(outputs, targets.values)
        return {"temperature": fit_temperature(logits, classes) if len(classes) else 1.0}

    def find_fault(self, names: Sequence[str], calibration: Calibration) -> str:
        """Require classes, each once, and a temperature."""
        if len(set(names)) < len(names):
            return "a class is listed more than once"
        value = calibration.get("temperature")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(cast(float, value)) or cast(float, value) <= 0:
            return f"the temperature must be above 0, but is {value!r}"
        return ""

    def describe_calibration(
        self, outputs: np.ndarray, targets: Targets, calibration: Calibration
    ) -> dict[str, float]:
        """Return the metrics of an epoch, and the calibrated loss."""
        calibrated = float(self.losses(outputs, targets, calibration).mean())
        return {**self.validate(outputs, targets), "val_loss": calibrated}

    # Prediction

    def decide(self, outputs: np.ndarray, calibration: Calibration) -> np.ndarray:
        """Return calibrated log-probabilities float16[N,K,G,G]."""
        return grids.log_probabilities(outputs, calibration["temperature"]).astype(np.float16)

    def answer(
        self,
        decision: np.ndarray,
        names: Sequence[str],
        options: AnswerOptions,
        reference: Arrays,
    ) -> MaskAnswer:
        """Return the mask in the size of the image, and the shares of the classes."""
        scale = min(1.0, MAX_MASK_SIDE / max(options.size))
        width, height = (max(1, round(side * scale)) for side in options.size)
        classes = grids.classes_of_size(decision, (width, height))
        counts = np.bincount(classes.ravel(), minlength=len(names))
        order = [k for k in np.argsort(-counts, kind="stable").tolist() if counts[k]]
        image = Image.fromarray(classes, "P")
        image.putpalette(make_palette(len(names)).tobytes())
        content = io.BytesIO()
        image.save(content, "PNG")
        return MaskAnswer(
            areas=tuple(Area(names[k], counts[k] / classes.size, to_hex(k)) for k in order),
            mask=base64.b64encode(content.getvalue()).decode(),
        )

    def subjects(self, names: Sequence[str]) -> dict[str, Subject]:
        """Return the classes, each with its outputs at all positions."""
        count = grids.GRID**2
        return {
            name: Subject(tuple(range(number * count, (number + 1) * count)))
            for number, name in enumerate(names)
        }

    def explained(self, decision: np.ndarray, names: Sequence[str]) -> list[str]:
        """Return the classes with the largest shares."""
        shares = measures.mean_shares(decision[None])
        order = np.argsort(-shares, kind="stable")[:MAX_EXPLAINED]
        return [names[k] for k in order.tolist() if shares[k] or k == order[0]]

    def remember(self, decisions: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """Return the ``shares`` of the classes."""
        return {"shares": measures.mean_shares(decisions).astype(np.float32)}

    def tensor_specs(self, names: Sequence[str]) -> list[TensorSpec]:
        """Return `mask`, a PNG in base64, and `shares` in the order of the classes."""
        return [TensorSpec("mask", "BYTES"), TensorSpec("shares", "FP32", len(names))]

    def tensors(self, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, list[Any]]:
        """Return masks [N] and shares [N*K]."""
        found = cast(Sequence[MaskAnswer], answers)
        shares = [_shares(one) for one in found]
        return {
            "mask": [one.mask for one in found],
            "shares": [of_image.get(name, 0.0) for of_image in shares for name in names],
        }

    def drift(
        self, answers: Sequence[Answer], names: Sequence[str], reference: Arrays
    ) -> dict[str, float]:
        """Return how far the mean shares are from those of the validation images."""
        found = [_shares(one) for one in cast(Sequence[MaskAnswer], answers) if one.areas]
        if "shares" not in reference or not found:
            return {}
        means = np.array([np.mean([one.get(name, 0.0) for one in found]) for name in names])
        return {"classes": stability_index(means, reference["shares"])}

    # Evaluation

    def metrics(self, decisions: np.ndarray, targets: Targets) -> dict[str, float]:
        """Return the mean IoU and the pixel accuracy, with their intervals."""
        from rootstock.tasks.segmentation.evaluation import Segmented

        return Segmented(decisions, targets).metrics()

    def errors(self, decisions: np.ndarray, targets: Targets) -> np.ndarray:
        """Return the share of wrong points of each image."""
        counts = measures.Counts.of(decisions, targets.values)
        right, total = counts.both.sum(axis=1), counts.true.sum(axis=1)
        return np.asarray(1.0 - right / np.maximum(total, 1))

    def uncertainty(self, decisions: np.ndarray) -> np.ndarray:
        """Return the mean uncertainty of the most probable class over positions."""
        return np.asarray(1.0 - np.exp(decisions.astype(np.float32).max(axis=1)).mean(axis=(1, 2)))

    def report(self, evidence: Evidence, metrics: Mapping[str, float], root: Path) -> Report:
        """Return words, the table of classes, and pictures."""
        from rootstock.tasks.segmentation.evaluation import make_report

        return make_report(evidence, metrics, root)

    def prediction_rows(self, evidence: Evidence) -> list[Sequence[object]]:
        """Return path, share of right points, and actual and predicted shares of each class."""
        from rootstock.tasks.segmentation.evaluation import Segmented

        return Segmented.of(evidence).prediction_rows()

    def compare(
        self,
        champion: np.ndarray,
        challenger: np.ndarray,
        targets: Targets,
        *,
        metric: str,
        rule: str,
        min_gain: float,
    ) -> Comparison:
        """Compare two models by ``metric``, with a paired bootstrap."""
        from rootstock.tasks.segmentation.gate import compare

        return compare(champion, challenger, targets, metric=metric, rule=rule, min_gain=min_gain)

    def describe(self, names: Sequence[str]) -> str:
        """Return how many classes the model distinguishes."""
        return f"Assigns one of {len(names)} classes to each pixel of an image."

    def describe_quality(
        self,
        metrics: Mapping[str, float],
        rows: Sequence[Mapping[str, str]],
        unknown_share: float,
    ) -> list[str]:
        """Return the measures and the weakest classes."""
        from rootstock.tasks.segmentation.evaluation import describe_quality

        return describe_quality(metrics, rows)

    def describe_limits(self, unknown_share: float) -> list[str]:
        """Return how fine masks are, and what happens to areas of none of the classes."""
        return [
            f"- Classes are computed at {grids.GRID} x {grids.GRID} positions of an image and "
            "interpolated between them, so narrower objects are often missed.",
            "- Every pixel gets one of the classes, even if it shows none of them.",
        ]


def _shares(answer: MaskAnswer) -> dict[str, float]:
    return {one.label: one.share for one in answer.areas or ()}
