"""Groups: images that belong together, such as the frames of a scene, and stay in one split.

Copies form a group. The setting `data.group` defines other groups by file names. They are not
guessed from the names, because numbers mean many things.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from rootstock.data.duplicates import group_duplicates
from rootstock.data.entry import Entry
from rootstock.data.inspect import Inspected
from rootstock.data.likeness import Likeness
from rootstock.data.limits import DecodeLimits
from rootstock.errors import DataError
from rootstock.system.escape import list_names

Duplicates = Literal["off", "exact", "near"]
T = TypeVar("T")

PATTERNS = MappingProxyType(
    {
        "original": r"^(.+?)(?:[_.](?:jpe?g|png|bmp|tiff?|webp))?\.rf\.[0-9a-zA-Z]+$"
        r"|^(.+?)[ _.-](?:aug|augmented|rot|rotated|flip|flipped|hflip|vflip|mirror|mirrored|crop"
        r"|copy|zoom|shift|noise|blur|bright)(?:[ _.-].*|\d.*)?$",
        "patient": r"(?:^|[/ _.-])((?:patient|subject|subj|case|person|volunteer|study|animal|pid)"
        r"[ _.-]?\d+)(?=[/ _.-]|$)",
        "folder": r"^(.+)/[^/]+$",
        "first_number": r"^((?:.*/)?[^/]*?\d+)(?=[ _.-])[^/]+$",
        "last_number": r"^((?:.*/)?[^/]*[^/ _.-])[ _.-]+\(?\d+\)?$",
    }
)
"""Named patterns of paths without the suffix; they capture the name of the group.

