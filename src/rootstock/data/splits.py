"""Train, val and test: leak-free, stratified, and decided by each image's content alone.

A duplicate group draws a number in [0, 1) from its content and the seed, and falls below the test
or val border or above both. Strata (such as classes) get their shares up to chance, groups stay
whole, and adding images leaves the old ones where they are. The price is that shares are met on
average rather than exactly. If chance leaves a stratum without images in a split, a group is moved
there from the split where it has most: only such small strata can see an image move when more are
added. A stratum never leaves training: one of a single group is trained on, and not tested.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

SPLITS = ("train", "val", "test")


def assign_splits(
    groups: np.ndarray,
    strata: Sequence[str],
    given_splits: Sequence[str | None],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> list[str]:
    """The split of each image: ``train``, ``val`` or ``test``.

    Images with a given split keep it. A split that is given nowhere is split off from those of
    ``train`` and those without one. ``groups`` int64[N] are duplicate groups; one that has a
    member in a given val or test split stays out of the draw.
    """
    splits = [name or "train" for name in given_splits]
    fractions = {"test": test_fraction, "val": val_fraction}
    fractions = {n: share for n, share in fractions.items() if n not in given_splits and share > 0}
    # Python's own numbers: those of numpy take several times as long one by one.
    numbers: list[int] = groups.tolist()
    fixed = {group for group, split in zip(numbers, splits, strict=True) if split != "train"}
    pool = [i for i, group in enumerate(numbers) if group not in fixed]
    drawn = {group: _draw(group, seed) for group in set(numbers) - fixed}
    for i in pool:
        splits[i] = _fall(drawn[numbers[i]], fractions)
    # A group of several strata that is moved may be the last of one of them: train comes again.
    for name in ("train", *fractions, "train"):
        _fill_empty_strata(name, splits, pool, numbers, strata, drawn)
    return splits


def _draw(group: int, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _fall(number: float, fractions: dict[str, float]) -> str:
    border = 0.0
    for name, share in fractions.items():
        border += share
        if number < border:
            return name
    return "train"


def _fill_empty_strata(
    name: str,
    splits: list[str],
    pool: list[int],
    groups: Sequence[int],
    strata: Sequence[str],
    drawn: dict[int, float],
) -> None:
    """Give each stratum without images in ``name`` one group of the split where it has most."""
    present = {stratum for stratum, split in zip(strata, splits, strict=True) if split == name}
    for stratum in sorted({strata[i] for i in pool} - present):
        homes = {groups[i]: splits[i] for i in pool if strata[i] == stratum}
        donor, count = Counter(homes.values()).most_common(1)[0]
        if count < 2 and name != "train":
            continue
        movable = [group for group, split in homes.items() if split == donor]
        moved = min(movable, key=lambda group: (drawn[group], group))
        for i in pool:
            if groups[i] == moved:
                splits[i] = name
