"""The head as a linear probe: arrays in, a linear classifier out.

Multinomial logistic regression on standardised features; the standardisation is folded into the
weights, so that the head is one matrix and one bias wherever it goes. `solver` does the work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from rootstock.errors import TrainingError
from rootstock.heads.solver import TOLERANCE, Axes, walk_path
from rootstock.metrics import accuracy, log_losses, softmax
from rootstock.system.files import write_atomic

CPU = torch.device("cpu")
ROUGH = 1e-4
"""Tolerance within a cross-validation: accuracies within a tenth of a point, in half the time."""
_BLOCK = 1024
"""Rows that are standardised at a time."""
_UNSEEN = -1e4
"""Bias of a class without training images: it is never predicted."""


@dataclass(frozen=True)
class LinearHead:
    """``weights`` float32[K,D] and ``bias`` float32[K] for features as the backbone gives them."""

    weights: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """float32[N,K] of features [N,D]."""
        return features.astype(np.float32) @ self.weights.T + self.bias

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """float32[N,K] of features [N,D]."""
        return softmax(self.logits(features))


@dataclass(frozen=True)
class MlpHead:
    """Two linear layers with a ReLU between: features [N,D] -> [N,H] -> logits [N,K]."""

    inner: LinearHead
    outer: LinearHead

    def logits(self, features: np.ndarray) -> np.ndarray:
        """float32[N,K] of features [N,D]."""
        return self.outer.logits(np.maximum(self.inner.logits(features), 0.0))


Head = LinearHead | MlpHead


def adjust_logits(head: Head, labels: np.ndarray, *, n_classes: int) -> Head:
    """The head as it would be if all classes were equally frequent; ``labels`` int[N] trained it.

    By Bayes' rule a classifier's logits hold the log of each class' share of the training images;
    without it no class is favoured for being frequent. Weighing a handful of images hundredfold
    has the same aim and overfits them. Menon et al. 2021, arXiv:2007.07314.
    """
    if isinstance(head, MlpHead):
        outer = adjust_logits(head.outer, labels, n_classes=n_classes)
        assert isinstance(outer, LinearHead)
        return MlpHead(head.inner, outer)
    shares = log_shares(labels, n_classes=n_classes)
    return LinearHead(head.weights, (head.bias - shares).astype(np.float32))


def log_shares(labels: np.ndarray, *, n_classes: int) -> np.ndarray:
    """float32[K]: the log of each class' share of int[N], about its mean; 0 where it has none."""
    counts = np.bincount(labels, minlength=n_classes)
    logs = np.log(np.maximum(counts, 1))
    return np.where(counts > 0, logs - logs[counts > 0].mean(), 0.0).astype(np.float32)


@dataclass(frozen=True)
class PathScores:
    """Each strength on unseen images: accuracy over folds float64[S], log-losses float64[S,N].

    ``strengths`` from the strongest on.
    """

    strengths: tuple[float, ...]
    accuracy: np.ndarray
    std: np.ndarray
    losses: np.ndarray


def fit_linear_head(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    l2: float,
    n_classes: int,
    class_weight: str | None = None,
) -> LinearHead:
    """Fit a head on features [N,D] and class numbers int[N] at one strength.

    See `fit_head_path`.
    """
    return fit_head_path(
        features, labels, strengths=[l2], n_classes=n_classes, class_weight=class_weight
    )[0]


def fit_head_path(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    strengths: Sequence[float],
    n_classes: int,
    class_weight: str | None = None,
) -> list[LinearHead]:
    """Fit one head for each L2 strength on features [N,D] and class numbers int[N].

    See `walk_heads`.
    """
    heads = dict(
        walk_heads(
            features, labels, strengths=strengths, n_classes=n_classes, class_weight=class_weight
        )
    )
    return [heads[strength] for strength in strengths]


