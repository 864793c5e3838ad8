"""Numbers as targets: their form in tables, which are refused, and their bins.

A single number in a column `target` is stored as written. Numbers of other or several columns are a
JSON object by column name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rootstock.errors import DataError
from rootstock.system.escape import list_names

if TYPE_CHECKING:
    from rootstock.data.columns import Columns

TARGET = "target"
MAX_BINS = 5
MIN_BIN_IMAGES = 10
"""Images that a bin needs if there are several bins."""
MAX_MAGNITUDE = 1e30
"""Larger numbers overflow when they are squared."""


def find_number_columns(columns: Columns, *, all_of_them: bool) -> tuple[str, ...]:
    """Return the column `target`, or the columns of numbers.

    ``all_of_them``: a table belongs to this task only if it has no other columns.
    """
    if names := columns.find(TARGET):
        return names
    if columns.find("label") or columns.find("labels"):
        return ()
    names = tuple(name for name in columns.unnamed if columns.kind(name) in ("number", "binary"))
    return () if all_of_them and len(names) < len(columns.unnamed) else names


def read_number_cells(columns: Columns, names: Sequence[str]) -> list[str]:
    """Return the numbers of each row as a text.

    Raises:
        DataError: a cell is empty or not a finite number.
    """
    cells = {name: columns.texts(name) for name in names}
    for name, texts in cells.items():
        for number, text in enumerate(texts, start=1):
            if fault := _find_fault(text):
                raise DataError(
                    f"{columns.path}, row {number}: {name} is {text!r}, {fault}",
                    hint="write a number with a point (3.5), or remove the row",
                )
    if list(names) == [TARGET]:
        return cells[TARGET]
    rows = zip(*cells.values(), strict=True)
    return [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in rows]


def _find_fault(text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        return "not a number" if text else "an empty cell"
    if not math.isfinite(value):
        return "not a finite number"
    return "larger than a model can learn" if abs(value) > MAX_MAGNITUDE else ""


def correct_numbers(old: str, new: str) -> str:
    """Return ``new`` if it contains finite numbers with the names in ``old``, if that has any.

    Raises:
        DataError: the text is wrong.
    """
    text = new.strip()
    try:
        cells = json.loads(text) if text.startswith("{") else {TARGET: text}
        faults = [
            f"{name} is {cell!r}, {_find_fault(str(cell))}"
            for name, cell in cells.items()
            if _find_fault(str(cell))
        ]
    except (RecursionError, ValueError) as error:
        faults = [f"{text!r} is not valid JSON: {error}"]
        cells = {}
    names = list(read_numbers(old)) if old else list(cells)
    if not faults and (not cells or set(cells) != set(names)):
        faults = [f"{text!r} has the numbers {list_names(cells)}, not {list_names(names)}"]
    if faults:
        raise DataError(
            faults[0], hint='write a number, such as 3.5, or {"width": 3.5, "height": 2}'
        )
    return text


def read_numbers(text: str) -> dict[str, float]:
    """Return the numbers of a text by their names."""
    if text.startswith("{"):
        return {name: float(value) for name, value in json.loads(text).items()}
    return {TARGET: float(text)}


def write_numbers(values: Mapping[str, float]) -> str:
    """Return the text of numbers by their names.

    Raises:
        DataError: there is none.
    """
    if not values:
        raise DataError("the image has no number", hint="enter a number")
    if list(values) == [TARGET]:
        return f"{values[TARGET]:g}"
    return json.dumps(dict(values), ensure_ascii=False)


def read_values(texts: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Return float32[N,K].

    Raises:
        DataError: the numbers have other names than ``names``.
    """
    rows = [read_numbers(text) for text in texts]
    for row in rows:
        if set(row) != set(names):
            raise DataError(
                f"the model predicts the numbers {list_names(names)}, but the data has "
                f"{list_names(row)}",
                hint="name the columns with data.columns, such as {target: weight}",
            )
    return np.array([[row[name] for name in names] for row in rows], np.float32).reshape(
        len(rows), len(names)
    )


def bin_numbers(texts: Sequence[str]) -> list[str]:
    """Return the quantile bin of each text's first number, such as `3 to 7`.

    There are up to five, with at least ten images each; equal numbers are in one bin.
    """
    values = np.array([next(iter(read_numbers(text).values())) for text in texts])
    bins = max(1, min(MAX_BINS, len(values) // MIN_BIN_IMAGES))
    borders = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))
    numbers = np.searchsorted(borders, values, side="left")
    names = {}
    for number in np.unique(numbers):
        members = values[numbers == number]
        names[number] = f"{members.min():g} to {members.max():g}"
    return [names[number] for number in numbers]


def check_numbers(root: Path, texts: Sequence[str]) -> None:
    """Refuse numbers of usable images that are all the same.

    Raises:
        DataError: says which.
    """
    if not texts:
        raise DataError(
            f"none of the files in {root} is a usable image",
            hint="convert the files to JPEG or PNG, download them, or remove them",
        )
    rows = [read_numbers(text) for text in texts]
    for name, first in rows[0].items():
        if all(row[name] == first for row in rows):
            raise DataError(
                f"{name} is {first:g} for each usable image of {root}: there is nothing to learn",
                hint="list images with other numbers too, or remove this column",
            )
