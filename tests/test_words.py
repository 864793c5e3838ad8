"""The text of the project is plain English: it has none of the habits in the list."""

import bisect
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
START = r"(?:\A|(?<=[.;:#-] ))"  # of a sentence
INSTEAD = {  # what to write instead of a pattern
    "if, when": r"\bwhere (?:(?:there|one) (?:is|are)|no|none|nothing)\b",
    "if": r"\bwhere (?:it|they) (?:is|are|has|have|can|does|do) (?:no|not|none|missing)\b",
    "shows, reports, says; distinguishes": r"\b(?:tells?|told|telling)\b",
    "only": r"\balone\b",
    "is not a": (
        r"(?<![tT]here )\b(?:is|are|was|were) no "
        r"(?!(?:longer|more|fewer|less|better|worse|larger|smaller|such)\b)\w+"
    ),
    "the actor's name, or nothing": (
        r"\b(?:nobody|somebody|whoever|whichever|meanwhile|wherever)\b"
    ),
    "next to, in addition to": r"\bbesides?\b",
    "its own ..., or nothing": (
        r"\bby (?:itself|themselves)\b|\bof (?:its|their|his|your|our) own\b"
    ),
    "is, is in": r"\b(?:stands|stood)\b(?! for)",
    "per": (
        r"\b(?:labels?|images|rows|requests|objects|files|models|values|minutes|hours|MB|bytes) "
        r"an? (?:second|minute|hour|day|image|class|line|row|request|model|file|step|epoch|split)\b"
    ),
    "is": r"\b(?:lies|lain)\b",
    "continues": r"\b(?:go|goes|going|went|gone) on\b",
    "this many, as long as": r"\bso (?:many|few|long)\b(?! that\b)",
    "a request that, a person who": START + r"Who [a-z]+s\b(?![^.]*\?)",
    "the sentence with its subject first": (
        START + r"Of (?:two|the|a|each|its|several|these|those|all|which|what|every)\b"
    ),
    "otherwise": r", else\b(?! if\b)",
    "again, the same, forever": (
        r"\b(?:anew|alike|for ever|forth|hence|thereof|therein|whereby|thus|lest)\b"
    ),
}
QUOTED = {
    "Makefile": "alone",  # the name of tests/interop/alone.txt
    "tests/interop/alone.txt": "alone",
    "tests/interop/conftest.py": "alone",
    "benchmarks/estimated_accuracy.py": "told",  # a key of its results
    "benchmarks/table_rows.py": "told",
    "tests/assess/test_build.py": "alone",  # from here on names in tests
    "tests/integrations/mlflow/test_registry.py": "nobody",
    "tests/integrations/mlflow/test_rest.py": "nobody, beside",
    "tests/integrations/mlflow/test_tracking.py": "is no database",
    "tests/integrations/ray/test_nodes.py": "alone",
    "tests/registry/test_champion.py": "meanwhile",
    "tests/tasks/test_recognise.py": "told",
    "tests/tasks/test_regression.py": "told",
    "tests/training/test_distributed.py": "alone",
    "tests/workflow/test_index.py": "alone, beside",
}
"""Words that a file may contain, because they are names or quotations."""
SUFFIXES = {".py", ".md", ".html", ".js", ".css", ".yaml", ".yml", ".toml", ".txt"}
NAMES = {"Makefile", "Dockerfile", "Caddyfile", "rootstock", "with-secrets", "make-secrets"}


def list_text_files() -> list[str]:
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    here = Path(__file__).relative_to(ROOT).as_posix()
    return [
        name
        for name in names
        if (Path(name).suffix in SUFFIXES or Path(name).name in NAMES) and name != here
    ]


def read_passages(name: str, text: str) -> Iterator[list[tuple[int, str]]]:
    """Yield the passages of a file: lines that are read together, each with its number.

    In Python a passage is a run of comments or of joined strings. Any other file is one passage.
    """
    if not name.endswith(".py"):
        yield list(enumerate(text.split("\n"), 1))
        return
    passage: list[tuple[int, str]] = []
    kind = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.NL, tokenize.INDENT, tokenize.DEDENT) or token.string in (
            "(",
            ")",
        ):
            continue
        is_text = token.type in (
            tokenize.STRING,
            tokenize.COMMENT,
            getattr(tokenize, "FSTRING_MIDDLE", -1),
        )
        if passage and (not is_text or token.type != kind):
            yield passage
            passage = []
        if is_text:
            kind = token.type
            words = (
                token.string.lstrip("#")
                if kind == tokenize.COMMENT
                else token.string.strip("rbfRBF").strip("\"'")
            )
            passage += enumerate(words.split("\n"), token.start[0])
    if passage:
        yield passage


def find_habits(name: str, text: str) -> Iterator[tuple[int, str, str]]:
    """Yield the line, the words and what to write instead, for each habit in the text of a file."""
    for passage in read_passages(name, text):
        starts, joined = [], ""
        for _, line in passage:
            starts.append(len(joined))
            joined += line.strip() + " " * bool(line.strip())
        for instead, pattern in INSTEAD.items():
            for match in re.finditer(pattern, joined):
                yield (
                    passage[bisect.bisect(starts, match.start()) - 1][0],
                    match.group().strip(),
                    instead,
                )


def test_text_has_none_of_the_habits():
    hits = [
        f"{name}:{number}: '{words}': write: {instead}"
        for name in list_text_files()
        for number, words, instead in find_habits(name, (ROOT / name).read_text("utf-8"))
        if words not in QUOTED.get(name, "")
    ]
    assert not hits, "\n".join(hits)


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("The log tells how many.", "tells"),
        ("{url} is no address", "is no address"),
        ("None, where there is no file", "where there is"),
        ("Of two promotions exactly one is done.", "Of two"),
    ],
)
def test_a_habit_is_found_with_its_line(sentence, words):
    text = (
        f'"""Return nothing.\n\n{sentence}\n"""\nTEXT = (\n    "A start. "\n\n    "{sentence}"\n)\n'
    )
    assert [hit[:2] for hit in find_habits("a.py", text)] == [(3, words), (8, words)]


@pytest.mark.parametrize(
    "sentence",
    [
        "There is no image.",
        "It is no longer used.",
        "The folder where it is kept.",
        "if x:\n    y\nelse:\n    z",
    ],
)
def test_plain_english_is_not_a_habit(sentence):
    assert not list(find_habits("a.md", sentence))
