"""Which labels can be learnt from, and which look odd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rootstock.data.splits import SPLITS
from rootstock.errors import DataError
from rootstock.system.escape import list_names


def number_labels(texts: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Return class numbers int64[N].

    Raises:
        DataError: a label is not among ``names``.
    """
    number = {name: index for index, name in enumerate(names)}
    strangers = sorted(set(texts) - set(number))
    if strangers:
        raise DataError(
            f"the model does not know the classes {list_names(strangers)}",
            hint=f"it knows {list_names(names)}",
        )
    return np.array([number[text] for text in texts], dtype=np.int64)


def check_classes(root: Path, texts: Sequence[str], listed: Sequence[str], least: int) -> None:
    """Refuse fewer than two classes, and classes of fewer than ``least`` images.

    Raises:
        DataError: names the classes.
    """
    counts, classes = Counter(texts), sorted(set(listed))
    if len(classes) < 2:
        raise DataError(
            f"{root} has one class, {list_names(classes)}; a classifier needs two or more",
            hint="put the images of each class into a folder of its own",
        )
    if not counts:
        raise DataError(
            f"none of the files in {root} is a usable image",
            hint="convert the files to JPEG or PNG, fetch them, or remove them",
        )
    scarce = {label: counts[label] for label in classes if counts[label] < least}
    if scarce:
        text = list_names(f"{label} ({count})" for label, count in scarce.items())
        raise DataError(
            f"{root} has classes with fewer than {least} usable images: {text}",
            hint="add images, remove the class, or lower data.min_per_class (not under 2)",
        )


def name_twins(texts: Sequence[str]) -> list[str]:
    """Return a warning for each pair of classes that differ in case only."""
    warnings = []
    first: dict[str, str] = {}
    for label in sorted(set(texts)):
        twin = first.setdefault(label.casefold(), label)
        if twin != label:
            warnings.append(
                f"the classes {twin!r} and {label!r} differ in case only; are they one?"
            )
    return warnings


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
            hint="all of its images are in a validation or test split that you gave: move some of "
            "them to the training split, or remove the class",
        )
    return [
        f"no image of {list_names(labels)} in {split}: accuracy there says nothing of them"
        for split, labels in missing.items()
        if labels and split in splits
    ]
