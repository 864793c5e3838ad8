"""The keys of params.yaml in words: default, meaning, and which values are allowed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

from pydantic import BaseModel

from rootstock.config.schema import Config

MAX_SHOWN_CHARACTERS = 80
"""Characters of a wrong value that a message shows."""
_KINDS = {"integer": "a whole number", "number": "a number", "string": "text", "null": "null"}


class Key(NamedTuple):
    """One key of params.yaml; ``default`` is the value as JSON and YAML represent it."""

    name: str
    default: Any
    allowed: str
    meaning: str
    choices: tuple[str, ...] = ()
    """Words that the key accepts, to suggest one for a misspelt value."""


@cache
def describe_keys() -> tuple[Key, ...]:
    """Return every key of params.yaml, in the order of the file."""
    tree = Config.model_json_schema()
    return tuple(_walk(Config, Config().model_dump(mode="json"), tree, tree, ""))


def show_value(value: object) -> str:
    """Return a value as params.yaml would show it, shortened to one line."""
    text = value if isinstance(value, str) else _write_start(value)
    text = " ".join(text[: 10 * MAX_SHOWN_CHARACTERS].split())
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"


def _write_start(value: object) -> str:
    """Return the start of ``value`` as JSON; the value may contain itself, or be very large."""
    text = ""
    with suppress(ArithmeticError, RecursionError, TypeError, ValueError):
        for part in json.JSONEncoder(ensure_ascii=False, default=str).iterencode(value):
            text += part
            if len(text) > MAX_SHOWN_CHARACTERS:
                return text
    return text or "a value too large to show"


def did_you_mean(word: str, known: tuple[str, ...]) -> str:
    """Return a suggestion for the end of a message; empty if no known word is close."""
    close = difflib.get_close_matches(word[:MAX_SHOWN_CHARACTERS], known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _walk(
    section: type[BaseModel],
    defaults: Mapping[str, Any],
    schema: Mapping[str, Any],
    tree: Mapping[str, Any],
    prefix: str,
) -> Iterator[Key]:
    for name, field in section.model_fields.items():
        kind, own = field.annotation, _resolve(schema["properties"][name], tree)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _walk(kind, defaults[name], own, tree, f"{prefix}{name}.")
        else:
            yield Key(
                f"{prefix}{name}",
                defaults[name],
                _allowed(own, tree),
                field.description or "",
                tuple(_choices(own, tree)),
            )


def _resolve(schema: Mapping[str, Any], tree: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        schema = tree["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def _allowed(schema: Mapping[str, Any], tree: Mapping[str, Any]) -> str:
    """Return the values that a JSON schema allows, in words."""
    schema = _resolve(schema, tree)
    branches = schema.get("anyOf", [schema])
    words = list(_choices(schema, tree))
    if words and all(_choices(one, tree) for one in branches):
        return " or ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)
    if "anyOf" in schema:
        return ", or ".join(_allowed(one, tree) for one in branches)
    kind = schema.get("type", "")
    if kind == "boolean":
        return "true or false"
    if kind == "array":
        if "prefixItems" in schema:
            return f"a list of {len(schema['prefixItems'])} numbers"
        least = schema.get("minItems", 0)
        return f"a list{f' of {least} or more' if least else ''}: {_allowed(schema['items'], tree)}"
    if kind == "object":
        return f"a section: {_allowed(schema['additionalProperties'], tree)} for each key"
    if "pattern" in schema:
        return f"text that matches {schema['pattern']}"
    if schema.get("format") == "path":
        return "a path"
    return " ".join([_KINDS[kind], _bounds(schema)]).strip()


def _bounds(schema: Mapping[str, Any]) -> str:
    parts = [
        f"{words} {schema[rule]:g}"
        if isinstance(schema[rule], float)
        else f"{words} {schema[rule]}"
        for rule, words in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("exclusiveMaximum", "below"),
        )
        if rule in schema
    ]
    if parts and parts[-1].startswith("from "):
        parts.append("on")
    return " and ".join(parts) if any(p.startswith("below") for p in parts) else " ".join(parts)


def _choices(schema: Mapping[str, Any], tree: Mapping[str, Any]) -> list[str]:
    """Return the words that a schema lists as its values."""
    schema = _resolve(schema, tree)
    own = [schema["const"]] if "const" in schema else schema.get("enum", [])
    return [*own, *(word for one in schema.get("anyOf", ()) for word in _choices(one, tree))]
