"""Logs: text on a terminal, otherwise one JSON object per line; each with its request id.

With traces (tracing.py), JSON lines also have the `trace_id`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from contextvars import ContextVar

from opentelemetry import trace

from rootstock.system.escape import escape_log

request_id: ContextVar[str] = ContextVar("request_id", default="")
# What every record has, and uvicorn's coloured copy of the message.
_STANDARD_FIELDS = set(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "color_message",
}


def current_trace_id() -> str:
    """Return the id of the current OpenTelemetry trace, as 32 hexadecimal digits, or ""."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON, with the members of its `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        tree = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id.get():
            tree["request_id"] = request_id.get()
        if trace_id := current_trace_id():
            tree["trace_id"] = trace_id
        tree |= {key: value for key, value in vars(record).items() if key not in _STANDARD_FIELDS}
        if record.exc_info:
            tree["exception"] = self.formatException(record.exc_info)
        return json.dumps(tree, default=str)


class TextFormatter(logging.Formatter):
    """Formats a record as a line of text, with its request id at the end."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line; text sent by a client cannot start another one."""
        record.message = escape_log(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"{text} [{request_id.get()}]" if request_id.get() else text


def set_up_logs(style: str) -> None:
    """Send all logs to stderr in the style "text", "json" or "auto"."""
    handler = logging.StreamHandler()
    if style == "json" or (style == "auto" and not sys.stderr.isatty()):
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(TextFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], force=True)
    for name in ("rootstock", "uvicorn"):
        logging.getLogger(name).setLevel(logging.INFO)
