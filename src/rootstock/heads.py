"""The head as a linear probe: arrays in, a linear classifier out.

Multinomial logistic regression on standardised features; the standardisation is folded into the
weights, so that the head is one matrix and one bias wherever it goes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from rootstock.data.files import write_atomic
from rootstock.errors import TrainingError
from rootstock.metrics import softmax

MAX_ITERATIONS = 1000
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


def fit_linear_head(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    l2: float,
    n_classes: int,
    class_weight: str | None = None,
) -> LinearHead:
    """Fit a head on features [N,D] and class numbers int[N].

    ``l2`` weighs half the squared norm of the weights against the *mean* loss, so that one
    value means the same for any number of images. ``class_weight="balanced"`` weighs classes
    inversely to their size.
    Raises:
        TrainingError: fewer than two classes, or features that are not finite.
    """
    present = np.unique(labels)
    if len(present) < 2:
        raise TrainingError(
            f"a head needs images of two classes or more, got {len(present)}",
            hint="check the classes of the training split with `rootstock check`",
        )
    features = features.astype(np.float64)
    if not np.isfinite(features).all():
        raise TrainingError(
            "the features hold values that are not finite",
            hint="the weights of the backbone may be damaged; choose others",
        )
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale < 1e-8] = 1.0
    model = LogisticRegression(
        C=1.0 / (l2 * len(labels)), max_iter=MAX_ITERATIONS, class_weight=class_weight
    )
    model.fit((features - mean) / scale, labels)
    coefficients, intercept = model.coef_, model.intercept_
    if len(present) == 2:
        # Two classes are one row in scikit-learn; as two rows of half size the softmax is equal.
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    weights = np.zeros((n_classes, features.shape[1]), np.float32)
    bias = np.full(n_classes, _UNSEEN, np.float32)
    weights[present] = coefficients / scale
    bias[present] = intercept - (coefficients / scale) @ mean
    return LinearHead(weights, bias)


def cross_validate(
    features: np.ndarray, labels: np.ndarray, *, folds: int, l2: float, seed: int
) -> tuple[float, float]:
    """Mean and standard deviation over folds of the accuracy of a head on unseen images.

    Folds are stratified; there are fewer where a class has fewer images than folds.
    """
    folds = max(2, min(folds, min(Counter(labels.tolist()).values())))
    scores = []
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for train, test in splitter.split(features, labels):
        head = fit_linear_head(
            features[train], labels[train], l2=l2, n_classes=int(labels.max()) + 1
        )
        scores.append(np.mean(head.logits(features[test]).argmax(axis=1) == labels[test]))
    return float(np.mean(scores)), float(np.std(scores))


def write_head(head: LinearHead, path: Path) -> None:
    """Write as safetensors."""
    with write_atomic(path) as temporary:
        save_file({"weights": head.weights, "bias": head.bias}, temporary)


def read_head(path: Path) -> LinearHead:
    """Read what `write_head` wrote."""
    tensors = load_file(path)
    return LinearHead(tensors["weights"], tensors["bias"])
