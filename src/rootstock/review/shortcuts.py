"""Shortcuts: facts about the files, not about their content, that predict the class.

A collected data set often has one source per class, and a network learns the source: the size, the
format, or the colour of the border. Such a model is excellent on its test split and useless
elsewhere (Geirhos et al. 2020, "Shortcut learning in deep neural networks", arXiv:2004.07780).

A fact counts only if the picture does not show the same: on photos of the weather, the border is
sky, and so is much of the rest.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from sklearn.metrics import balanced_accuracy_score
from sklearn.tree import DecisionTreeClassifier

from rootstock.data.manifest import ImageRow
from rootstock.heads.linear import split_folds
from rootstock.metrics import standard_error
from rootstock.review.record import Shortcut

MIN_GAIN_SHARE = 0.20
"""Share of the way from chance to certainty above which a shortcut is reported."""
MIN_ONE_CLASS_ACCURACY = 0.85
"""Balanced accuracy for one class versus all others; chance is .5."""
MAX_EXPLAINED_SHARE = 0.5
"""Share of a fact's gain over chance that the picture may explain."""
MAX_ERROR_SHARE = 0.25
"""A fact with less than this share of the picture's errors predicts better than the picture."""
BORDER_SHARE = 0.04
INSIDE_SHARE = 0.12
"""Depth in pixels of the border, and of the ring inside that it is compared with."""
SAMPLED_SIDE_PIXELS = 256
CROP_PIXELS = 384
"""Side of the centre that is encoded again, to see how many bytes the picture needs."""
QUALITY = 75
FOLDS = 5


class Fact(NamedTuple):
    """Numbers float64[N,d] of a fact, and the picture's numbers of the same kind."""

    values: np.ndarray
    picture: np.ndarray | None = None


def collect_facts(rows: Sequence[ImageRow]) -> dict[str, Fact]:
    """Return what the index knows about each file, by fact."""
    return {
        "size": Fact(np.array([(row.width, row.height) for row in rows], float)),
        "aspect ratio": Fact(np.array([[row.width / row.height] for row in rows])),
        "colour mode": Fact(_numbered([row.mode for row in rows])),
        "file format": Fact(_numbered([row.format for row in rows])),
    }


def collect_picture_facts(rows: Sequence[ImageRow], measured: np.ndarray) -> dict[str, Fact]:
    """Return facts that need the pixels; ``measured`` [N,20] holds `measure_picture` of rows."""
    density = np.array([[row.bytes / (row.width * row.height)] for row in rows])
    sizes = np.array([(row.width, row.height) for row in rows], float)
    return {
        "colour of the border": Fact(measured[:, :6], measured[:, 6:18]),
        # Small files have more header than picture, so the size partly explains them.
        "bytes per pixel": Fact(density, np.hstack([measured[:, 18:], sizes])),
    }


