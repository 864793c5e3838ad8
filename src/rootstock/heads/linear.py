"""Linear heads: arrays in, one matrix and one bias out.

Heads are fitted on standardised features. The standardisation is then removed from the weights, so
that a head reads the features of the backbone directly. `solver` does the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from rootstock.errors import TrainingError
from rootstock.heads.maps import (
    DECODER_WIDTH,
    MapModule,
    MapShape,
    interpolation,
    split_maps,
)
from rootstock.heads.solver import TOLERANCE, Axes, OutputLoss, walk_path
from rootstock.system.files import write_atomic

CPU = torch.device("cpu")
FOLD_TOLERANCE = 1e-4
"""Tolerance in a cross-validation: scores within a tenth of a point, in half the time."""
PROBE_L2 = 1e-2
"""Strength of every probe: probes compare features; the search of the head comes later."""
BLOCK_ROWS = 1024
"""Rows standardised at a time."""
BLOCK_IMAGES = 64
"""Images whose maps are read at a time."""
MIN_SCALE = 1e-8
"""A feature with a smaller deviation is constant, and is not changed."""
PRIOR_IMAGES = 100
"""Weight, in images, of the mean variance of all features against a feature's own: the variance on
few
images is chance, and dividing by it turns noise into weights. Chosen on ants_bees and flowers12
with 1 to 75 images per class; checked on sign_digits, brain_mri, cifar10 and tiny_imagenet."""


@dataclass(frozen=True)
class LinearHead:
    """``weights`` float32[K,D] and ``bias`` float32[K] for the backbone's features."""

    weights: np.ndarray
    bias: np.ndarray

    def outputs(self, features: np.ndarray) -> np.ndarray:
        """Return outputs float32[N,K] of features [N,D]."""
        return features.astype(np.float32) @ self.weights.T + self.bias


@dataclass(frozen=True)
class MlpHead:
    """Two linear layers with a ReLU between them: features [N,D] -> [N,H] -> outputs [N,K]."""

    inner: LinearHead
    outer: LinearHead

    def outputs(self, features: np.ndarray) -> np.ndarray:
        """Return outputs float32[N,K] of features [N,D]."""
        return self.outer.outputs(np.maximum(self.inner.outputs(features), 0.0))


@dataclass(frozen=True)
class MapHead:
    """A linear head that reads each position of maps: features [N,D] -> outputs [N,K*G*G].

    ``linear`` reads the channels of all maps of ``shapes``, interpolated to G x G positions.
    ``hidden`` are the channels of a decoder added for fine-tuning; untrained, it adds 0.
    """

    linear: LinearHead
    shapes: tuple[MapShape, ...]
    grid: int
    hidden: int = 0

    @classmethod
    def blank(
        cls, n_names: int, shapes: Sequence[MapShape], grid: int, *, hidden: int = 0
    ) -> MapHead:
        """Return a head of zeros."""
        channels = sum(count for count, _ in shapes)
        weights, bias = np.zeros((n_names, channels), np.float32), np.zeros(n_names, np.float32)
        return cls(LinearHead(weights, bias), tuple(shapes), grid, hidden)

    def outputs(self, features: np.ndarray) -> np.ndarray:
        """Return outputs float32[N,K*G*G] of features [N,D]."""
        n_names = len(self.linear.bias)
        borders = np.cumsum([channels for channels, _ in self.shapes])[:-1]
        weights = np.split(self.linear.weights, borders, axis=1)
        outputs = np.empty((len(features), n_names, self.grid, self.grid), np.float32)
        for start in range(0, len(features), BLOCK_IMAGES):
            block = slice(start, start + BLOCK_IMAGES)
            outputs[block] = self.linear.bias[:, None, None]
            for maps, weight in zip(split_maps(features[block], self.shapes), weights, strict=True):
                side = maps.shape[-1]
                read = (weight @ maps.reshape(*maps.shape[:2], -1)).reshape(-1, n_names, side, side)
                matrix = interpolation(side, self.grid)
                outputs[block] += matrix @ read @ matrix.T
        return outputs.reshape(len(features), -1)

    def module(self) -> MapModule:
        """Return the head as a part of a network."""
        linear = self.linear
        return MapModule(linear.weights, linear.bias, self.shapes, self.grid, hidden=self.hidden)


