"""Training for masks: softmax regression at positions, and cross-entropy of all points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rootstock.backbones.tap_features import TapPart
from rootstock.errors import TrainingError
from rootstock.heads.linear import CPU, LinearHead, MapHead, MlpHead
from rootstock.heads.maps import interpolation, split_maps
from rootstock.tasks.learning import Coded, HeadSolver, PathScores, TargetLoss
from rootstock.tasks.segmentation import measures
from rootstock.tasks.segmentation.grids import GRID, as_grids
from rootstock.tasks.segmentation.masks import IGNORED, POINTS
from rootstock.tasks.single_label.learning import SoftmaxSolver
from rootstock.tasks.targets import Targets

SAMPLED = 24_000
"""Positions to which a head is fitted, evenly over the images."""
CROSS_VALIDATED = 8_000
"""Positions for a cross-validation, which fits one head per fold."""
AVERAGED = 2_000
"""Positions if features describe whole images, as in the review of the data."""
MAX_FOLDS = 3
MAX_BIAS_GAP = 30.0
"""Bias of a class without drawn positions: it is never predicted, but fine-tuning can learn it."""


@dataclass(frozen=True)
class SegmentationSolver(HeadSolver):
    """Softmax regression on the features of sampled positions: one head for all positions."""

    parts: tuple[TapPart, ...] = ()
    sampled: int = SAMPLED

    def reading(self, parts: Sequence[TapPart]) -> SegmentationSolver:
        """See `HeadSolver`."""
        return replace(self, parts=tuple(parts))

    def width(self, targets: Targets) -> int:
        """See `HeadSolver`."""
        return len(targets.names) * GRID**2

    def code(self, targets: Targets, device: torch.device) -> Coded:
        """See `HeadSolver`; the targets are those of `sample_positions`."""
        return SoftmaxSolver().code(targets, device)

    def measure(self, outputs: np.ndarray, targets: Targets) -> tuple[float, np.ndarray]:
        """Return the mean IoU, and each image's loss."""
        counts = measures.Counts.of(as_grids(outputs), targets.values)
        score = measures.mean_overlap(counts.overlaps())[0]
        return float(score), measures.losses(outputs, targets.values)

    def target_loss(self, targets: Targets, device: torch.device) -> PointLoss:
        """See `HeadSolver`."""
        return PointLoss(len(targets.names), 0.0, device)

    def fit_hidden(self, *_: object, **__: object) -> MlpHead:
        """Refuse: the heads of this task have no hidden layer.

        Raises:
            TrainingError: always.
        """
        raise TrainingError(
            "heads on cached maps have no hidden layer",
            hint="set train.mlp_hidden to null; fine-tuning adds a decoder",
        )

    def walk(  # type: ignore[override]  # a MapHead is used as the others are
        self,
        features: np.ndarray,
        targets: Targets,
        *,
        strengths: Sequence[float],
        device: torch.device = CPU,
    ) -> Iterator[tuple[float, MapHead]]:
        """See `HeadSolver`."""
        rows, sampled = self.sample_positions(features, targets)
        for strength, head in super().walk(rows, sampled, strengths=strengths, device=device):
            yield strength, self._spread(head)

    def cross_validate(
        self,
        features: np.ndarray,
        targets: Targets,
        *,
        folds: int,
        strengths: Sequence[float],
        seed: int,
        enough: Callable[[np.ndarray], bool] | None = None,
        device: torch.device = CPU,
    ) -> PathScores:
        """See `HeadSolver`; with fewer positions and folds than the head itself."""
        quick = replace(self, sampled=CROSS_VALIDATED)
        return super(SegmentationSolver, quick).cross_validate(
            features,
            targets,
            folds=min(folds, MAX_FOLDS),
            strengths=strengths,
            seed=seed,
            enough=enough,
            device=device,
        )

    def out_of_fold(
        self,
        features: np.ndarray,
        targets: Targets,
        *,
        folds: int,
        l2: float | None,
        seed: int,
        rows: np.ndarray | None = None,
        device: torch.device = CPU,
    ) -> np.ndarray:
        """See `HeadSolver`; with fewer positions and folds, as in `cross_validate`."""
        quick = replace(self, sampled=CROSS_VALIDATED)
        return super(SegmentationSolver, quick).out_of_fold(
            features,
            targets,
            folds=min(folds, MAX_FOLDS),
            l2=l2,
            seed=seed,
            rows=rows,
            device=device,
        )

    def _walk_folds(  # type: ignore[override]  # as above
        self,
        features: np.ndarray,
        targets: Targets,
        tests: Sequence[np.ndarray],
        strengths: Sequence[float],
        device: torch.device,
    ) -> Iterator[tuple[float, Sequence[MapHead]]]:
        rows, sampled = self.sample_positions(features, targets)
        assert sampled.groups is not None
        in_fold = [np.flatnonzero(np.isin(sampled.groups, test)) for test in tests]
        for strength, heads in super()._walk_folds(rows, sampled, in_fold, strengths, device):
            yield strength, [self._spread(head) for head in heads]

    def sample_positions(
        self, features: np.ndarray, targets: Targets
    ) -> tuple[np.ndarray, Targets]:
        """Return the features float32[M,C] of sampled positions and their classes int64[M].

        Their group is the number of the image.
        """
        shapes = self._shapes(features.shape[1])
        # Averaged features are the same at all positions of an image
        count = self.sampled if self.parts else min(self.sampled, AVERAGED)
        each = max(1, count // len(targets))
        random = np.random.default_rng(0)
        rows, classes, images = [], [], []
        for number, mask in enumerate(targets.values):
            true = mask[np.ix_(measures.CENTRES, measures.CENTRES)].ravel()
            usable = np.flatnonzero(true != IGNORED)
            cells = np.sort(random.permutation(usable)[:each])
            maps = split_maps(features[number : number + 1], shapes)
            rows.append(np.concatenate([_read_cells(one[0], cells) for one in maps], axis=1))
            classes.append(true[cells].astype(np.int64))
            images.append(np.full(len(cells), number))
        values, groups = np.concatenate(classes), np.concatenate(images)
        return np.concatenate(rows), Targets(values, targets.names, values, groups)

    def _spread(self, head: LinearHead) -> MapHead:
        least = head.bias.max() - MAX_BIAS_GAP
        linear = LinearHead(head.weights, np.maximum(head.bias, least))
        return MapHead(linear, self._shapes(head.weights.shape[1]), GRID)

    def _shapes(self, width: int) -> tuple[tuple[int, int], ...]:
        if not self.parts:  # averaged features: the same at every position
            return ((width, 1),)
        return tuple((part.channels, max(1, part.grid)) for part in self.parts)


def _read_cells(maps: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return the interpolated features float32[M,c] of maps [c,g,g] at cells of the grid."""
    rows, columns = np.divmod(cells, GRID)
    weights = interpolation(maps.shape[-1], GRID)
    if maps.shape[-1] == GRID:
        return maps[:, rows, columns].T
    across = np.einsum("mg,cgh->mch", weights[rows], maps, optimize=True)
    return np.einsum("mch,mh->mc", across, weights[columns], optimize=True)


@dataclass(frozen=True)
class PointLoss(TargetLoss):
    """The mean cross-entropy of an image's points; encoded targets are uint8[B,P,P]."""

    n_classes: int
    label_smoothing: float
    device: torch.device

    def encode(self, values: np.ndarray) -> Tensor:
        """See `TargetLoss`."""
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `TargetLoss`."""
        matrix = torch.from_numpy(interpolation(GRID, POINTS)).to(outputs)
        points = matrix @ outputs.view(-1, self.n_classes, GRID, GRID) @ matrix.T
        of_points = F.cross_entropy(
            points,
            targets.long(),
            ignore_index=IGNORED,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        counts = (targets != IGNORED).sum(dim=(1, 2)).clamp(min=1)
        return (of_points.sum(dim=(1, 2)) / counts).sum()

    def move(self, targets: Tensor, maps: Tensor) -> Tensor:
        """See `TargetLoss`. Beyond the edge masks are mirrored, as images are."""
        shape = [len(targets), 1, POINTS, POINTS]
        places = F.affine_grid(maps.to(targets.device), shape, align_corners=False)
        moved = F.grid_sample(
            targets.unsqueeze(1).float(),
            places,
            mode="nearest",
            padding_mode="reflection",
            align_corners=False,
        )
        return moved[:, 0].to(torch.uint8)