def measure_picture(pixels: np.ndarray) -> np.ndarray:
    """Return float64[20] of uint8[H,W,3]: its border, the inside, and its bytes.

    The values are `border_facts` of the border, of the ring inside it, and of the centre; the bytes
    per pixel of the centre encoded as JPEG; and the mean gradient.
    """
    step = max(1, min(pixels.shape[:2]) // SAMPLED_SIDE_PIXELS)
    small = pixels[::step, ::step]
    inner = _cut(small, BORDER_SHARE)
    ring, middle = border_facts(inner, INSIDE_SHARE - BORDER_SHARE), _cut(inner, INSIDE_SHARE)
    flat = middle.reshape(-1, 3).astype(np.float64)
    height, width = pixels.shape[:2]
    top, left = max(0, (height - CROP_PIXELS) // 2), max(0, (width - CROP_PIXELS) // 2)
    crop = np.ascontiguousarray(pixels[top : top + CROP_PIXELS, left : left + CROP_PIXELS])
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "JPEG", quality=QUALITY)
    density = buffer.tell() / (crop.shape[0] * crop.shape[1])
    gradient = np.abs(np.diff(crop.astype(np.int16), axis=1)).mean() if crop.shape[1] > 1 else 0.0
    return np.concatenate(
        [border_facts(pixels), ring, flat.mean(axis=0), flat.std(axis=0), [density, gradient]]
    )


def border_facts(pixels: np.ndarray, share: float = BORDER_SHARE) -> np.ndarray:
    """Return each channel's mean and spread float64[6] along the border of uint8[H,W,3]."""
    depth = max(1, round(share * min(pixels.shape[:2])))
    parts = (pixels[:depth], pixels[-depth:], pixels[:, :depth], pixels[:, -depth:])
    border = np.concatenate([part.reshape(-1, 3) for part in parts]).astype(np.float64)
    return np.concatenate([border.mean(axis=0), border.std(axis=0)])


def _cut(pixels: np.ndarray, share: float) -> np.ndarray:
    """Return the pixels without a border, or all of them if nothing would be left."""
    depth = max(1, round(share * min(pixels.shape[:2]))) + 1
    inner = pixels[depth:-depth, depth:-depth]
    return inner if inner.size else pixels


def find_shortcuts(
    facts: Mapping[str, Fact],
    rows: Sequence[ImageRow],
    *,
    seed: int,
    groups: Sequence[object] | None = None,
) -> list[Shortcut]:
    """Return facts from which a small tree predicts the class far above chance, best first.

    A fact separates all classes, or one class from all others. Images of one of the ``groups`` do
    not predict each other.
    """
    names = np.array([row.stratum for row in rows])
    counts = Counter(names.tolist())
    kept = [i for i, name in enumerate(names.tolist()) if counts[name] >= FOLDS]
    classes, labels = np.unique(names[kept], return_inverse=True)
    if len(classes) < 2:
        return []
    group_of = None
    if groups is not None and len(set(groups)) < len(groups):
        _, group_of = np.unique([str(groups[i]) for i in kept], return_inverse=True)
    chosen = [rows[i] for i in kept]
    shortcuts = []
    for name, fact in facts.items():
        judge = _Judge(
            fact.values[kept], None if fact.picture is None else fact.picture[kept], group_of, seed
        )
        accuracy = judge.accuracy(labels)
        chance = 1.0 / len(classes)
        noise = standard_error(accuracy, judge.count(labels >= 0))
        least = chance + max(MIN_GAIN_SHARE * (1 - chance), 2 * noise)
        if accuracy > least and not judge.is_explained(labels, accuracy, chance):
            example = _describe_example(name, chosen)
            shortcuts.append(_shortcut(name, accuracy, chance, example))
        elif len(classes) > 2:
            shortcuts += _tell_one_class(name, judge, classes, labels, chosen)
    return sorted(shortcuts, key=lambda shortcut: -shortcut.accuracy)


def _tell_one_class(
    fact: str,
    judge: _Judge,
    classes: np.ndarray,
    labels: np.ndarray,
    rows: Sequence[ImageRow],
) -> list[Shortcut]:
    shortcuts = []
    for number, label in enumerate(classes.tolist()):
        ours = (labels == number).astype(int)
        if judge.fit(ours) < MIN_ONE_CLASS_ACCURACY:
            continue
        accuracy = judge.accuracy(ours)
        noise = standard_error(accuracy, judge.count(ours > 0))
        if accuracy < max(MIN_ONE_CLASS_ACCURACY, 0.5 + 3 * noise):
            continue
        if not judge.is_explained(ours, accuracy, 0.5):
            example = _describe_example(fact, rows, label)
            shortcuts.append(_shortcut(fact, accuracy, 0.5, example, label))
    return shortcuts


def _shortcut(fact: str, accuracy: float, chance: float, example: str, label: str = "") -> Shortcut:
    return Shortcut(
        fact=fact,
        accuracy=round(accuracy, 4),
        chance=round(chance, 4),
        example=example,
        label=label,
    )


class _Judge(NamedTuple):
    """Small trees on a fact, and on the picture's values of the same kind."""

    values: np.ndarray
    picture: np.ndarray | None
    groups: np.ndarray | None
    seed: int

    def fit(self, labels: np.ndarray) -> float:
        """Return the balanced accuracy on the images that the tree was fitted to."""
        tree = self._tree(labels).fit(self.values, labels)
        return float(balanced_accuracy_score(labels, tree.predict(self.values)))

    def accuracy(self, labels: np.ndarray) -> float:
        """Return the balanced accuracy on images that the tree did not see."""
        return self._cross_validate(self.values, labels)

    def is_explained(self, labels: np.ndarray, accuracy: float, chance: float) -> bool:
        """Return whether the picture predicts as well as the fact, or nearly."""
        if self.picture is None:
            return False
        picture = self._cross_validate(self.picture, labels)
        explains = picture - chance > MAX_EXPLAINED_SHARE * (accuracy - chance)
        return explains and 1 - accuracy >= MAX_ERROR_SHARE * (1 - picture)

    def count(self, chosen: np.ndarray) -> int:
        """Return how many images are chosen, bool[N], or how many groups of them."""
        return int(chosen.sum()) if self.groups is None else len(set(self.groups[chosen].tolist()))

    def _cross_validate(self, values: np.ndarray, labels: np.ndarray) -> float:
        tree = self._tree(labels)
        predicted = np.empty_like(labels)
        for test in split_folds(labels, FOLDS, self.seed, self.groups):
            known = np.delete(np.arange(len(labels)), test)
            predicted[test] = tree.fit(values[known], labels[known]).predict(values[test])
        return float(balanced_accuracy_score(labels, predicted))

    def _tree(self, labels: np.ndarray) -> DecisionTreeClassifier:
        leaf = max(3, len(labels) // 100)
        return DecisionTreeClassifier(
            max_depth=4, min_samples_leaf=leaf, class_weight="balanced", random_state=self.seed
        )


def _describe_example(fact: str, rows: Sequence[ImageRow], label: str = "") -> str:
    """Return how often one class and the others have a value; for ``label``, or the clearest."""
    describe = {
        "size": lambda row: f"{row.width} x {row.height}",
        "colour mode": lambda row: row.mode,
        "file format": lambda row: row.format,
    }.get(fact)
    if describe is None:
        return ""
    pairs = Counter((row.stratum, describe(row)) for row in rows)
    totals = Counter(row.stratum for row in rows)
    overall = Counter(describe(row) for row in rows)
    shares = {}
    for name in [label] if label else sorted(totals):
        for value in sorted(overall):
            others = len(rows) - totals[name]
            of_others = (overall[value] - pairs[name, value]) / others
            shares[name, value] = (pairs[name, value] / totals[name], of_others)
    (name, value), (share, of_others) = max(
        shares.items(), key=lambda item: (abs(item[1][0] - item[1][1]), item[1][0])
    )
    if share < of_others:
        has = "no image" if share == 0 else f"only {share:.0%}"
        return f'{has} of "{name}" is {value}, but {of_others:.0%} of the others are'
    return f'{share:.0%} of "{name}" have {value}, but only {of_others:.0%} of the others'


def _numbered(values: Sequence[str]) -> np.ndarray:
    names = sorted(set(values))
    return np.array([[float(name == value) for name in names] for value in values])
