"""Check which labels can be learned, and which look unusual."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from rootstock.data.entry import clean_label, shorten
from rootstock.data.splits import SPLITS
from rootstock.errors import DataError
from rootstock.system.escape import escape_terminal, list_names

MAX_LONE_CLASSES = 10
"""Above this number, classes of one or two images each are not classes."""
_SEPARATORS = re.compile(r"[,;|]")


def number_labels(texts: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Return class numbers int64[N].

    Raises:
        DataError: a label is not among ``names``.
    """
    number = {name: index for index, name in enumerate(names)}
    strangers = sorted(set(texts) - set(number))
    if strangers:
        raise DataError(
            f"the model has no classes {list_names(strangers)}",
            hint=f"its classes are {list_names(names)}",
        )
    return np.array([number[text] for text in texts], dtype=np.int64)


def require_label(text: str) -> str:
    """Return the name of a class as read from folders and tables.

    Raises:
        DataError: the name is empty.
    """
    label = clean_label(text)
    if not label:
        raise DataError("a class has an empty name", hint="enter the name of a class")
    return label


def only_label(labels: Sequence[str]) -> str:
    """Return the class of an image that another tool labelled.

    Raises:
        DataError: the image has no class, or several.
    """
    if len(labels) != 1:
        raise DataError(
            f"the image has {len(labels)} classes: {list_names(labels) or 'none'}",
            hint="give it one class",
        )
    return require_label(labels[0])


def check_classes(root: Path, texts: Sequence[str], listed: Sequence[str], least: int) -> None:
    """Refuse fewer than two classes, and classes of fewer than ``least`` images.

    Raises:
        DataError: names the classes.
    """
    counts, classes = Counter(texts), sorted(set(listed))
    if len(classes) < 2:
        raise DataError(
            f"{root} has one class, {list_names(classes)}, but a classifier needs at least two",
            hint="put the images of each class into a separate folder",
        )
    if not counts:
        raise DataError(
            f"none of the files in {root} is a usable image",
            hint="convert the files to JPEG or PNG, download them, or remove them",
        )
    scarce = {label: counts[label] for label in classes if counts[label] < least}
    if scarce:
        text = shorten([f"{label} ({count})" for label, count in scarce.items()], most=10)
        hint = "add images, remove the class, or lower data.min_per_class (at least 2)"
        if len(scarce) == len(classes) > MAX_LONE_CLASSES:
            hint = "a class needs several images: are these numbers, or names of single images?"
        raise DataError(
            f"{root} has classes with fewer than {least} usable images: {text}", hint=hint
        )


def name_twins(texts: Sequence[str]) -> list[str]:
    """Return a warning if classes differ only in case."""
    spellings: dict[str, list[str]] = {}
    for label in sorted(set(texts)):
        spellings.setdefault(label.casefold(), []).append(label)
    twins = [" and ".join(map(repr, labels)) for labels in spellings.values() if len(labels) > 1]
    if not twins:
        return []
    return [f"the classes {shorten(twins)} differ only in case; should they be one class?"]


def name_lists(texts: Sequence[str]) -> list[str]:
    """Return a warning if classes look like several labels of one image, such as `ant;bee`."""
    classes = set(texts)
    lists = [label for label in sorted(classes) if _names_another(label, classes)]
    if not lists:
        return []
    return [
        f"{len(lists)} of {len(classes)} classes look like several labels of one image, such as "
        f"{escape_terminal(lists[0])}: each is read as one class"
    ]


def _names_another(label: str, classes: Collection[str]) -> bool:
    parts = [part.strip() for part in _SEPARATORS.split(label)]
    return len(parts) > 1 and all(parts) and any(part in classes for part in parts)


def check_splits(root: Path, strata: Sequence[str], splits: Sequence[str]) -> list[str]:
    """Return a warning for each split that lacks classes.

    Raises:
        DataError: a class has no training image.
    """
    pairs = set(zip(strata, splits, strict=True))
    classes = sorted(set(strata))
    missing = {
        split: [label for label in classes if (label, split) not in pairs] for split in SPLITS
    }
    if missing["train"]:
        raise DataError(
            f"{root} has no training image of {list_names(missing['train'])}",
            hint="all of its images are in a given validation or test split: move some of "
            "them to the training split, or remove the class",
        )
    return [
        f"no image of {list_names(labels)} is in the split {split}, so its accuracy does not "
        "cover them"
        for split, labels in missing.items()
        if labels and split in splits
    ]