Head = LinearHead | MlpHead | MapHead


def to_tune(head: Head) -> Head:
    """Return a head ready for fine-tuning: a head that reads maps gets a decoder."""
    return replace(head, hidden=DECODER_WIDTH) if isinstance(head, MapHead) else head


_SHARED: ContextVar[dict[tuple[int, str], tuple[np.ndarray, HeadProblem]] | None] = ContextVar(
    "shared head problems", default=None
)


@contextmanager
def share_problems() -> Iterator[None]:
    """Prepare each array of features once, however many heads are fitted to it in the block."""
    token = _SHARED.set({})
    try:
        yield
    finally:
        _SHARED.reset(token)


@dataclass(frozen=True)
class HeadProblem:
    """Standardised features along their axes, ready to fit heads for any loss."""

    axes: Axes
    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, device: torch.device = CPU) -> HeadProblem:
        """Prepare features [N,D]; ``device`` computes, and holds them twice in float32.

        Raises:
            TrainingError: the features are not finite.
        """
        if not np.isfinite(features).all():
            raise TrainingError(
                "the features contain values that are not finite",
                hint="the weights of the backbone may be damaged; choose others",
            )
        shared = _SHARED.get()
        key = (id(features), str(device))
        if shared is not None and key in shared:
            return shared[key][1]
        standardised, mean, scale = _standardise(features)
        problem = cls(Axes.of(torch.from_numpy(standardised).to(device)), mean, scale)
        if shared is not None:
            shared[key] = (features, problem)  # the array is kept, so that its id is not used again
        return problem

    def walk(
        self,
        loss: OutputLoss,
        row_weights: Tensor,
        strengths: Sequence[float],
        *,
        tolerance: float = TOLERANCE,
    ) -> Iterator[tuple[float, list[LinearHead]]]:
        """Yield each strength, the strongest first, with a head for each weighting [P,N]."""
        path = walk_path(self.axes, loss, row_weights, strengths=strengths, tolerance=tolerance)
        for strength, solution in path:
            yield strength, self.unstandardise(solution)

    def unstandardise(self, solution: Tensor) -> list[LinearHead]:
        """Return heads for the backbone's features, from a solution [P,R+1,K]."""
        heads = []
        both = (part.cpu() for part in self.axes.weights(solution.double()))
        for inner, offset in zip(*both, strict=True):
            weights = inner.numpy() / self.scale
            bias = offset.numpy() - weights @ self.mean
            heads.append(LinearHead(weights.astype(np.float32), bias.astype(np.float32)))
        return heads


def split_folds(
    strata: np.ndarray, folds: int, seed: int, groups: np.ndarray | None = None
) -> list[np.ndarray]:
    """Return the row numbers of each fold; each holds the same share of every stratum int[N].

    Rows of one of the ``groups`` int[N] are in one fold. There are fewer folds, at least two, if a
    stratum has fewer rows or groups than ``folds``.
    """
    single = strata
    if groups is not None and len(np.unique(groups)) == len(groups):
        groups = None
    if groups is not None:
        single = np.unique(np.stack([strata, groups]), axis=1)[0]
    _, sizes = np.unique(single, return_counts=True)
    folds = max(2, min(folds, int(sizes.min())))
    if groups is not None:
        return _split_groups(strata, folds, seed, groups)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return [test for _, test in splitter.split(strata, strata)]


