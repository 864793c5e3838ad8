"""MLflow's client, created once per process, with errors in Rootstock's words.

A dead server costs only seconds: environment variables limit retries and timeouts, and are set only
if the user has not set them.
"""

from __future__ import annotations

import functools
import logging
import os
import random
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rootstock.errors import TrackingError
from rootstock.integrations.mlflow.database import (
    is_disk_full,
    open_database,
    sqlite_file,
    try_database,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)
QUIET_VARIABLES = {
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Variables that silence MLflow."""

TIMEOUT_VARIABLES = {
    # With the defaults of 7 retries and 120 s, a dead server blocked its caller for 4 minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
}


def prepare_mlflow() -> None:
    """Set the variables that silence MLflow and limit its calls, unless they are set."""
    for key, value in {**QUIET_VARIABLES, **TIMEOUT_VARIABLES}.items():
        os.environ.setdefault(key, value)


@functools.lru_cache(maxsize=8)
def mlflow_client(tracking_uri: str) -> MlflowClient:
    """Return the client of this process; call and use it inside `translated`."""
    prepare_mlflow()
    from mlflow import MlflowClient

    if is_http(tracking_uri):
        return MlflowClient(tracking_uri, registry_uri=tracking_uri)
    database = sqlite_file(tracking_uri)
    if database is not None:
        return open_database(tracking_uri, database)
    if re.match(r"(sqlite|postgresql|mysql|mssql)\b", tracking_uri):
        try_database(tracking_uri)
    return MlflowClient(tracking_uri, registry_uri=tracking_uri)


def probe(uri: str) -> None:
    """Ask MLflow for an experiment, as a training would.

    Raises:
        TrackingError: MLflow cannot be reached, or refuses the user.
    """
    with translated(uri, "look for runs"):
        mlflow_client(uri).search_experiments(max_results=1)


@contextmanager
def translated(uri: str, doing: str) -> Iterator[None]:
    """Turn errors of MLflow, its database and the network into TrackingError with advice."""
    prepare_mlflow()
    try:
        import sqlalchemy.exc
        from alembic.util import CommandError
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise TrackingError(
            f"MLflow is not installed: {error}",
            hint="pip install 'rootstock-vision[train]', or --set tracking.enabled=false",
        ) from error
    try:
        yield
    except (
        MlflowException,
        sqlalchemy.exc.SQLAlchemyError,
        sqlite3.Error,
        CommandError,  # tables made by another version
        OSError,  # includes those of requests
        ImportError,  # the driver of a database that is not installed
        *_store_errors(),
    ) as error:
        reason = cut(_first_line(str(error)), 400)
        raise TrackingError(
            redact(f"cannot {doing} in MLflow at {uri}: {reason}", uri),
            hint=_way_out(uri, error),
        ) from error


def _first_line(text: str) -> str:
    """Return the first line that says what happened; SQLAlchemy may put another one before it."""
    lines = [line for line in text.strip().split("\n") if not line.startswith("(raised as a res")]
    return lines[0] if lines else text


def _store_errors() -> tuple[type[Exception], ...]:
    """Return the error types of the S3 client, if it is in use."""
    exceptions = sys.modules.get("botocore.exceptions")
    return (exceptions.BotoCoreError, exceptions.ClientError) if exceptions else ()


DAMAGE_PHRASES = ("file is not a database", "database disk image is malformed")
"""SQLite's messages for a file that it cannot read."""


LOGIN_HINT = (
    "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to the "
    "credentials of an account on this server"
)
REFUSAL_CODES = ("PERMISSION_DENIED", "UNAUTHENTICATED")
REFUSAL_PHRASES = ("error code 401", "error code 403", "401 Client Error", "403 Client Error")
"""How MLflow's client reports a rejected password."""


def _is_refusal(error: Exception) -> bool:
    code = getattr(error, "error_code", "")
    return code in REFUSAL_CODES or any(words in str(error) for words in REFUSAL_PHRASES)


def _way_out(uri: str, error: Exception) -> str:
    reason = str(error)
    if is_http(uri) and _is_refusal(error):
        way = f"the server refuses the user: {LOGIN_HINT}"
    elif is_http(uri) and "500 error" in reason:
        way = "the server failed: check its log, and whether its disk or artifact volume is full"
    elif is_http(uri):
        way = f"check the server with `curl {redact(uri, uri)}/health`, and MLFLOW_TRACKING_URI"
    elif is_disk_full(error):
        way = "free some disk space, then run again"
    elif sqlite_file(uri) and "database is locked" in reason:
        way = "another process has locked the file: end it, then run again"
    elif sqlite_file(uri) and any(words in reason for words in DAMAGE_PHRASES):
        way = "the file is damaged: `rootstock restore` restores a backup into an empty project"
    elif sqlite_file(uri):
        way = (
            "check that the file is an MLflow database and writable; `mlflow db upgrade "
            f"'{uri}'` updates an older one"
        )
    else:
        way = "set MLFLOW_TRACKING_URI to http://HOST:PORT or sqlite:////absolute/mlflow.db"
    return f"{way}; or continue without tracking: --set tracking.enabled=false"


def redact(text: str, uri: str) -> str:
    """Return ``text`` without the user and password in ``uri``."""
    user, at, _ = urlsplit(uri).netloc.rpartition("@")
    return text.replace(user + at, "***@") if at else text


def or_none(get: Any, *arguments: str) -> Any:
    """Return the answer of a client's ``get_...``; None if the object does not exist."""
    from mlflow.exceptions import MlflowException

    try:
        return get(*arguments)
    except MlflowException as error:
        # INVALID_PARAMETER_VALUE: the version is not a number
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


CONFLICT_PHRASES = (
    "duplicate key",  # PostgreSQL: two upserts of MLflow both found nothing, and both inserted
    "UNIQUE constraint",
    "Giving up",  # create_model_version, after losing three races
    "database is locked",
    "deadlock detected",
    "could not serialize",
    "rows matched",  # another process has just deleted it
)
MAX_ATTEMPTS = 8


def again_if_crowded(call: Callable[..., Any], *arguments: Any, **others: Any) -> Any:
    """Return the call's answer; repeat the call if another process interfered.

    Use it only for calls that may be repeated.
    """
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            return call(*arguments, **others)
        except Exception as error:
            if attempt == MAX_ATTEMPTS or not any(
                words in str(error) for words in CONFLICT_PHRASES
            ):
                raise
            time.sleep(random.uniform(0.03, 0.15) * attempt)
    raise AssertionError("unreachable")


def patiently(call: Callable[[], Any], seconds: float) -> Any:
    """Return the call's answer; repeat it for ``seconds`` while MLflow cannot be reached.

    Use it only for calls that may be repeated.
    """
    until, pause = time.monotonic() + seconds, 0.5
    while True:
        try:
            return call()
        except Exception as error:
            left = until - time.monotonic()
            if left <= 0 or not _is_outage(error):
                raise
            _log.warning(
                "MLflow does not answer; waiting at most %.0f s: %s",
                left,
                cut(str(error).partition("\n")[0], 200),
            )
            time.sleep(min(pause, left))
            pause = min(2 * pause, 10.0)


def _is_outage(error: Exception) -> bool:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import InterfaceError, OperationalError

    if is_disk_full(error):
        return False
    if isinstance(error, MlflowException):
        # A refusal of the server has a separate code; MLflow uses this one for all other errors.
        return error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
    return isinstance(error, OSError | InterfaceError | OperationalError)


def cut(text: str, length: int) -> str:
    """Return the first ``length`` characters of ``text``, marked if it was cut."""
    return text if len(text) <= length else text[: length - 3] + "..."


def is_http(uri: str) -> bool:
    """Return whether the URI is that of a tracking server."""
    return uri.startswith(("http://", "https://"))