`original`: an image and its augmented copies; `first_number`, `last_number`: the name up to it.
"""
MIN_SCENE_IMAGES = 8
"""At least this many similar pictures that are most of a class count as one scene."""
MIN_GROUPED_SHARE = 0.5
"""Names suggest groups if at least this many images are in groups of two or more."""


class Together(NamedTuple):
    """Copies, ``pictures`` int64[N], and ``groups`` int64[N] that stay in one split.

    ``warnings`` are about copies that are divided between splits.
    """

    pictures: np.ndarray
    groups: np.ndarray
    warnings: list[str]


def group_images(
    base: Path,
    paths: Sequence[str],
    inspected: Sequence[Inspected],
    strata: Sequence[str],
    names: Sequence[str],
    *,
    duplicates: Duplicates,
    bits: int,
    limits: DecodeLimits,
) -> Together:
    """Find copies among usable images below ``base``, and join images that belong together.

    ``names`` come from `read_groups`; ``bits`` is as in `group_duplicates`.
    """
    contents = [image.sha256 for image in inspected]
    if duplicates == "off":
        contents = [hashlib.sha256(os.fsencode(path)).hexdigest() for path in paths]
    pictures = group_duplicates(
        contents,
        [image.thumb for image in inspected] if duplicates == "near" else [],
        bits=bits,
        strata=strata,
        verify=Likeness(
            [f"{base}/{path}" for path in paths],
            [min(image.width, image.height) for image in inspected],
            limits,
        ),
    )
    groups, warnings = join_groups(contents, pictures, strata, names)
    return Together(pictures, groups, warnings)


class NameGroups(NamedTuple):
    """The groups that a pattern gives: one per path, empty if the pattern does not match."""

    pattern: str
    names: list[str]


def name_groups(group: str | None, entries: Sequence[Entry]) -> list[str]:
    """Return the name of each image's group; empty for an image without a group.

    ``group`` is a column of the table, or a pattern of paths as in `read_groups`.
    Raises:
        DataError: there is no such column, and no path matches the pattern.
    """
    if group is not None and entries and group in entries[0].metadata:
        return [entry.metadata[group] for entry in entries]
    try:
        return read_groups(group, [entry.path for entry in entries])
    except DataError as error:
        if not (entries and entries[0].metadata):
            raise
        columns = list_names(entries[0].metadata)
        raise DataError(f"{error.message}; the columns are {columns}", hint=error.hint) from None


def read_groups(pattern: str | None, paths: Sequence[str]) -> list[str]:
    """Return the group of each path: the part that ``pattern`` captures, or an empty text.

    Raises:
        DataError: no path matches the pattern.
    """
    if pattern is None:
        return [""] * len(paths)
    expression = re.compile(PATTERNS.get(pattern, pattern), re.IGNORECASE)
    names = [_capture(expression, path) for path in paths]
    if paths and not any(names):
        raise DataError(
            f"data.group is {pattern!r}, but no file matches it (first file: {paths[0]})",
            hint=f"use one of {', '.join(PATTERNS)}, or a regular expression that captures the "
            "group's name in the path without its suffix",
        )
    return names


def _capture(expression: re.Pattern[str], path: str) -> str:
    match = expression.search(str(PurePosixPath(path).with_suffix("")))
    if not match:
        return ""
    return "/".join(part for part in match.groups() or (match[0],) if part)


def suggest_groups(paths: Sequence[str], strata: Sequence[str]) -> list[NameGroups]:
    """Return the patterns that form groups of two or more images within the strata.

    A pattern that puts a whole class into one group is ignored: such names only number the images.
    """
    suggestions: list[NameGroups] = []
    sizes = Counter(strata)
    for pattern in PATTERNS:
        expression = re.compile(PATTERNS[pattern], re.IGNORECASE)
        names = [_capture(expression, path) for path in paths]
        members = Counter(names)
        del members[""]
        grouped = sum(count for count in members.values() if count > 1)
        parts = Counter((stratum, name) for stratum, name in zip(strata, names, strict=True))
        large = sum(
            count
            for (stratum, name), count in parts.items()
            if name and count > 0.5 * sizes[stratum]
        )
        divides = grouped >= MIN_GROUPED_SHARE * len(paths) and large <= 0.5 * grouped
        if divides and not any(_same_groups(names, known.names) for known in suggestions):
            suggestions.append(NameGroups(pattern, names))
    return suggestions


def _same_groups(one: Sequence[str], other: Sequence[str]) -> bool:
    pairs = set(zip(one, other, strict=True))
    return len(pairs) == len(set(one)) == len(set(other))


def join_groups(
    sha256s: Sequence[str],
    pictures: np.ndarray,
    strata: Sequence[str],
    names: Sequence[str],
) -> tuple[np.ndarray, list[str]]:
    """Return group ids int64[N], and warnings about copies that do not form groups.

    A group joins files with equal bytes, copies (``pictures`` int64[N]) of one stratum, and images
    with the same group name. Pictures that are most of their class are one filmed scene, or parts
    on a belt, so they do not keep the class together. An id comes from the names, or from the
    content if there are none, so that a group keeps its id when images are added.
    """
    sizes = Counter(strata)
    parts: dict[tuple[int, str], list[int]] = defaultdict(list)
    for index, (picture, stratum) in enumerate(zip(pictures.tolist(), strata, strict=True)):
        parts[picture, stratum].append(index)
    scenes = {
        part
        for part, members in parts.items()
        if len({sha256s[i] for i in members}) >= MIN_SCENE_IMAGES
        and len(members) > 0.5 * sizes[part[1]]
    }
    keys: list[list[tuple[object, ...]]] = [
        [("bytes", sha) for sha in sha256s],
        [
            ("file", index) if part in scenes else ("picture", *part)
            for index, part in enumerate(zip(pictures.tolist(), strata, strict=True))
        ],
        [("name", name) if name else ("file", index) for index, name in enumerate(names)],
    ]
    roots = join_keys(keys)
    ids = [
        _number(name) if name else int(sha[:15], 16)
        for name, sha in zip(names, sha256s, strict=True)
    ]
    named = {root for root, name in zip(roots, names, strict=True) if name}
    smallest: dict[int, int] = {}
    for root, number, name in zip(roots, ids, names, strict=True):
        if bool(name) == (root in named):
            smallest[root] = min(number, smallest.get(root, number))
    warnings = [
        f"{len(parts[part])} of {sizes[part[1]]} images{_of(part[1])} are nearly the same picture; "
        "they are divided between splits anyway, so accuracy on them means little"
        for part in sorted(scenes, key=lambda part: part[1])
    ]
    return np.array([smallest[root] for root in roots], np.int64), warnings


def _of(stratum: str) -> str:
    return f" of {stratum}" if stratum else ""


def list_groups(rows: Sequence[T], key: Callable[[T], object]) -> list[list[T]]:
    """Return the rows of each key that at least two rows have."""
    members: dict[object, list[T]] = {}
    for row in rows:
        members.setdefault(key(row), []).append(row)
    return [group for group in members.values() if len(group) > 1]


def join_keys(columns: Sequence[Sequence[tuple[object, ...]]]) -> list[int]:
    """Return the smallest row number of each row's group: rows with an equal key are joined."""
    parent = list(range(len(columns[0])))

    def find(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for column in columns:
        first: dict[tuple[object, ...], int] = {}
        for row, key in enumerate(column):
            one, other = find(first.setdefault(key, row)), find(row)
            parent[max(one, other)] = min(one, other)
    return [find(row) for row in range(len(parent))]


def _number(name: str) -> int:
    return int(hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:15], 16)