def _split_groups(
    strata: np.ndarray, folds: int, seed: int, groups: np.ndarray
) -> list[np.ndarray]:
    """Give each group, the largest first, to the fold with the least of its strata."""
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    names, numbers = np.unique(strata, return_inverse=True)
    counts = np.zeros((len(sizes), len(names)))
    np.add.at(counts, (codes, numbers), 1)
    chance = np.random.default_rng(seed).permutation(len(sizes))
    filled = np.zeros((folds, counts.shape[1]))
    fold_of = np.empty(len(sizes), int)
    for group in np.lexsort((chance, -sizes)):
        in_strata = filled[:, counts[group] > 0].sum(axis=1)
        fold_of[group] = np.lexsort((filled.sum(axis=1), in_strata))[0]
        filled[fold_of[group]] += counts[group]
    return [np.flatnonzero(fold_of[codes] == fold) for fold in range(folds)]


def fold_weights(row_weights: Tensor, tests: Sequence[np.ndarray]) -> Tensor:
    """Return weights [folds,N]: those of the rows [N], and 0 for each fold's own rows."""
    weights = row_weights.repeat(len(tests), 1)
    for number, test in enumerate(tests):
        weights[number, torch.from_numpy(test).to(weights.device)] = 0.0
    return weights


def _standardise(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return float32[N,D] of mean 0 and deviation 1, and the float64[D] means and deviations.

    On few images deviations are drawn towards a common one, see `shrink_scale`. Rows are processed
    in blocks: whole float64 copies would take most of a trial's memory.
    """
    blocks = [slice(start, start + BLOCK_ROWS) for start in range(0, len(features), BLOCK_ROWS)]
    mean = features.mean(axis=0, dtype=np.float64)
    squares = np.sum([np.square(features[b] - mean).sum(axis=0) for b in blocks], axis=0)
    scale = shrink_scale(squares / len(features), len(features))
    standardised = np.empty(features.shape, np.float32)
    for block in blocks:
        standardised[block] = (features[block] - mean) / scale
    return standardised, mean, scale


def shrink_scale(variances: np.ndarray, n_images: int) -> np.ndarray:
    """Return the divisors of features, float64[D]: deviations drawn towards a common one.

    The mean of the variances float64[D] has the weight of `PRIOR_IMAGES` images, as the prior of an
    empirical Bayes estimate (James and Stein 1961; Schaefer and Strimmer 2005 for variances).
    """
    shrunk = (n_images * variances + PRIOR_IMAGES * variances.mean()) / (n_images + PRIOR_IMAGES)
    scale = np.sqrt(shrunk)
    scale[np.sqrt(variances) < MIN_SCALE] = 1.0
    return scale


def write_head(head: Head, path: Path) -> None:
    """Write a head as safetensors, which stores bytes in memory order, whatever the strides."""
    layers = {"": head} if isinstance(head, LinearHead) else {}
    more = {}
    if isinstance(head, MlpHead):
        layers = {"inner.": head.inner, "outer.": head.outer}
    elif isinstance(head, MapHead):
        layers = {"": head.linear}
        more = {"shapes": np.array(head.shapes), "grid": np.array([head.grid, head.hidden])}
    tensors = {
        f"{name}weights": np.ascontiguousarray(layer.weights) for name, layer in layers.items()
    }
    biases = {f"{name}bias": layer.bias for name, layer in layers.items()}
    with write_atomic(path) as temporary:
        save_file(tensors | biases | more, temporary)


def read_head(path: Path) -> Head:
    """Read a head that `write_head` wrote."""
    tensors = load_file(path)
    if "weights" in tensors:
        linear = LinearHead(tensors["weights"], tensors["bias"])
        if "shapes" not in tensors:
            return linear
        shapes = tuple((int(channels), int(side)) for channels, side in tensors["shapes"])
        grid, hidden = map(int, tensors["grid"])
        return MapHead(linear, shapes, grid, hidden)
    inner, outer = (
        LinearHead(tensors[f"{name}.weights"], tensors[f"{name}.bias"])
        for name in ("inner", "outer")
    )
    return MlpHead(inner, outer)
