"""Apply corrections to the targets of an index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rootstock.data.entry import count, shorten
from rootstock.data.label_corrections import FILE_NAME, REMOVE, Correction, conflicts, current
from rootstock.data.target_rules import TargetRules
from rootstock.errors import DataError
from rootstock.system.escape import escape_terminal, list_names


class Corrected(NamedTuple):
    """Targets after the corrections; None for an image that was removed."""

    texts: list[str | None]
    warnings: list[str]


def apply_corrections(
    corrections: Sequence[Correction],
    sha256s: Sequence[str],
    paths: Sequence[str],
    texts: Sequence[str],
    rules: TargetRules,
) -> Corrected:
    """Return the targets ``texts`` of these images with the corrections in force.

    A correction applies to all files with the same bytes.
    Raises:
        DataError: a correction is not a target of this task.
    """
    if not corrections:
        return Corrected(list(texts), [])
    in_force = current(corrections)
    corrected: list[str | None] = []
    for sha256, path, text in zip(sha256s, paths, texts, strict=True):
        row = in_force.get(sha256)
        corrected.append(_correct(row, path, text, rules) if row else text)
    return Corrected(corrected, list(_warn(corrections, sha256s, paths, texts, corrected, rules)))


def check_corrections(corrections: Sequence[Correction], rules: TargetRules) -> None:
    """Refuse corrections in force that are not valid targets, before any image is read.

    Raises:
        DataError: names the image and the label.
    """
    for sha256, row in current(corrections).items():
        _correct(row, f"the image {sha256[:12]}", "", rules)


def _correct(row: Correction, image: str, text: str, rules: TargetRules) -> str | None:
    if row.new == REMOVE:
        return None
    try:
        return rules.correct(text, row.new)
    except DataError as error:
        raise DataError(
            f"{FILE_NAME} gives {escape_terminal(image)} the label {row.new!r}: {error.message}",
            hint=f"{error.hint}; a later row with the right label replaces it",
        ) from None


def _warn(
    corrections: Sequence[Correction],
    sha256s: Sequence[str],
    paths: Sequence[str],
    texts: Sequence[str],
    corrected: Sequence[str | None],
    rules: TargetRules,
) -> Iterator[str]:
    kept = [text for text in corrected if text is not None]
    known = set(rules.read_names(texts))
    if new := [name for name in rules.read_names(kept) if name not in known]:
        yield f"new names that only {FILE_NAME} has: {list_names(new)}"
    path_of = dict(zip(sha256s, paths, strict=True))
    strangers = current(corrections).keys() - path_of.keys()
    if strangers:
        yield (
            f"{count(len(strangers), 'image')} of {FILE_NAME} are not usable images of the data, "
            f"such as {min(strangers)[:12]}"
        )
    open_ones = [one for one in conflicts(corrections) if one.later.sha256 in path_of]
    if open_ones:
        described = [
            f"{path_of[later.sha256]} ({earlier.new} by {earlier.who}, {later.new} by {later.who})"
            for earlier, later in open_ones
        ]
        yield (
            f"{count(len(open_ones), 'image')} have different labels from two people in "
            f"{FILE_NAME} (the later one is used): {shorten(described, most=3)}"
        )
