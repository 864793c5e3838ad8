"""A report as one HTML file that contains its pictures and works from any location.

Reads the Markdown that Rootstock writes: headings, paragraphs, lists, tables, pictures, bold, and
code. Everything else is shown as text; links and HTML in the source are not kept.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from rootstock.system.escape import escape_html

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color:#1b1b1b;background:#fff}table{border-collapse:collapse;margin:1rem 0}"
    "td,th{border:1px solid #ccc;padding:.25rem .6rem;text-align:left}img{max-width:100%}"
    "code{background:#f2f2f2;padding:0 .2rem}"
)
_INLINE = re.compile(
    r"\\(?P<char>[\W_])|(?P<fence>`+) ?(?P<code>.+?) ?(?P=fence)|\*\*(?P<bold>.+?)\*\*"
)
_PICTURE = re.compile(r"!\[(?P<text>.*)\]\((?P<path>[^()\s]+)\)")


def render_html(markdown: str, folder: Path) -> str:
    """Return a page. Pictures are read from ``folder``; a missing one is left out."""
    lines = markdown.splitlines()
    title = next((line.lstrip("# ") for line in lines if line.startswith("#")), "Report")
    blocks = (
        "\n".join(_render_block(kind, list(group), folder)) for kind, group in groupby(lines, _kind)
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{_inline(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(filter(None, blocks))
        + "\n</body></html>\n"
    )


def _kind(line: str) -> str:
    if not line.strip():
        return ""
    if line.startswith("|"):
        return "table"
    if line.startswith("- "):
        return "list"
    if line.startswith("#"):
        return "heading"
    return "picture" if _PICTURE.fullmatch(line.strip()) else "text"


def _render_block(kind: str, lines: list[str], folder: Path) -> Iterator[str]:
    if kind == "heading":
        for line in lines:
            level = min(6, len(line) - len(line.lstrip("#")))
            yield f"<h{level}>{_inline(line.lstrip('# '))}</h{level}>"
    elif kind == "list":
        yield "<ul>" + "".join(f"<li>{_inline(line[2:])}</li>" for line in lines) + "</ul>"
    elif kind == "table":
        yield "<table>" + "".join(_render_rows(lines)) + "</table>"
    elif kind == "picture":
        yield from (_render_picture(line.strip(), folder) for line in lines)
    elif kind == "text":
        yield f"<p>{_inline(' '.join(lines))}</p>"


def _render_rows(lines: list[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        if all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            continue
        tag = "td" if number else "th"
        yield "<tr>" + "".join(f"<{tag}>{_inline(cell)}</{tag}>" for cell in cells) + "</tr>\n"


def _render_picture(line: str, folder: Path) -> str:
    match = _PICTURE.fullmatch(line)
    path = folder / match["path"] if match else folder
    if not match or not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<p><img alt="{_text(match["text"])}" src="data:image/png;base64,{data}"></p>'


def _inline(text: str) -> str:
    parts, end = [], 0
    for match in _INLINE.finditer(text):
        parts.append(_text(text[end : match.start()]))
        end = match.end()
        if match["char"]:
            parts.append(_text(match["char"]))
        elif match["code"]:
            code = match["code"].replace("\\|", "|")  # a table cell escapes it
            parts.append(f"<code>{escape_html(code)}</code>")
        else:
            parts.append(f"<b>{_inline(match['bold'])}</b>")
    return "".join([*parts, _text(text[end:])])


def _text(text: str) -> str:
    """Return text as HTML, with the Markdown's entities resolved."""
    return escape_html(html.unescape(text))
