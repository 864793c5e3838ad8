"""Images that seem to belong together: frames of a scene, turned copies, scans of one patient.

If the splits divide such groups, the test contains images much like training images. File names
suggest groups, and the features show whether to believe them. Without names, images that are close
to each other form a group.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from rootstock.data.groups import join_keys, suggest_groups
from rootstock.data.manifest import ImageRow
from rootstock.heads.linear import PROBE_L2
from rootstock.review.doubts import burst_border, directions_of
from rootstock.review.record import SuspectedGroups
from rootstock.tasks.dataset import read_targets
from rootstock.tasks.task import Task

MIN_LIFT = 0.2
"""How much more often than by chance the nearest image of a class must be in the same group."""
MIN_CLOSE_SHARE = 0.2
"""Share of the images in groups by closeness above which they are a finding."""
NEIGHBOURS = 8
BLOCK_ROWS = 1024


def find_groups(
    rows: Sequence[ImageRow], features: np.ndarray
) -> tuple[SuspectedGroups, list[str]] | None:
    """Return the groups that seem to belong together, with the name of each row's group.

    ``features`` [N,C] belong to the rows. A row without a group has an empty name. The result is
    None if there are no groups, or all of them are in one split.
    """
    strata = [row.stratum for row in rows]
    nearest, close = _neighbours(rows, features)
    best: tuple[float, str, list[str]] | None = None
    for pattern, names in suggest_groups([row.path for row in rows], strata):
        lift = _lift(names, strata, nearest)
        if lift >= MIN_LIFT and (best is None or lift > best[0]):
            best = (lift, pattern, names)
    if best is None:
        names = _close_groups(nearest, close)
        if sum(map(bool, names)) < MIN_CLOSE_SHARE * len(rows):
            return None
        best = (1.0, "", names)
    _, pattern, names = best
    members: dict[str, list[ImageRow]] = defaultdict(list)
    for row, name in zip(rows, names, strict=True):
        if name:
            members[name].append(row)
    several = [group for group in members.values() if len(group) > 1]
    divided = [group for group in several if len({row.split for row in group}) > 1]
    if not divided:
        return None
    example = max(divided, key=len)
    other = next(row for row in example if row.split != example[0].split)
    suspected = SuspectedGroups(
        pattern=pattern,
        n_groups=len(several),
        n_divided=len(divided),
        largest=max(map(len, several)),
        example=(example[0].path, other.path),
    )
    return suspected, names


def measure_groups(
    task: Task,
    rows: Sequence[ImageRow],
    features: np.ndarray,
    names: Sequence[str],
    *,
    folds: int,
    seed: int,
) -> tuple[float, float] | None:
    """Return a head's score when folds divide the groups, and when they keep them whole.

    Test images are not used. None if fewer than two strata have two groups.
    """
    known = [i for i, row in enumerate(rows) if row.split != "test"]
    whole = join_keys(
        [
            [("group", rows[i].group) for i in known],
            [("name", names[i]) if names[i] else ("row", i) for i in known],
        ]
    )
    chosen = [rows[i] for i in known]
    targets = read_targets(task, chosen, task.read_names([row.target for row in chosen]))
    joined = dataclasses.replace(targets, groups=np.array(whole, np.int64))
    used = joined.foldable()
    if len(np.unique(targets.strata[used])) < 2:
        return None
    divided, kept = (
        task.head().probe(
            features[known][used], some.take(used), folds=folds, l2=PROBE_L2, seed=seed
        )[0]
        for some in (targets, joined)
    )
    return divided, kept


def _neighbours(rows: Sequence[ImageRow], features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest rows of the same stratum int64[N,8], and which of them are close."""
    directions = directions_of(features)
    _, strata = np.unique([row.stratum for row in rows], return_inverse=True)
    border = burst_border(directions, strata)
    nearest = np.tile(np.arange(len(rows))[:, None], NEIGHBOURS)
    close = np.zeros(nearest.shape, bool)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        count = min(NEIGHBOURS, len(members) - 1)
        for start in range(0, len(members), BLOCK_ROWS):
            part = members[start : start + BLOCK_ROWS]
            cosine = directions[part] @ directions[members].T
            cosine[np.arange(len(part)), np.arange(start, start + len(part))] = -2.0
            order = np.argsort(-cosine, axis=1, kind="stable")[:, :count]
            nearest[part, :count] = members[order]
            close[part, :count] = np.take_along_axis(cosine, order, axis=1) >= border
    return nearest, close


def _lift(names: Sequence[str], strata: Sequence[str], nearest: np.ndarray) -> float:
    """Return how much more often than by chance the nearest image is of the same group."""
    sizes, totals = Counter(zip(strata, names, strict=True)), Counter(strata)
    grouped = [
        i
        for i, name in enumerate(names)
        if name and sizes[strata[i], name] > 1 and nearest[i, 0] != i
    ]
    if not grouped:
        return 0.0
    same = np.mean([names[nearest[i, 0]] == names[i] for i in grouped])
    chance = np.mean([(sizes[strata[i], names[i]] - 1) / (totals[strata[i]] - 1) for i in grouped])
    return float(same - chance)


def _close_groups(nearest: np.ndarray, close: np.ndarray) -> list[str]:
    """Return the core of each row that has close neighbours; only cores have links."""
    neighbours: dict[int, set[int]] = defaultdict(set)
    for row, column in zip(*np.nonzero(close), strict=True):
        other = int(nearest[row, column])
        neighbours[int(row)].add(other)
        neighbours[other].add(int(row))
    names = [""] * len(nearest)
    for row in sorted(neighbours, key=lambda row: (-len(neighbours[row]), row)):
        free = [other for other in sorted(neighbours[row]) if not names[other]]
        if not names[row] and free:
            for member in (row, *free):
                names[member] = str(row)
    return names
