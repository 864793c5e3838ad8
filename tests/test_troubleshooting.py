"""Each message that the page of troubleshooting quotes is one that the code gives."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/reference/troubleshooting.md").read_text(encoding="utf-8")
MESSAGES = re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)
VALUE = "…"


def read_texts(path):
    """Yield the texts in a module; what is filled in is `…`."""
    inner = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            inner |= set(map(id, node.values))
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else VALUE for part in node.values
            )
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner
        ):
            yield node.value


@pytest.fixture(scope="module")
def texts():
    return [text for path in (ROOT / "src").rglob("*.py") for text in read_texts(path)]


@pytest.mark.parametrize("message", MESSAGES)
def test_the_code_gives_the_message(message, texts):
    parts = [re.escape(part) for part in message.split(VALUE)]
    pattern = re.compile(".*".join(parts), re.DOTALL)
    assert any(pattern.search(text) for text in texts), f"no message reads: {message}"


def test_the_page_has_the_most_frequent_messages():
    assert len(MESSAGES) >= 30
    assert len(MESSAGES) == len(set(MESSAGES))
