"""Use the newest images as the test split: a model meets new images after training."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from rootstock.data.entry import Entry
from rootstock.errors import DataError


def split_off_newest(
    entries: Sequence[Entry], groups: np.ndarray, *, column: str, share: float
) -> list[str | None]:
    """Return the given splits, with `test` for the newest ``share`` of images without a split.

    The time is in the metadata ``column``: ISO 8601 dates, or numbers. Images with the same time
    are in one split. A group (``groups`` int64[N]) is tested if its newest image is.
    Raises:
        DataError: a time is invalid, a test split is given, or all times are the same.
    """
    if any(entry.split == "test" for entry in entries):
        raise DataError(
            "the data has a test split, but data.time asks for one by time",
            hint="remove the test rows of the column split, or set data.time to null",
        )
    times = np.array([_read_time(entry, column) for entry in entries])
    _, codes = np.unique(groups, return_inverse=True)
    newest = np.full(codes.max() + 1, -np.inf)
    np.maximum.at(newest, codes, times)
    times = newest[codes]
    free = np.array([entry.split is None for entry in entries])
    if not share or not free.any():
        return [entry.split for entry in entries]
    count = max(1, round(share * int(free.sum())))
    cutoff = np.sort(times[free])[-count]
    if cutoff <= times[free].min():
        raise DataError(
            f"data.time: the test split of the newest images by {column} would contain all images",
            hint="use a column with different times, or set data.time to null",
        )
    return [
        "test" if is_free and time >= cutoff else entry.split
        for entry, time, is_free in zip(entries, times, free, strict=True)
    ]


def _read_time(entry: Entry, column: str) -> float:
    if entry.settled:  # a person added the image to the table, which has no time for it
        return -np.inf
    text = entry.metadata.get(column, "")
    try:
        number = float(text)
    except ValueError:
        try:
            when = datetime.fromisoformat(text)
        except ValueError:
            raise DataError(
                f"{entry.path}: the column {column} has the invalid time {text!r}",
                hint="write times as 2026-11-30 or 2026-11-30T14:05:00, or as numbers",
            ) from None
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    if not np.isfinite(number):
        raise DataError(
            f"{entry.path}: the column {column} has the invalid time {text!r}",
            hint="write times as 2026-11-30 or 2026-11-30T14:05:00, or as finite numbers",
        )
    return number
