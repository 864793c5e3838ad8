"""The page of the Python API, from signatures and docstrings."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import rootstock
from rootstock import client
from rootstock.client import Client, ServiceError
from tools.docs.markdown import MADE, make_block

MAIN = ("train", "load", "Model")
CLIENT = (Client, ServiceError)
CONSTRUCTED = ("rootstock.Predictor", "rootstock.Paths", "rootstock.client.Client")
"""Classes that a user calls; the others come from functions."""
LINE_CHARACTERS = 88

INTRODUCTION = f"""# Python API

{MADE}
[Python](../guides/python.md) shows how to use these names. Other names may change at any time.

"""


def make_python_page() -> str:
    """Return the page: the functions, the classes, and the client of the service."""
    others = [name for name in rootstock.__all__ if name not in MAIN]
    parts = [INTRODUCTION]
    parts += [_section(f"rootstock.{name}", getattr(rootstock, name)) for name in (*MAIN, *others)]
    parts += [_section(f"{client.__name__}.{kind.__name__}", kind) for kind in CLIENT]
    return "".join(parts)


def _section(name: str, thing: Any) -> str:
    if not inspect.isclass(thing):
        return f"## {name}\n\n{_described(name, thing)}"
    parts = [f"## {name}\n\n"]
    if name in CONSTRUCTED:
        parts.append(make_block(f"{name}{_signature(thing)}", "python") + "\n")
    parts.append(_text(thing))
    for member, kind in _members(thing):
        if isinstance(kind, property) or hasattr(kind, "attrname"):
            parts.append(f"### {thing.__name__}.{member}\n\n{_text(kind)}")
        else:
            function = kind.__func__ if isinstance(kind, classmethod | staticmethod) else kind
            text = _described(f"{thing.__name__}.{member}", function)
            parts.append(f"### {thing.__name__}.{member}\n\n{text}")
    return "".join(parts)


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    for name, member in vars(kind).items():
        text = getattr(member, "__doc__", None)
        callable_ = inspect.isfunction(member) or isinstance(member, classmethod | staticmethod)
        if name.startswith("_") or not text:
            continue
        if callable_ or isinstance(member, property) or hasattr(member, "attrname"):
            yield name, member


def _described(name: str, function: Any) -> str:
    return f"{make_block(f'{name}{_signature(function)}', 'python')}\n{_text(function)}"


def _signature(thing: Any) -> str:
    """Return the parameters as they are written in the code; one per line if they are many."""
    parameters = inspect.signature(thing).parameters.values()
    parts, kind = [], None
    for one in parameters:
        if one.name in ("self", "cls"):
            continue
        if one.kind is one.KEYWORD_ONLY and kind is not one.KEYWORD_ONLY:
            parts.append("*")
        kind = one.kind
        parts.append(_parameter(one))
    answer = _annotation(inspect.signature(thing).return_annotation)
    result = f" -> {answer}" if answer and not inspect.isclass(thing) else ""
    line = f"({', '.join(parts)}){result}"
    if len(line) <= LINE_CHARACTERS:
        return line
    return "(\n" + "".join(f"    {part},\n" for part in parts) + f"){result}"


def _parameter(one: inspect.Parameter) -> str:
    star = "*" if one.kind is one.VAR_POSITIONAL else "**" if one.kind is one.VAR_KEYWORD else ""
    annotation = _annotation(one.annotation)
    text = f"{star}{one.name}: {annotation}" if annotation else f"{star}{one.name}"
    if one.default is one.empty:
        return text
    default = "..." if hasattr(one.default, "__dict__") else repr(one.default)
    return f"{text} = {default}"


def _annotation(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _text(thing: Any) -> str:
    """Return the docstring: ``names`` in it are code, sections become lists."""
    text = (inspect.getdoc(thing) or "").replace("``", "`")
    text = re.sub(r"\n*^(Args|Raises):\n", r"\n\n\1:\n\n", text, flags=re.MULTILINE)
    text = re.sub(r"^    (\w+(?:, \w+)*): ", r"- `\1`: ", text, flags=re.MULTILINE)
    text = re.sub(r"^ {8}", "    ", text, flags=re.MULTILINE)
    return re.sub(r"(- .*(?:\n    .*)*)\n(?=[^- \n])", r"\1\n\n", text) + "\n\n"
