"""Corrections of labels, in a file next to the images.

`corrections.csv` has one row per decision: the SHA-256 of the image file, the label before and
after, who, when and why. Rows are only added. The last row of an image is in force, so a later
row undoes an earlier one. Labels are texts as in the manifest's column `target`.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rootstock.errors import ArtifactError, DataError
from rootstock.system.escape import escape_terminal
from rootstock.system.files import remove_leftovers, write_atomic

FILE_NAME = "corrections.csv"
REMOVE = "(remove)"
"""The new label of an image that is removed from the data set, and the old one if it returns."""
ORIGINAL = "(original)"
"""The new label of an image whose corrections are undone: the label in the folders, the table or
the mask file is in force again. It is also the old label if that cannot be written in a row."""
NOTE_SIGN = "#"
"""A line that starts with this is not a row."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Correction:
    """One row; ``old`` is the label that ``who`` saw, empty if the image had none.

    ``new`` is a label or `REMOVE`; ``when`` is a time in ISO 8601 with its time zone.
    """

    sha256: str
    old: str
    new: str
    who: str
    when: str
    why: str = ""


class Conflict(NamedTuple):
    """Two labels of one image: the author of the ``later`` one did not know the ``earlier`` one."""

    earlier: Correction
    later: Correction


COLUMNS = tuple(field.name for field in fields(Correction))


def locate_corrections(root: Path) -> Path:
    """Return the file of corrections for the data set ``root``, a folder or a table."""
    return (root if root.is_dir() else root.parent) / FILE_NAME


def stamp_time() -> str:
    """Return the current time for `Correction.when`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_corrections(path: Path) -> tuple[Correction, ...]:
    """Return all rows in the order of the file; none if there is no file.

    An incomplete last line is skipped with a warning: its writer was killed, or the copy was cut.

    Raises:
        DataError: names the line that is not a correction.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}", hint="save it as UTF-8") from None
    lines = text.split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        line = line.removesuffix("\r")
        if number == 1 and line:
            _check_header(path, line)
        if number == 1 or not line or line.startswith(NOTE_SIGN):
            continue
        try:
            rows.append(_read_row(line))
        except ValueError as error:
            if number == len(lines):
                _log.warning(
                    "warning: %s, line %d is incomplete and is ignored: %s",
                    path,
                    number,
                    escape_terminal(line),
                )
                break
            raise DataError(
                f"{path}, line {number}: {error}",
                hint=f"a line must have the form {','.join(COLUMNS)}; correct it, or start it "
                f"with {NOTE_SIGN}",
            ) from None
    return tuple(rows)


def read_corrections_of(root: Path) -> tuple[Correction, ...]:
    """Return the corrections of the data set ``root``; none if the table has their file name."""
    path = locate_corrections(root)
    return () if path == root else read_corrections(path)


def append_corrections(path: Path, corrections: Sequence[Correction]) -> None:
    """Append rows to the file: all or none, one writer at a time.

    Raises:
        ArtifactError: the file cannot be written.
        DataError: a row is not a correction, or the file does not contain corrections.
    """
    lines = "".join(map(_write_row, corrections))
    if not lines:
        return
    with _hold(path) as content:
        if not content:
            content = f"{','.join(COLUMNS)}\n".encode()
        head = content.split(b"\n", 1)[0].decode("utf-8-sig", "replace")
        _check_header(path, head.removesuffix("\r"))
        remove_leftovers(path)
        with write_atomic(path) as temporary:
            temporary.write_bytes(_end_line(content) + lines.encode())


def current(corrections: Iterable[Correction]) -> dict[str, Correction]:
    """Return the correction in force per image, by SHA-256; none if it was undone."""
    last = last_rows(corrections)
    return {sha256: one for sha256, one in last.items() if one.new != ORIGINAL}


def last_rows(corrections: Iterable[Correction]) -> dict[str, Correction]:
    """Return the last row per image, by SHA-256."""
    return {one.sha256: one for one in corrections}


def conflicts(corrections: Iterable[Correction]) -> list[Conflict]:
    """Return the conflicts that no later row has resolved, in the order of the file.

    A row resolves a conflict if its ``old`` is the label in force: its author saw that label. After
    a person has undone all corrections, no label of another person is lost.
    """
    last: dict[str, Correction] = {}
    open_ones: dict[str, Conflict] = {}
    for row in corrections:
        known = last.get(row.sha256)
        if known and known.new in (row.old, ORIGINAL):
            open_ones.pop(row.sha256, None)
        elif known and row.new != known.new and row.who != known.who:
            open_ones[row.sha256] = Conflict(known, row)
        last[row.sha256] = row
    return list(open_ones.values())


def _check_header(path: Path, line: str) -> None:
    if line != ",".join(COLUMNS):
        raise DataError(
            f"{path}, line 1: the columns are {escape_terminal(line)}",
            hint=f"they must be {','.join(COLUMNS)}, separated by commas; if the file contains "
            "something else, rename it",
        )


def _read_row(line: str) -> Correction:
    try:
        (cells,) = csv.reader([line], strict=True)
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if len(cells) != len(COLUMNS):
        raise ValueError(f"it has {len(cells)} cells instead of {len(COLUMNS)}")
    row = Correction(*cells)
    _check_row(row)
    return row


def _check_row(row: Correction) -> None:
    if not _SHA256.fullmatch(row.sha256):
        raise ValueError(f"sha256 is {row.sha256!r}, not 64 hexadecimal digits in lower case")
    if not row.new:
        raise ValueError(f"the new label is empty; write {REMOVE} to remove an image")
    if datetime.fromisoformat(row.when).tzinfo is None:
        raise ValueError(f"the time {row.when!r} has no time zone")


def _write_row(row: Correction) -> str:
    try:
        _check_row(row)
        if any("\n" in text or "\r" in text for text in (row.old, row.new)):
            raise ValueError("a label contains a line break")
    except ValueError as error:
        raise DataError(
            f"invalid correction: {error}", hint="nothing was written; correct the row"
        ) from None
    who, why = (" ".join(text.split()) for text in (row.who, row.why))
    buffer = io.StringIO()
    cells = astuple(Correction(row.sha256, row.old, row.new, who, row.when, why))
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def _end_line(content: bytes) -> bytes:
    """Return the content with a complete last line; an incomplete one becomes a note."""
    if content.endswith(b"\n"):
        return content
    start = content.rfind(b"\n") + 1
    last = content[start:]
    if start and not last.startswith(NOTE_SIGN.encode()):
        try:
            _read_row(last.decode())
        except ValueError:
            last = f"{NOTE_SIGN} ".encode() + last
    return content[:start] + last + b"\n"


@contextmanager
def _hold(path: Path) -> Iterator[bytes]:
    """Yield the content of the file while no other process can write it.

    A write replaces the file: if this happens while the process waits, it waits for the new file.
    On a file system without locks there is no waiting. A file that stays empty is removed.
    """
    try:
        file = _lock(path)
    except OSError as error:
        raise ArtifactError(
            f"cannot write {path}: {error.strerror or error}",
            hint="check the permissions of the folder; nothing was written",
        ) from None
    with file:
        try:
            file.seek(0)
            yield file.read()
        finally:
            with suppress(OSError):
                if path.stat().st_size == 0:
                    path.unlink()


def _lock(path: Path) -> BinaryIO:
    while True:
        try:
            file: BinaryIO = path.open("a+b")
        except PermissionError:  # it may be a link into DVC's read-only cache
            file = path.open("rb")
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
