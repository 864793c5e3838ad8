"""Measures of a classifier and of its probabilities: arrays in, numbers out.

Everywhere ``probabilities`` and ``logits`` are float[N,K], ``labels`` and ``predicted`` int[N] in
0..K-1. Averages over classes ignore classes without images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

ECE_BINS = 15
_LOWEST = 1e-12


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits, row by row, without overflow."""
    exponential = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponential / exponential.sum(axis=-1, keepdims=True)


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of right predictions."""
    return float(np.mean(predicted == labels))


def confusion_matrix(predicted: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Return counts int64[K,K]: rows are actual classes, columns predicted ones."""
    counts = np.bincount(labels * n_classes + predicted, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes)


@dataclass(frozen=True)
class PerClass:
    """Measures float64[K] of each class; ``support`` int64[K] counts its images."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray


def per_class(confusion: np.ndarray) -> PerClass:
    """Return precision, recall, F1 and support of a matrix int64[K,K]; 0/0 counts as 0."""
    hits = np.diag(confusion).astype(float)
    support, named = confusion.sum(axis=1), confusion.sum(axis=0)
    precision = np.divide(hits, named, out=np.zeros_like(hits), where=named > 0)
    recall = np.divide(hits, support, out=np.zeros_like(hits), where=support > 0)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(hits), where=total > 0)
    return PerClass(precision, recall, f1, support)


def balanced_accuracy(predicted: np.ndarray, labels: np.ndarray, n_classes: int) -> float:
    """Return the mean recall over the classes that have images."""
    scores = per_class(confusion_matrix(predicted, labels, n_classes))
    return float(scores.recall[scores.support > 0].mean())


def macro_f1(predicted: np.ndarray, labels: np.ndarray, n_classes: int) -> float:
    """Return the mean F1 over the classes that have images."""
    scores = per_class(confusion_matrix(predicted, labels, n_classes))
    return float(scores.f1[scores.support > 0].mean())


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean negative log-likelihood in nats; probabilities are kept above 1e-12."""
    return float(log_losses(probabilities, labels).mean())


def log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return each image's negative log-likelihood in nats, [N]; see `log_loss`."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return -np.log(np.maximum(chosen, _LOWEST))


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean squared distance of probabilities from the one-hot truth, in [0, 2]."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(np.square(probabilities - truth).sum(axis=1).mean())


def ece(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = ECE_BINS) -> float:
    """Return the calibration error of the top label over equal-width bins (Guo et al. 2017)."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = [
        abs(confidence[places == place].sum() - right[places == place].sum())
        for place in range(bins)
    ]
    return float(np.sum(gaps) / len(labels))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature in [0.05, 20] with the lowest log-loss (Guo et al. 2017).

    The doubt of one image is added, spread over all classes, as Platt (1999) smooths his targets:
    if every image is right, the log-loss would otherwise ask for certainty.
    """
    # Imported here: a service needs the rest of this module, but not this slow import.
    from scipy.optimize import minimize_scalar

    doubt = 1.0 / (len(labels) + 2.0)

    def loss(log_temperature: float) -> float:
        probabilities = np.maximum(softmax(logits / math.exp(log_temperature)), _LOWEST)
        unsure = -float(np.log(probabilities).mean())
        return (1.0 - doubt) * log_loss(probabilities, labels) + doubt * unsure

    found = minimize_scalar(loss, bounds=(math.log(0.05), math.log(20.0)), method="bounded")
    return float(math.exp(found.x))