def walk_heads(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    strengths: Sequence[float],
    n_classes: int,
    class_weight: str | None = None,
    device: torch.device = CPU,
) -> Iterator[tuple[float, LinearHead]]:
    """Each L2 strength with its head on features [N,D] and class numbers int[N], strongest first.

    A strength weighs half the squared norm of the weights against the *mean* loss, so that one
    value means the same for any number of images. ``class_weight="balanced"`` weighs classes
    inversely to their size. ``device`` holds the features, in float32 and twice, and computes.
    Raises:
        TrainingError: fewer than two classes, or features that are not finite.
    """
    prepared = _prepare(features, labels, device)
    weights = _row_weights(prepared.labels, class_weight).unsqueeze(0)
    for strength, solution in prepared.walk(weights, strengths):
        yield strength, prepared.fold(solution, n_classes)[0]


def cross_validate_path(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    folds: int,
    strengths: Sequence[float],
    seed: int,
    class_weight: str | None = None,
    enough: Callable[[np.ndarray], bool] | None = None,
    device: torch.device = CPU,
) -> PathScores:
    """Accuracy of every strength on images that the head did not see, all folds side by side.

    Folds are stratified; there are fewer where a class has fewer images than folds. Features are
    standardised once, over all folds. The strongest is tried first; ``enough`` is asked about the
    losses [S,N] so far, and where it says so the weaker ones are left out. ``device`` as for
    `walk_heads`.
    Raises:
        TrainingError: fewer than two classes, or features that are not finite.
    """
    fits = _solve_folds(features, labels, folds, strengths, seed, class_weight, device)
    n_classes = int(labels.max()) + 1
    tried: list[float] = []
    scores: list[list[float]] = []
    losses: list[np.ndarray] = []
    for strength, solution in fits.walk:
        found = np.empty(len(labels))
        right = []
        heads = fits.prepared.fold(solution, n_classes)
        for head, test in zip(heads, fits.tests, strict=True):
            logits = head.logits(features[test])
            right.append(accuracy(logits.argmax(axis=1), labels[test]))
            found[test] = log_losses(softmax(logits), labels[test])
        tried.append(strength)
        scores.append(right)
        losses.append(found)
        if enough and enough(np.stack(losses)):
            break
    return PathScores(
        tuple(tried), np.mean(scores, axis=1), np.std(scores, axis=1), np.stack(losses)
    )


def cross_validate(
    features: np.ndarray, labels: np.ndarray, *, folds: int, l2: float, seed: int
) -> tuple[float, float]:
    """Mean and standard deviation over folds of the accuracy of a head on unseen images."""
    scores = cross_validate_path(features, labels, folds=folds, strengths=[l2], seed=seed)
    return float(scores.accuracy[0]), float(scores.std[0])


def out_of_fold_probabilities(
    features: np.ndarray, labels: np.ndarray, *, folds: int, l2: float, seed: int
) -> np.ndarray:
    """Probabilities float32[N,K] of each image by the head that was fitted without its fold."""
    fits = _solve_folds(features, labels, folds, [l2], seed, None)
    found = np.empty((len(labels), int(labels.max()) + 1), np.float32)
    ((_, solution),) = fits.walk
    heads = fits.prepared.fold(solution, found.shape[1])
    for head, test in zip(heads, fits.tests, strict=True):
        found[test] = head.probabilities(features[test])
    return found


@dataclass(frozen=True)
class _FoldFits:
    prepared: _Prepared
    tests: list[np.ndarray]
    walk: Iterator[tuple[float, Tensor]]


def _solve_folds(
    features: np.ndarray,
    labels: np.ndarray,
    folds: int,
    strengths: Sequence[float],
    seed: int,
    class_weight: str | None,
    device: torch.device = CPU,
) -> _FoldFits:
    prepared = _prepare(features, labels, device)
    folds = max(2, min(folds, min(Counter(labels.tolist()).values())))
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    tests = [test for _, test in splitter.split(labels, labels)]
    weights = _row_weights(prepared.labels, class_weight).repeat(folds, 1)
    for number, test in enumerate(tests):
        weights[number, torch.from_numpy(test).to(device)] = 0.0
    walk = prepared.walk(weights, strengths, tolerance=ROUGH)
    return _FoldFits(prepared, tests, walk)


