"""Find the files of an SQLite registry, even after its project was moved or copied.

MLflow's tables contain absolute addresses. The files of a project are in ``mlruns`` next to its
database: they are searched there first, and new runs are stored there.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from rootstock.errors import TrackingError
from rootstock.model.bundle import FACTS

ARTIFACTS = "mlruns"
ADDRESS_COLUMNS = ("artifact_location", "artifact_uri", "source", "storage_location")
"""Columns of MLflow's tables that hold the address of files."""
ROOT = re.compile(rf"(?P<root>.*/{ARTIFACTS})(?:/.*)?")
"""An address below a folder of artifacts."""
TRIED_RUNS = 2_000
"""Search the files of at most this many runs; a trial without files has no folder."""


def locate(address: str, database: Path | None) -> str:
    """Return the place of the files of ``address``: next to ``database`` if they are there."""
    path = local_path(address)
    if database is None or path is None:
        return address
    for number, part in enumerate(path.parts):
        place = artifacts_of(database).joinpath(*path.parts[number + 1 :])
        if part == ARTIFACTS and place.exists():
            return place.as_uri()
    return address


def bring_home(database: Path, root: Path | None = None) -> int:
    """Correct the addresses of files that are in ``root``; return the number of folders corrected.

    ``root`` is by default ``mlruns`` next to ``database``. New runs of a project that was copied
    without its files are stored there too; the folder of the original project is not changed.
    """
    home = root or artifacts_of(database)
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        if not connection.execute(
            "SELECT 1 FROM sqlite_master WHERE name = 'experiments'"
        ).fetchone():
            return 0
        away = list(_roots_elsewhere(connection, home))
        corrected = 0
        for old in away:
            if _holds_runs_of(connection, old, home):
                move_addresses(connection, old, home)
            elif _is_anothers(old, database) or not _is_in_use(connection, old):
                move_addresses(connection, old, home, tables=("experiments",))
            else:
                continue
            corrected += 1
    return corrected


def artifacts_of(database: Path) -> Path:
    """Return the folder of the files that belong to a database."""
    return database.resolve().parent / ARTIFACTS


def local_path(address: str) -> Path | None:
    """Return the path of an address on this machine: a file: URI, or a path; None for others."""
    scheme = urlsplit(address).scheme
    if scheme == "file":
        return Path(url2pathname(urlsplit(address).path))
    return Path(address) if not scheme else None


def check_model_folder(address: str) -> None:
    """Refuse to copy a local folder that is not a model, since a registry may name any folder.

    Raises:
        TrackingError: the folder has no `bundle.json`, or has links, which may lead anywhere.
    """
    folder = local_path(address)
    if folder is None or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / FACTS).is_file():
        wrong = f"it has no {FACTS}"
    elif any(path.is_symlink() for path in folder.rglob("*")):
        wrong = "it contains links"
    else:
        return
    raise TrackingError(
        f"the registry names {folder}, which is not a model: {wrong}",
        hint="check that the registry is yours, and register the model again",
    )


def move_addresses(
    connection: sqlite3.Connection, old: Path, new: Path, *, tables: tuple[str, ...] = ()
) -> None:
    """Replace the folder ``old`` by ``new`` in all addresses, or in those of ``tables``."""
    # Most addresses are URIs; the address of MLflow's Default experiment is a path.
    changes = [(old.as_uri(), new.as_uri()), (str(old), str(new))]
    for table, column in _columns(connection):
        if tables and table not in tables:
            continue
        for before, after in changes:
            connection.execute(
                f'UPDATE "{table}" SET "{column}" = ? || substr("{column}", ?) '
                f'WHERE "{column}" = ? OR substr("{column}", 1, ?) = ?',
                (after, len(before) + 1, before, len(before) + 1, f"{before}/"),
            )


def _columns(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    tables = [
        row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
    ]
    return [
        (table, column[1])
        for table in tables
        for column in connection.execute(f'PRAGMA table_info("{table}")')
        if column[1] in ADDRESS_COLUMNS
    ]


def _roots_elsewhere(connection: sqlite3.Connection, home: Path) -> Iterator[Path]:
    """Yield the folders of artifacts, other than ``home``, that experiments write to."""
    query = "SELECT DISTINCT artifact_location FROM experiments"
    roots = set()
    for (address,) in connection.execute(query):
        match = ROOT.fullmatch(str(address))
        path = local_path(match["root"]) if match else None
        if path is not None and path.is_absolute() and not _is_same(path, home):
            roots.add(path)
    yield from sorted(roots)


def _run_folders(connection: sqlite3.Connection, old: Path) -> Iterator[Path]:
    """Yield the folders of runs below ``old``, relative to it, newest first."""
    query = "SELECT artifact_uri FROM runs ORDER BY start_time DESC"
    for (address,) in connection.execute(query):
        path = local_path(str(address))
        if path is not None and path.is_relative_to(old):
            yield path.relative_to(old)


def _holds_runs_of(connection: sqlite3.Connection, old: Path, home: Path) -> bool:
    folders = zip(range(TRIED_RUNS), _run_folders(connection, old), strict=False)
    return any((home / folder).exists() for _, folder in folders)


def _is_in_use(connection: sqlite3.Connection, old: Path) -> bool:
    return next(_run_folders(connection, old), None) is not None or old.exists()


def _is_anothers(old: Path, database: Path) -> bool:
    """Return whether the folder of ``old`` is another project with its own database."""
    other = old.parent / database.name
    return other.is_file() and not _is_same(other, database)


def _is_same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()
