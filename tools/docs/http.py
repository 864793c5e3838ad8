"""The page of the service's routes, problems and settings, from its OpenAPI document."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from rootstock.service.http.app import create_app
from rootstock.service.http.problems import KINDS, PREFIX
from rootstock.service.settings import Settings
from tools.docs.markdown import MADE, make_table

INTRODUCTION = f"""# HTTP

{MADE}
The routes of `rootstock serve`. A running service shows them at `/docs`, with examples that you can
send, and as an OpenAPI document at `/openapi.json`. See [Serving](../guides/serving.md).

"""


def make_http_page() -> str:
    """Return the page: routes by subject, problems, settings."""
    with tempfile.TemporaryDirectory() as folder:
        document = create_app(Settings(root=Path(folder))).openapi()
    subjects: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            text = _route(method.upper(), path, operation)
            subjects.setdefault(operation["tags"][0], []).append(text)
    parts = [INTRODUCTION]
    parts += [f"## {name.capitalize()}\n\n{''.join(texts)}" for name, texts in subjects.items()]
    return "".join([*parts, _problems(), _settings()])


def _route(method: str, path: str, operation: dict[str, Any]) -> str:
    summary = operation["summary"]
    parts = [f"### {method} {path}\n\n", summary if summary[-1] in ".?" else f"{summary}.", "\n\n"]
    if "description" in operation:
        parts.append(f"{operation['description']}\n\n")
    if bodies := operation.get("requestBody", {}).get("content"):
        parts.append(f"Body: {', '.join(f'`{kind}`' for kind in bodies)}.\n\n")
    if rows := [_parameter(one) for one in operation.get("parameters", ())]:
        parts += [make_table(["parameter", "in", "default", "meaning"], rows), "\n"]
    return "".join([*parts, f"Status: {', '.join(operation['responses'])}.\n\n"])


def _parameter(one: dict[str, Any]) -> tuple[str, str, str, str]:
    default = one["schema"].get("default")
    shown = "" if default in (None, "") else f"`{default}`"
    return f"`{one['name']}`", one["in"], shown, one.get("description", "")


def _problems() -> str:
    rows = [(f"`{PREFIX}{kind}`", status, title) for kind, (status, title) in KINDS.items()]
    return (
        "## Problems\n\nErrors are `application/problem+json` (RFC 9457). Rely on `type`; the text "
        f"of `detail` may change.\n\n{make_table(['type', 'status', 'title'], rows)}\n"
    )


def _settings() -> str:
    rows = [(f"`ROOTSTOCK_{name.upper()}`", *rest) for name, *rest in list_settings()]
    return (
        "## Settings of the service\n\nVariables of the environment; `python -m rootstock.service "
        f"--help` prints them.\n\n{make_table(['variable', 'default', 'meaning'], rows)}\n"
    )


def list_settings() -> Iterator[tuple[str, str, str]]:
    """Yield name, default and meaning of each setting."""
    for name, field in Settings.model_fields.items():
        if field.default is PydanticUndefined:
            default = "by the machine"
        elif field.default in (None, ""):
            default = ""
        else:
            default = f"`{field.default}`"
        yield name, default, field.description or ""
