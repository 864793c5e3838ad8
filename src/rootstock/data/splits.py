"""Train, val and test: leak-free, stratified, and kept when images are added.

Each stratum (such as a class) gets its share of images as exactly as whole groups allow. Which
groups fall where is decided by a number that each draws from its content and the seed. An image
that was in the last index keeps its split, so adding images moves no old one, and copies of an old
image join it. If a stratum has no images in a split, it gives one of its new groups. A stratum
never leaves training: one of a single group is trained on, and not tested.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rootstock.data.iterative import deal_out

if TYPE_CHECKING:
    from rootstock.data.manifest import Manifest

SPLITS = ("train", "val", "test")


def recall_splits(
    previous: Manifest | None,
    images: Sequence[tuple[str, str]],
    groups: np.ndarray,
    *,
    given_splits: tuple[str, ...],
    drawn_by: str,
) -> list[str | None]:
    """Return the split that each image had in the ``previous`` index; None for a new one.

    ``images`` are path and SHA-256: an image that was moved is known by its content. All are new
    if the splits were drawn by other settings. If the settings are unknown, those of a group
    (``groups`` int64[N]) that was divided are new.
    """
    if (
        previous is None
        or previous.given_splits != given_splits
        or previous.drawn_by not in ("", drawn_by)
    ):
        return [None] * len(images)
    of_file = {(row.path, row.sha256): row.split for row in previous.images if row.split}
    of_content = {sha256: split for (_, sha256), split in of_file.items()}
    splits = [of_file.get(image) or of_content.get(image[1]) for image in images]
    if previous.drawn_by:
        return splits
    numbers = groups.tolist()
    known = {(group, split) for group, split in zip(numbers, splits, strict=True) if split}
    homes = Counter(group for group, _ in known)
    return [
        split if homes[group] == 1 else None for group, split in zip(numbers, splits, strict=True)
    ]


def assign_splits(
    groups: np.ndarray,
    strata: Sequence[str],
    given_splits: Sequence[str | None],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    old_splits: Sequence[str | None] = (),
    balance: Sequence[tuple[str, ...]] = (),
) -> list[str]:
    """Return the split of each image: ``train``, ``val`` or ``test``.

    ``balance``: the labels of each image, if there may be several; their shares are kept then.

    Images with a given split keep it. A split that is given nowhere is split off from those of
    ``train`` and those without one. ``groups`` int64[N] are duplicate groups; one that has a
    member in a given val or test split stays out of the draw. ``old_splits`` are those of
    `recall_splits`; old images whose groups are joined by a new one stay where they are.
    """
    splits = [name or "train" for name in given_splits]
    fractions = {"test": test_fraction, "val": val_fraction}
    fractions = {n: share for n, share in fractions.items() if n not in given_splits and share > 0}
    # Python's own numbers: those of numpy take several times as long one by one.
    numbers: list[int] = groups.tolist()
    fixed = {group for group, split in zip(numbers, splits, strict=True) if split != "train"}
    pool = [i for i, group in enumerate(numbers) if group not in fixed]
    old = {
        i: split for i in pool if old_splits and (split := old_splits[i]) in ("train", *fractions)
    }
    homes: dict[int, str] = {}
    for i, split in old.items():
        homes[numbers[i]] = max(split, homes.get(numbers[i], "train"), key=SPLITS.index)
    drawn = {group: _draw(group, seed) for group in set(numbers) - fixed - homes.keys()}
    for i in pool:
        splits[i] = old.get(i) or homes.get(numbers[i], "")
    if any(len(labels) > 1 for labels in balance):
        shared = deal_out(drawn, fractions, splits, pool, numbers, balance)
    else:
        shared = _share_out(drawn, fractions, splits, pool, numbers, strata)
    for i in pool:
        splits[i] = splits[i] or shared[numbers[i]]
    # A group of several strata that is moved may be the last of one of them: train comes again.
    for name in ("train", *fractions, "train"):
        _fill_empty_strata(name, splits, pool, numbers, strata, drawn)
    return splits


def _draw(group: int, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _share_out(
    drawn: dict[int, float],
    fractions: dict[str, float],
    splits: Sequence[str],
    pool: Sequence[int],
    groups: Sequence[int],
    strata: Sequence[str],
) -> dict[int, str]:
    """Return the split of each group in ``drawn``: the first whose shares it brings nearer.

    Images of the ``pool`` that have a split already count.
    """
    totals = Counter(strata[i] for i in pool)
    placed = Counter((splits[i], strata[i]) for i in pool if splits[i])
    missing = {
        (name, stratum): share * total - placed[name, stratum]
        for name, share in fractions.items()
        for stratum, total in totals.items()
    }
    members: dict[int, list[str]] = {group: [] for group in drawn}
    for i in pool:
        if groups[i] in members:
            members[groups[i]].append(strata[i])
    shared = {}
    for group in sorted(drawn, key=lambda group: (drawn[group], group)):
        shared[group] = "train"
        # A `Counter` takes long to make, and most groups are one image.
        counts = {members[group][0]: 1} if len(members[group]) == 1 else Counter(members[group])
        for name in fractions:
            # How much the squared distance from the shares shrinks.
            if sum(n * (2 * missing[name, s] - n) for s, n in counts.items()) > 1e-9:
                shared[group] = name
                for stratum, count in counts.items():
                    missing[name, stratum] -= count
                break
    return shared


def _fill_empty_strata(
    name: str,
    splits: list[str],
    pool: list[int],
    groups: Sequence[int],
    strata: Sequence[str],
    drawn: dict[int, float],
) -> None:
    """Give each stratum without images in ``name`` one new group, of the split that has most.

    An old group is moved only if the stratum would have nothing to train on, because images of it
    were deleted.
    """
    present = {stratum for stratum, split in zip(strata, splits, strict=True) if split == name}
    for stratum in sorted({strata[i] for i in pool} - present):
        homes = {groups[i]: splits[i] for i in pool if strata[i] == stratum}
        donor, count = Counter(homes.values()).most_common(1)[0]
        if count < 2 and name != "train":
            continue
        movable = [group for group, split in homes.items() if split == donor]
        new = [group for group in movable if group in drawn]
        if not new and name != "train":
            continue
        moved = min(new or movable, key=lambda group: (drawn.get(group, 0.0), group))
        for i in pool:
            if groups[i] == moved:
                splits[i] = name
