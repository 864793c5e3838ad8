"""Pieces of Markdown: tables, cells and quotations."""

from collections.abc import Iterable, Sequence

MADE = "This page is made from the code when the site is built.\n"


def make_cell(text: object) -> str:
    """Return ``text`` in one line that is safe in a table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def make_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; a `|` in a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(map(make_cell, line)) + " |\n" for line in lines)


def make_block(text: str, language: str = "") -> str:
    """Return ``text`` as a block of code."""
    return f"```{language}\n{text.strip()}\n```\n"