@dataclass(frozen=True)
class _Prepared:
    """Standardised features in their axes, labels among the ``present`` classes."""

    axes: Axes
    labels: Tensor
    present: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    @property
    def scaling(self) -> float:
        """Two classes as one vector of weights, which is the usual way, are penalised once."""
        return 2.0 if len(self.present) == 2 else 1.0

    def walk(
        self, weights: Tensor, strengths: Sequence[float], *, tolerance: float = TOLERANCE
    ) -> Iterator[tuple[float, Tensor]]:
        """Each strength and its solutions for the ``weights`` [P,N] of the rows."""
        given = {strength * self.scaling: strength for strength in strengths}
        path = walk_path(
            self.axes,
            self.labels,
            weights,
            strengths=list(given),
            n_classes=len(self.present),
            tolerance=tolerance,
        )
        for scaled, solution in path:
            yield given[scaled], solution

    def fold(self, solution: Tensor, n_classes: int) -> list[LinearHead]:
        """Heads for features as the backbone gives them: the standardisation folded in."""
        heads = []
        both = (part.cpu() for part in self.axes.weights(solution.double()))
        for inner, offset in zip(*both, strict=True):
            weights = np.zeros((n_classes, len(self.mean)), np.float32)
            bias = np.full(n_classes, _UNSEEN, np.float32)
            scaled = inner.numpy() / self.scale
            weights[self.present] = scaled
            bias[self.present] = offset.numpy() - scaled @ self.mean
            heads.append(LinearHead(weights, bias))
        return heads


def _prepare(features: np.ndarray, labels: np.ndarray, device: torch.device) -> _Prepared:
    present, numbers = np.unique(labels, return_inverse=True)
    if len(present) < 2:
        raise TrainingError(
            f"a head needs images of two classes or more, got {len(present)}",
            hint="check the classes of the training split with `rootstock check`",
        )
    if not np.isfinite(features).all():
        raise TrainingError(
            "the features hold values that are not finite",
            hint="the weights of the backbone may be damaged; choose others",
        )
    standardised, mean, scale = _standardise(features)
    axes = Axes.of(torch.from_numpy(standardised).to(device))
    return _Prepared(axes, torch.from_numpy(numbers).to(device), present, mean, scale)


def _standardise(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float32[N,D] of mean 0 and deviation 1, and the float64[D] means and deviations.

    A block of rows at a time: whole float64 copies would be most of a trial's memory.
    """
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(features), _BLOCK)]
    mean = features.mean(axis=0, dtype=np.float64)
    scale = np.sqrt(sum(np.square(features[b] - mean).sum(axis=0) for b in blocks) / len(features))
    scale[scale < 1e-8] = 1.0
    standardised = np.empty(features.shape, np.float32)
    for block in blocks:
        standardised[block] = (features[block] - mean) / scale
    return standardised, mean, scale


def _row_weights(labels: Tensor, class_weight: str | None) -> Tensor:
    if class_weight is None:
        return torch.ones(len(labels), device=labels.device)
    counts = torch.bincount(labels)
    return (len(labels) / (len(counts) * counts))[labels]


def write_head(head: Head, path: Path) -> None:
    """Write as safetensors."""
    layers = {"": head} if isinstance(head, LinearHead) else {"inner.": head.inner}
    if isinstance(head, MlpHead):
        layers["outer."] = head.outer
    tensors = {f"{name}weights": layer.weights for name, layer in layers.items()}
    with write_atomic(path) as temporary:
        save_file(tensors | {f"{n}bias": layer.bias for n, layer in layers.items()}, temporary)


def read_head(path: Path) -> Head:
    """Read what `write_head` wrote."""
    tensors = load_file(path)
    if "weights" in tensors:
        return LinearHead(tensors["weights"], tensors["bias"])
    inner, outer = (
        LinearHead(tensors[f"{name}.weights"], tensors[f"{name}.bias"])
        for name in ("inner", "outer")
    )
    return MlpHead(inner, outer)
