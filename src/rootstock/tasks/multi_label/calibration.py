"""Turn outputs into probabilities and decisions, for each label separately."""

from __future__ import annotations

import math

import numpy as np

from rootstock.errors import ConfigError
from rootstock.tasks.multi_label.measures import sigmoid

DEFAULT_THRESHOLD = "f1"
MIN_SLOPE, MAX_SLOPE = 0.05, 20.0
MIN_IMAGES = 10
"""If fewer images have a label, or lack it, its outputs are not changed."""
PRIOR_IMAGES = 2.0
"""Weight, in images, of the unchanged outputs in a fit to few images."""


def fit_slopes(outputs: np.ndarray, present: np.ndarray) -> tuple[list[float], list[float]]:
    """Return slope and offset of each label for the probability sigmoid(slope output + offset).

    Platt scaling (1999) by outputs float[N,K] and labels [N,K], with a pull towards slope 1 and
    offset 0 that matters for few images; with hardly any images of one kind these are the values.
    """
    # Imported here: a service needs the rest of this module, but not this slow import.
    from scipy.optimize import minimize

    slopes, offsets = [], []
    for scores, truth in zip(outputs.T.astype(np.float64), present.T > 0, strict=True):
        if _is_scarce(truth):
            slopes.append(1.0)
            offsets.append(0.0)
            continue

        def loss(
            point: np.ndarray, scores: np.ndarray = scores, truth: np.ndarray = truth
        ) -> tuple[float, np.ndarray]:
            slope = math.exp(point[0])
            logits = slope * scores + point[1]
            losses = np.logaddexp(0, logits) - truth * logits
            residual = sigmoid(logits) - truth
            value = losses.sum() + 0.5 * PRIOR_IMAGES * float(point @ point)
            slopes_at = np.array([slope * (residual @ scores), residual.sum()])
            return value, slopes_at + PRIOR_IMAGES * point

        bounds = [(math.log(MIN_SLOPE), math.log(MAX_SLOPE)), (-50.0, 50.0)]
        found = minimize(loss, np.zeros(2), jac=True, bounds=bounds, method="L-BFGS-B")
        slopes.append(float(math.exp(found.x[0])))
        offsets.append(float(found.x[1]))
    return slopes, offsets


def check_threshold(wish: str) -> None:
    """Refuse an invalid `task.threshold`.

    Raises:
        ConfigError: names the allowed values.
    """
    try:
        _read_wish(wish)
    except ValueError:
        raise ConfigError(
            f"task.threshold is {wish!r}",
            hint="allowed values: f1, precision=0.95, recall=0.9 (each above 0, at most 1), or a "
            "probability between 0 and 1",
        ) from None


def choose_thresholds(probabilities: np.ndarray, present: np.ndarray, wish: str) -> list[float]:
    """Return the probability of each label from which it applies.

    ``wish`` is `f1`: the best expected F1 on these images [N,K]; `precision=P`: the lowest
    threshold with that precision, above 1 if there is none; `recall=R`: the highest with that
    recall; or the threshold of all labels. A label that hardly any image has, or nearly every
    image, gets .5.
    """
    kind, level = _read_wish(wish)
    if kind == "fixed":
        return [level] * present.shape[1]
    return [
        _choose(scores.astype(np.float64), truth, kind, level)
        for scores, truth in zip(probabilities.T, present.T > 0, strict=True)
    ]


def _read_wish(wish: str) -> tuple[str, float]:
    kind, sign, level = str(wish).partition("=")
    if kind == "f1" and not sign:
        return "f1", 0.0
    if kind in ("precision", "recall") and sign and 0 < float(level) <= 1:
        return kind, float(level)
    if not sign and 0 < float(kind) < 1:
        return "fixed", float(kind)
    raise ValueError(wish)


def _is_scarce(truth: np.ndarray) -> bool:
    return bool(min(truth.sum(), (~truth).sum()) < MIN_IMAGES)


def _choose(scores: np.ndarray, truth: np.ndarray, kind: str, level: float) -> float:
    if _is_scarce(truth):
        return 0.5
    if kind == "f1":
        # Counting half by the labels and half by their probabilities is more stable on few images.
        truth = (truth + scores) / 2
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(truth[order])
    ends = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
    ranked, hits, named = ranked[ends], hits[ends], ends + 1
    # Halfway to the next lower score, so that images like the last one are included.
    lower = np.append(ranked[1:], 0.0)
    thresholds = (ranked + lower) / 2
    precision, recall = hits / named, hits / truth.sum()
    if kind == "precision":
        enough = np.flatnonzero(precision >= level)
        return float(thresholds[enough[-1]]) if len(enough) else 1.01
    if kind == "recall":
        return float(thresholds[np.flatnonzero(recall >= level - 1e-12)[0]])
    f1 = 2 * hits / (named + truth.sum())
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(thresholds[best[np.argmin(np.abs(thresholds[best] - 0.5))]])
