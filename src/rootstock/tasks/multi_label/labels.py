"""Sets of labels: their form in tables, which can be learned, and their strata.

A set is stored as a JSON list of its labels in order, `[]` for none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rootstock.data.entry import clean_label, shorten
from rootstock.errors import DataError
from rootstock.system.escape import list_names

if TYPE_CHECKING:
    from rootstock.data.columns import Columns

SEPARATORS = ("|", ";", ",")
"""Separators of labels; the first one found in a column is used."""
MIN_STRATUM_IMAGES = 10
"""Images that a label needs to be a stratum: at least two per fold."""
NO_LABEL, RARE = "(no label)", "(rare labels)"
"""Strata of images without a label, and of those whose labels are all rare."""


def find_label_columns(columns: Columns, *, all_of_them: bool) -> tuple[str, ...]:
    """Return the column `labels`, or the columns of 0 and 1; empty if there are fewer than two.

    ``all_of_them``: a table belongs to this task only if it has no other columns.
    """
    if names := columns.find("labels"):
        return names
    if columns.find("label") or columns.find("target"):
        return ()
    names = tuple(name for name in columns.unnamed if columns.kind(name) == "binary")
    if len(names) < 2 or (all_of_them and len(names) < len(columns.unnamed)):
        return ()
    return names


def read_label_cells(columns: Columns, names: Sequence[str]) -> list[str]:
    """Return the set of each row.

    Raises:
        DataError: a cell of one column per label is neither 0 nor 1.
    """
    if len(names) > 1:
        return _read_one_hot(columns, names)
    (name,) = names
    if columns.is_list(name):
        return list(map(write_set, columns.lists(name)))
    cells = columns.texts(name)
    separator = next(
        (one for one in SEPARATORS if any(one in cell for cell in cells)), SEPARATORS[0]
    )
    return [write_set(_split_cell(cell, separator)) for cell in cells]


def _split_cell(cell: str, separator: str) -> list[str]:
    if cell.startswith("[") and cell.endswith("]"):
        try:
            return [str(label) for label in json.loads(cell)]
        except (TypeError, ValueError):
            pass
    return cell.split(separator)


def _read_one_hot(columns: Columns, names: Sequence[str]) -> list[str]:
    from rootstock.data.columns import TRUTH_VALUES

    rows: list[list[str]] = [[] for _ in range(len(columns.table))]
    for name in names:
        label, count = clean_label(name), 0
        for number, cell in enumerate(columns.texts(name)):
            value = TRUTH_VALUES.get(cell.lower())
            if value is None:
                raise DataError(
                    f"{columns.path}, row {number + 1}: {name} is {cell!r}, neither 0 nor 1",
                    hint="write 0 or 1 in each column of a label; or name the columns that are "
                    "labels with data.columns, such as {labels: [cat, dog]}",
                )
            if value:
                rows[number].append(label)
                count += 1
        if not count:
            columns.notes.append(f"no image has the label {label}, so it is ignored")
    return list(map(write_set, rows))


def write_set(labels: Sequence[str]) -> str:
    """Return labels as the text of a set."""
    clean = {clean_label(label) for label in labels} - {""}
    return json.dumps(sorted(clean), ensure_ascii=False)


def read_set(text: str) -> list[str]:
    """Return the labels of a set."""
    return list(json.loads(text))


def parse_set(text: str) -> list[str]:
    """Return the labels of a set that a person entered.

    Raises:
        DataError: the text is not a JSON list of texts.
    """
    try:
        labels = json.loads(text)
    except (RecursionError, ValueError):
        labels = None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise DataError(
            f"{text!r} is not a list of labels", hint='write it as ["cat", "dog"], or [] for none'
        )
    return labels


def code_labels(texts: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Return float32[N,K], 1 for the labels that each set has.

    Raises:
        DataError: a label is not among ``names``.
    """
    number = {name: index for index, name in enumerate(names)}
    sets = [read_set(text) for text in texts]
    strangers = sorted({label for labels in sets for label in labels} - set(number))
    if strangers:
        raise DataError(
            f"the model has no labels {list_names(strangers)}",
            hint=f"its labels are {list_names(names)}",
        )
    values = np.zeros((len(sets), len(names)), np.float32)
    for row, labels in enumerate(sets):
        values[row, [number[label] for label in labels]] = 1
    return values


def stratify(texts: Sequence[str]) -> list[str]:
    """Return the stratum of each set: its rarest label that is not too rare.

    Iterative stratification starts with the rarest label, and so do strata of rarest labels
    (Sechidis et al. 2011).
    """
    sets = [read_set(text) for text in texts]
    counts = Counter(label for labels in sets for label in labels)
    usable = {label for label, count in counts.items() if count >= MIN_STRATUM_IMAGES}
    strata = []
    for labels in sets:
        frequent = [label for label in labels if label in usable]
        rarest = min(frequent, key=lambda label: (counts[label], label), default=RARE)
        strata.append(rarest if labels else NO_LABEL)
    sizes = Counter(strata)
    # The images left to a frequent label after the rarer ones may be too few for a stratum.
    large = [name for name, count in sizes.items() if count >= MIN_STRATUM_IMAGES]
    if not large:
        return [RARE] * len(strata)
    return [name if name in large else RARE for name in strata]


def check_labels(root: Path, texts: Sequence[str]) -> None:
    """Refuse sets of usable images from which nothing can be learned.

    Raises:
        DataError: no image has a label, or all images have the same ones.
    """
    if not texts:
        raise DataError(
            f"none of the files in {root} is a usable image",
            hint="convert the files to JPEG or PNG, download them, or remove them",
        )
    if len(set(texts)) == 1:
        labels = read_set(texts[0])
        what = f"has the labels {list_names(labels)}" if labels else "has no label"
        raise DataError(
            f"each usable image of {root} {what}: there is nothing to learn",
            hint="list images with other labels too",
        )


def warn_of_labels(texts: Sequence[str], least: int = 3) -> list[str]:
    """Return warnings about labels that are very rare, or that every image has."""
    sets = [read_set(text) for text in texts]
    counts = Counter(label for labels in sets for label in labels)
    warnings = []
    if scarce := sorted(label for label, count in counts.items() if count < least):
        warnings.append(
            f"fewer than {least} images have the labels {shorten(scarce)}: they are hardly "
            "learned, and may not be tested"
        )
    if always := sorted(label for label, count in counts.items() if count == len(sets)):
        warnings.append(
            f"every image has the labels {shorten(always)}: the model will always predict them"
        )
    folded: dict[str, str] = {}
    for label in sorted(counts):
        twin = folded.setdefault(label.casefold(), label)
        if twin != label:
            warnings.append(
                f"the labels {twin!r} and {label!r} differ only in case; should they be one label?"
            )
    return warnings
