"""MLflow's client, made once a process, and its failures in our words.

A dead server costs seconds: retries and timeouts are bounded by environment variables, which
are set only where the user has not.
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
"""No chatter."""

TIMEOUT_VARIABLES = {
    # Defaults of 7 retries and 120 s were measured to hold a dead server's caller for 4 minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
}


def prepare_mlflow() -> None:
    """Set the variables that keep MLflow quiet and its calls bounded, where they are unset."""
    for key, value in {**QUIET_VARIABLES, **TIMEOUT_VARIABLES}.items():
        os.environ.setdefault(key, value)


@functools.lru_cache(maxsize=8)
def mlflow_client(tracking_uri: str) -> MlflowClient:
    """The client of this process; to be called, and used, inside `translated`."""
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
        TrackingError: it cannot be reached, or refuses who asks.
    """
    with translated(uri, "look for runs"):
        mlflow_client(uri).search_experiments(max_results=1)


@contextmanager
def translated(uri: str, doing: str) -> Iterator[None]:
    """Turn what MLflow, its database or the network raise into TrackingError with a way out."""
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
    """Return the first line that says what happened; SQLAlchemy may put one about when before."""
    lines = [line for line in text.strip().split("\n") if not line.startswith("(raised as a res")]
    return lines[0] if lines else text


def _store_errors() -> tuple[type[Exception], ...]:
    """What S3's client raises, where one is at work."""
    exceptions = sys.modules.get("botocore.exceptions")
    return (exceptions.BotoCoreError, exceptions.ClientError) if exceptions else ()


DAMAGE_PHRASES = ("file is not a database", "database disk image is malformed")
"""What SQLite says of a file that it cannot read."""


LOGIN_HINT = (
    "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to those "
    "of an account of this server"
)
REFUSAL_CODES = ("PERMISSION_DENIED", "UNAUTHENTICATED")
REFUSAL_PHRASES = ("error code 401", "error code 403", "401 Client Error", "403 Client Error")
"""How MLflow's client reports a password that the server does not take."""


def _is_refusal(error: Exception) -> bool:
    code = getattr(error, "error_code", "")
    return code in REFUSAL_CODES or any(words in str(error) for words in REFUSAL_PHRASES)


def _way_out(uri: str, error: Exception) -> str:
    reason = str(error)
    if is_http(uri) and _is_refusal(error):
        way = f"the server refuses who asks: {LOGIN_HINT}"
    elif is_http(uri) and "500 error" in reason:
        way = "the server failed: is its disk or its artifact volume full? Its log says more"
    elif is_http(uri):
        way = f"is the server up? `curl {redact(uri, uri)}/health`; MLFLOW_TRACKING_URI names it"
    elif is_disk_full(error):
        way = "free some disk space, then run again"
    elif sqlite_file(uri) and "database is locked" in reason:
        way = "another process holds the file: end it, then run again"
    elif sqlite_file(uri) and any(words in reason for words in DAMAGE_PHRASES):
        way = "the file is damaged: `rootstock restore` puts a back-up into an empty project"
    elif sqlite_file(uri):
        way = (
            "is the file an MLflow database that you may write? An older one is brought up to "
            f"date by `mlflow db upgrade '{uri}'`"
        )
    else:
        way = "set MLFLOW_TRACKING_URI to http://HOST:PORT or sqlite:////absolute/mlflow.db"
    return f"{way}; --set tracking.enabled=false goes without"


def redact(text: str, uri: str) -> str:
    """``text`` without the user and password that ``uri`` holds."""
    user, at, _ = urlsplit(uri).netloc.rpartition("@")
    return text.replace(user + at, "***@") if at else text


def or_none(get: Any, *arguments: str) -> Any:
    """The answer of a client's ``get_...``, or None where there is no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return get(*arguments)
    except MlflowException as error:
        # INVALID_PARAMETER_VALUE: a version that is no number
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


CONFLICT_PHRASES = (
    "duplicate key",  # PostgreSQL: two upserts of MLflow both found nothing, and both inserted
    "UNIQUE constraint",
    "Giving up",  # create_model_version, when others were faster three times
    "database is locked",
    "deadlock detected",
    "could not serialize",
    "rows matched",  # deleted by somebody else a moment ago
)
MAX_ATTEMPTS = 8


def again_if_crowded(call: Callable[..., Any], *arguments: Any, **others: Any) -> Any:
    """The call's answer; it is made again where another process was in its way at that moment.

    For calls that may be made twice.
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
    """The call's answer; while MLflow cannot be reached it is made again, ``seconds`` long.

    For calls that may be made twice.
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
                "MLflow does not answer, waiting for it (%.0f s at most): %s",
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
        # What a server refuses has a code of its own; MLflow's word for the rest is this one.
        return error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
    return isinstance(error, OSError | InterfaceError | OperationalError)


def cut(text: str, length: int) -> str:
    """``text`` in at most ``length`` characters."""
    return text if len(text) <= length else text[: length - 3] + "..."


def is_http(uri: str) -> bool:
    """Whether a tracking server is meant."""
    return uri.startswith(("http://", "https://"))
