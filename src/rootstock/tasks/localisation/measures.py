"""Measures of a localiser: arrays in, numbers out."""

from __future__ import annotations

import numpy as np

from rootstock.metrics import wilson_interval
from rootstock.tasks.localisation.boxes import generalised_overlap, overlap, tidy
from rootstock.tasks.single_label import measures as classes

HIT_OVERLAP = 0.5
"""A box is right from this intersection over union, as in ILSVRC (Russakovsky et al. 2015)."""
DISTANCE_WEIGHT, OVERLAP_WEIGHT = 5.0, 2.0
"""Weights of L1 and GIoU against the log-loss of the class (Carion et al. 2020, DETR)."""


def losses(outputs: np.ndarray, values: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return each image's loss float64[N]: log-loss of the class, L1 and GIoU of the box."""
    logits, boxes = outputs[:, :-4] / temperature, outputs[:, -4:]
    of_class = classes.log_losses(classes.softmax(logits), values[:, 0].astype(np.int64))
    distance = np.abs(boxes - values[:, 1:]).sum(axis=1)
    missed = 1.0 - generalised_overlap(tidy(boxes), values[:, 1:])
    return of_class + DISTANCE_WEIGHT * distance + OVERLAP_WEIGHT * missed


def hits(decisions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return bool[N]: the class is right and the box is."""
    right = decisions[:, :-4].argmax(axis=1) == values[:, 0]
    return right & (overlap(decisions[:, -4:], values[:, 1:]) >= HIT_OVERLAP)


def measure(decisions: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Return the test metrics of probabilities and boxes [N,K+4] for values [N,5]."""
    probabilities, labels = decisions[:, :-4], values[:, 0].astype(np.int64)
    overlaps = overlap(decisions[:, -4:], values[:, 1:])
    right = hits(decisions, values)
    low, high = wilson_interval(int(right.sum()), len(right))
    return {
        "localisation_accuracy": float(right.mean()),
        "localisation_accuracy_low": low,
        "localisation_accuracy_high": high,
        "accuracy": classes.accuracy(probabilities.argmax(axis=1), labels),
        "mean_iou": float(overlaps.mean()),
        "median_iou": float(np.median(overlaps)),
        "log_loss": classes.log_loss(probabilities, labels),
        "ece": classes.ece(probabilities, labels),
    }
