"""Training of a localiser: exact heads on features and maps, and the fine-tuning loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rootstock.backbones.tap_features import TapPart
from rootstock.heads.linear import CPU, LinearHead
from rootstock.heads.ridge import fit_ridge
from rootstock.tasks.learning import Coded, HeadSolver, TargetLoss, average_classes
from rootstock.tasks.localisation import measures
from rootstock.tasks.localisation.boxes import MIN_SHARE
from rootstock.tasks.single_label.learning import SoftmaxSolver
from rootstock.tasks.targets import Targets

MIN_VISIBLE = 0.25
"""An image whose crop keeps a smaller share of the box does not train the box."""


@dataclass(frozen=True)
class LocalisationSolver(HeadSolver):
    """Softmax regression for the class and ridge regression for the box, joined in one head.

    The class reads averaged features and the box reads maps, if ``parts`` have any; otherwise both
    read all features. The head of the box has a separate strength.
    """

    parts: tuple[TapPart, ...] = ()

    def reading(self, parts: Sequence[TapPart]) -> LocalisationSolver:
        """See `HeadSolver`."""
        return replace(self, parts=tuple(parts))

    def width(self, targets: Targets) -> int:
        """See `HeadSolver`."""
        return len(targets.names) + 4

    def code(self, targets: Targets, device: torch.device) -> Coded:
        """See `HeadSolver`; only the class, since the box is solved separately."""
        return SoftmaxSolver().code(class_targets(targets), device)

    def measure(self, outputs: np.ndarray, targets: Targets) -> tuple[float, np.ndarray]:
        """Return the share of right classes with a right box, and each image's loss."""
        score = measures.hits(outputs, targets.values).mean()
        return float(score), measures.losses(outputs, targets.values)

    def target_loss(self, targets: Targets, device: torch.device) -> BoxLoss:
        """See `HeadSolver`."""
        return BoxLoss(len(targets.names), 0.0, device)

    def walk(
        self,
        features: np.ndarray,
        targets: Targets,
        *,
        strengths: Sequence[float],
        device: torch.device = CPU,
    ) -> Iterator[tuple[float, LinearHead]]:
        """See `HeadSolver`."""
        pooled, maps = self._columns(features.shape[1])
        box = fit_ridge(features[:, maps], targets.values[:, 1:], device=device)
        classes = SoftmaxSolver().walk(
            features[:, pooled], class_targets(targets), strengths=strengths, device=device
        )
        for strength, head in classes:
            yield strength, self._join(head, box, features.shape[1])

    def _walk_folds(
        self,
        features: np.ndarray,
        targets: Targets,
        tests: Sequence[np.ndarray],
        strengths: Sequence[float],
        device: torch.device,
    ) -> Iterator[tuple[float, list[LinearHead]]]:
        pooled, maps = self._columns(features.shape[1])
        places, boxes = features[:, maps], []
        for test in tests:
            rows = np.setdiff1d(np.arange(len(targets)), test)
            boxes.append(fit_ridge(places[rows], targets.values[rows, 1:], device=device))
        for strength, heads in super()._walk_folds(
            features[:, pooled], targets, tests, strengths, device
        ):
            yield (
                strength,
                [
                    self._join(head, box, features.shape[1])
                    for head, box in zip(heads, boxes, strict=True)
                ],
            )

    def _columns(self, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns of averaged features and those of maps."""
        in_map = np.concatenate(
            [np.full(part.width, part.grid > 0) for part in self.parts] or [np.zeros(width, bool)]
        )
        every = np.arange(width)
        return every[~in_map], every[in_map] if in_map.any() else every

    def _join(self, head: LinearHead, box: LinearHead, width: int) -> LinearHead:
        pooled, maps = self._columns(width)
        n_classes = len(head.bias)
        weights = np.zeros((n_classes + 4, width), np.float32)
        weights[:n_classes, pooled] = head.weights
        weights[n_classes:, maps] = box.weights
        return LinearHead(weights, np.concatenate([head.bias, box.bias]))


@dataclass(frozen=True)
class BoxLoss(TargetLoss):
    """Cross-entropy of the class, L1 and GIoU of the box.

    Encoded targets are float32[B,K+5]: the class, the box, and whether the box counts.
    """

    n_classes: int
    label_smoothing: float
    device: torch.device

    def encode(self, values: np.ndarray) -> Tensor:
        """See `TargetLoss`."""
        labels = F.one_hot(torch.from_numpy(values[:, 0]).long(), self.n_classes).float()
        boxes = torch.from_numpy(np.ascontiguousarray(values[:, 1:]))
        return torch.cat([labels, boxes, torch.ones(len(values), 1)], dim=1).to(self.device)

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `TargetLoss`."""
        labels, boxes, counts = targets.split([self.n_classes, 4, 1], dim=1)
        logits, places = outputs.split([self.n_classes, 4], dim=1)
        of_class = F.cross_entropy(
            logits, labels, label_smoothing=self.label_smoothing, reduction="sum"
        )
        distance = (places - boxes).abs().sum(dim=1)
        missed = 1.0 - generalised_overlap(places, boxes)
        of_box = measures.DISTANCE_WEIGHT * distance + measures.OVERLAP_WEIGHT * missed
        return of_class + (of_box * counts[:, 0]).sum()

    def move(self, targets: Tensor, maps: Tensor) -> Tensor:
        """See `TargetLoss`. The object is treated as the ellipse in its box.

        The box around a turned box would be too large.
        """
        labels, boxes, _ = targets.split([self.n_classes, 4, 1], dim=1)
        maps = maps.to(targets)
        back = torch.linalg.inv(maps[:, :, :2])
        lower, upper = 2 * boxes[:, :2] - 1, 2 * boxes[:, 2:] - 1
        centre = (back @ ((lower + upper) / 2 - maps[:, :, 2]).unsqueeze(2)).squeeze(2)
        half = (back.square() @ ((upper - lower) / 2).square().unsqueeze(2)).squeeze(2).sqrt()
        whole = torch.cat([centre - half, centre + half], dim=1)
        seen = whole.clamp(-1, 1)
        visible = _area(seen) / _area(whole).clamp(min=MIN_SHARE)
        counts = (visible >= MIN_VISIBLE).to(targets).unsqueeze(1)
        return torch.cat([labels, (seen + 1) / 2, counts], dim=1)


def generalised_overlap(one: Tensor, other: Tensor) -> Tensor:
    """Return GIoU [B] of boxes [B,4], whatever the order of their sides (see `boxes`)."""
    lower, upper = torch.minimum(one[:, :2], one[:, 2:]), torch.maximum(one[:, :2], one[:, 2:])
    one = torch.cat([lower, upper], dim=1)
    inner = torch.cat(
        [torch.maximum(one[:, :2], other[:, :2]), torch.minimum(one[:, 2:], other[:, 2:])], dim=1
    )
    outer = torch.cat(
        [torch.minimum(one[:, :2], other[:, :2]), torch.maximum(one[:, 2:], other[:, 2:])], dim=1
    )
    shared, hull = _area(inner), _area(outer)
    joined = _area(one) + _area(other) - shared
    return shared / joined.clamp(min=MIN_SHARE) - (hull - joined) / hull.clamp(min=MIN_SHARE)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)


def class_targets(targets: Targets) -> Targets:
    """Return the classes of targets as those of a classifier."""
    return replace(targets, values=targets.values[:, 0].astype(np.int64))


def average_boxes(outputs: Tensor) -> Tensor:
    """Return the logs of the mean probabilities, and the mean boxes, of outputs [n,N,K+4]."""
    logits, boxes = outputs[:, :, :-4], outputs[:, :, -4:]
    return torch.cat([average_classes(logits), boxes.mean(dim=0)], dim=1)
