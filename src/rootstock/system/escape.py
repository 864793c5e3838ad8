"""Escape text from outside, with one function for each target format.

Labels, file names and file contents may contain anything: table borders, HTML, links, line breaks,
or sequences that control a terminal.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

_MARKUP = re.compile(r"[\\`*\[\]|~$]")
_EDGE_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
_ENTITY = re.compile(r"&(?=#?\w+;)")


class Markdown(str):
    """Text that is already Markdown: `escape_markdown` does not change it."""

    __slots__ = ()


def escape_terminal(text: object) -> str:
    """Return one line: invisible characters are written as escapes, such as ``\\x1b``."""
    value = str(text)
    if value.isprintable():
        return value
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in value)


def escape_lines(text: str) -> str:
    """Do the same for text of several lines, such as an error with its hint."""
    return "\n".join(map(escape_terminal, text.split("\n")))


def list_names(names: Iterable[object]) -> str:
    """Return names on one line, for an error or a warning."""
    return ", ".join(map(escape_terminal, names))


escape_log = escape_terminal
"""A log record is one line, and may be read in a terminal."""


def escape_html(text: object) -> str:
    """Return text for an HTML page, inside an element or a quoted attribute."""
    return html.escape(escape_terminal(text))


def escape_markdown(text: object) -> str:
    """Return inline Markdown that shows ``text``, also in the cell of a table.

    Markup is escaped and HTML becomes entities; links and images become plain text.
    """
    if isinstance(text, Markdown):
        return text
    value = _MARKUP.sub(r"\\\g<0>", escape_terminal(text))
    value = _ENTITY.sub("&amp;", _EDGE_UNDERSCORE.sub(r"\\_", value))
    return value.replace("<", "&lt;").replace(">", "&gt;")


def code_span(text: object) -> Markdown:
    """Return Markdown that shows ``text`` as code, also in the cell of a table."""
    value = escape_terminal(text).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", value)), default=0)
    fence = "`" * (longest + 1)
    blank = " " if longest or not value.strip() else ""
    return Markdown(f"{fence}{blank}{value}{blank}{fence}")


def markdown_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table; each cell is escaped unless it is `Markdown`."""
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(map(escape_markdown, cells))} |" for cells in lines]
