"""Shortcuts: facts of the files, not of what they show, that give the class away.

A collected set often has one source per class, and a network learns the source: the size, the
format, the colour of the border. Such a model is excellent on its test split and useless elsewhere
(Geirhos et al. 2020, "Shortcut learning in deep neural networks", arXiv:2004.07780).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from rootstock.data.manifest import ImageRow
from rootstock.metrics import standard_error
from rootstock.review.record import Shortcut

MIN_GAIN_SHARE = 0.20
"""Share of the way from chance to certainty that makes a shortcut worth reporting."""
BORDER_SHARE = 0.04
FOLDS = 5


def collect_facts(rows: Sequence[ImageRow]) -> dict[str, np.ndarray]:
    """Return numbers float64[N,d] of what the index knows of each file, by fact."""
    return {
        "size": np.array([(row.width, row.height) for row in rows], float),
        "aspect ratio": np.array([[row.width / row.height] for row in rows]),
        "colour mode": _numbered([row.mode for row in rows]),
        "file format": _numbered([row.format for row in rows]),
        "bytes per pixel": np.array([[row.bytes / (row.width * row.height)] for row in rows]),
    }


def border_facts(pixels: np.ndarray) -> np.ndarray:
    """Return each channel's mean and spread float64[6] along the border of uint8[H,W,3]."""
    depth = max(1, round(BORDER_SHARE * min(pixels.shape[:2])))
    parts = (pixels[:depth], pixels[-depth:], pixels[:, :depth], pixels[:, -depth:])
    border = np.concatenate([part.reshape(-1, 3) for part in parts]).astype(np.float64)
    return np.concatenate([border.mean(axis=0), border.std(axis=0)])


def find_shortcuts(
    facts: Mapping[str, np.ndarray], rows: Sequence[ImageRow], *, seed: int
) -> list[Shortcut]:
    """Return the facts from which a small tree predicts the class far above chance, best first."""
    names = np.array([row.stratum for row in rows])
    counts = Counter(names.tolist())
    frequent = np.array([counts[name] >= FOLDS for name in names])
    classes, labels = np.unique(names[frequent], return_inverse=True)
    if len(classes) < 2:
        return []
    shortcuts = []
    for fact, values in facts.items():
        accuracy = _tree_accuracy(values[frequent], labels, seed)
        chance = 1.0 / len(classes)
        noise = standard_error(accuracy, len(labels))
        if accuracy > chance + max(MIN_GAIN_SHARE * (1 - chance), 2 * noise):
            example = _example(
                fact, [row for row, keep in zip(rows, frequent, strict=True) if keep]
            )
            shortcuts.append(
                Shortcut(
                    fact=fact,
                    accuracy=round(accuracy, 4),
                    chance=round(chance, 4),
                    example=example,
                )
            )
    return sorted(shortcuts, key=lambda shortcut: -shortcut.accuracy)


def _tree_accuracy(values: np.ndarray, labels: np.ndarray, seed: int) -> float:
    leaf = max(3, len(labels) // 100)
    tree = DecisionTreeClassifier(
        max_depth=4, min_samples_leaf=leaf, class_weight="balanced", random_state=seed
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    predicted = cross_val_predict(tree, values, labels, cv=folds)
    return float(balanced_accuracy_score(labels, predicted))


def _example(fact: str, rows: Sequence[ImageRow]) -> str:
    describe = {
        "size": lambda row: f"{row.width} x {row.height}",
        "colour mode": lambda row: row.mode,
        "file format": lambda row: row.format,
    }.get(fact)
    if describe is None:
        return ""
    by_class = Counter((row.stratum, describe(row)) for row in rows)
    totals = Counter(row.stratum for row in rows)
    overall = Counter(describe(row) for row in rows)
    (label, value), count = max(
        by_class.items(),
        key=lambda item: item[1] / totals[item[0][0]] - overall[item[0][1]] / len(rows),
    )
    return (
        f"{count / totals[label]:.0%} of `{label}` have {value}, of all images "
        f"{overall[value] / len(rows):.0%}"
    )


def _numbered(values: Sequence[str]) -> np.ndarray:
    names = sorted(set(values))
    return np.array([[float(name == value) for name in names] for value in values])
