"""One candidate image of a data set, and the format of names, counts and faults in messages."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple

from rootstock.errors import DataError
from rootstock.system.escape import escape_terminal, list_names

TABLE_ENDINGS = (".csv", ".tsv", ".parquet", ".pq")
MAX_FAULTY = 10
"""Number of targets whose unusable files are listed."""


class Entry(NamedTuple):
    """One candidate image: path relative to the base folder, target, given split or None.

    ``metadata``: further cells of the table, by column name. ``settled``: the target is written as
    in the manifest.
    """

    path: str
    target: str
    split: str | None = None
    metadata: Mapping[str, str] = MappingProxyType({})
    settled: bool = False


def clean_label(text: str) -> str:
    """Return ``text`` without surrounding blanks, with composed letters (Unicode NFC).

    macOS decomposes letters in file names (NFD), so the same word may have two spellings that look
    the same.
    """
    return unicodedata.normalize("NFC", text).strip()


def fold_label(text: str) -> str:
    """Return the label in a form that is the same whatever its case."""
    return clean_label(text).casefold()


def count(number: int, noun: str) -> str:
    """Return ``1 file``, ``3 files``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shorten(names: Sequence[str], *, most: int = 5) -> str:
    """Return the first ``most`` names, and the number of further ones."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return list_names(names[:most]) + more


def describe_faults(entries: Sequence[Entry], reasons: Sequence[str]) -> Iterator[str]:
    """Yield for each target the number of unusable files, and the first ones.

    ``reasons``: one for each entry, empty for a usable one.
    """
    faults: dict[str, list[str]] = {}
    for entry, reason in zip(entries, reasons, strict=True):
        if reason:
            faults.setdefault(entry.target, []).append(f"{entry.path} ({reason})")
    counts = Counter(entry.target for entry in entries)
    for target, files in sorted(faults.items(), key=lambda item: -len(item[1]))[:MAX_FAULTY]:
        yield (
            f"{len(files)} of {counts[target]} files of {escape_terminal(target)} are unusable: "
            f"{shorten(files, most=3)}"
        )


@contextmanager
def explaining(*notes: str) -> Iterator[None]:
    """Add notes about the data set to a `DataError`."""
    try:
        yield
    except DataError as error:
        raise DataError("\n  ".join([error.message, *notes]), hint=error.hint) from None
