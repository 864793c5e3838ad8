"""The SQLite file of a registry: created whole or not at all; a locked file is waited for."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from sqlalchemy import URL

LOCK_SECONDS = 300
"""How long to wait for a file that another process has locked; SQLite's default is 5 seconds."""
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
DISK_PHRASES = (
    "database or disk is full",
    "disk I/O error",
    *(os.strerror(number) for number in DISK_ERRORS),
)
"""Messages of SQLite and the system for a full disk."""


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an ``sqlite:`` URI; None for any other."""
    if not uri.startswith("sqlite"):
        return None
    import sqlalchemy

    database = sqlalchemy.make_url(uri).database
    return Path(database) if database and database != ":memory:" else None


def open_database(uri: str, database: Path) -> MlflowClient:
    """Return a client for the SQLite file; a missing or empty file is created first.

    MLflow takes seconds to create the tables, without a lock: two processes at once break each
    other, and a half-created file is useless. So one process creates the file, under another name.
    """
    from mlflow import MlflowClient

    with _hold(database):
        patient = _with_timeout(uri)
        if database.exists() and not (database.is_file() and not database.stat().st_size):
            try_database(patient)
        else:
            _make(uri, database)
        return MlflowClient(patient, registry_uri=patient)


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether ``error``, or its cause, is a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            return True
        if any(words in str(error) for words in DISK_PHRASES):
            return True
        error = error.__cause__ or error.__context__
    return False


def _make(uri: str, database: Path) -> None:
    import sqlalchemy
    from mlflow import MlflowClient

    temporary = database.with_name(f".{database.name}.{uuid.uuid4().hex[:8]}.tmp")
    address = _render(sqlalchemy.make_url(uri).set(database=str(temporary)))
    try:
        try_database(address)
        MlflowClient(address).search_experiments(max_results=1)
        temporary.replace(database)
    finally:
        for file in (temporary, Path(f"{temporary}-journal")):
            with suppress(OSError):
                file.unlink()


def try_database(uri: str) -> None:
    """Open the database once, because MLflow would retry a hopeless one for 100 s."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()


def _with_timeout(uri: str) -> str:
    import sqlalchemy

    address = sqlalchemy.make_url(uri)
    if not address.drivername.startswith("sqlite") or "timeout" in address.query:
        return uri
    return _render(address.update_query_dict({"timeout": str(LOCK_SECONDS)}))


def _render(address: URL) -> str:
    return address.render_as_string(hide_password=False)


@contextmanager
def _hold(database: Path) -> Iterator[None]:
    from filelock import FileLock

    name = hashlib.sha256(str(database.resolve()).encode()).hexdigest()[:16]
    database.parent.mkdir(parents=True, exist_ok=True)
    # Next to the file if possible, so that containers that share it also share the lock.
    beside = os.access(database.parent, os.W_OK)
    lock = Path(f"{database}.lock") if beside else Path(tempfile.gettempdir(), f"{name}.lock")
    with FileLock(lock, timeout=LOCK_SECONDS):
        yield
