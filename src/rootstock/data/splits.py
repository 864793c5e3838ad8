"""Train, val and test splits without leaks, stratified, and stable when images are added.

Each stratum (such as a class) gets its share of images as exactly as whole groups allow. A number
drawn from the content of a group and the seed decides its split. An image of the last index keeps
its split, so adding images moves no old image, and a copy of an old image joins it. A stratum
without images in a split gives it one of its new groups. A stratum always keeps training images:
a stratum with a single group is trained on, and not tested.
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
    """Return the split of each image in the ``previous`` index; None for a new image.

    ``images`` are path and SHA-256: a moved image is recognised by its content. All images are new
    if the splits were drawn with other settings. If the settings are unknown, images of a divided
    group (``groups`` int64[N]) are new.
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

    ``balance``: the labels of each image, if there may be several; their shares are then kept.

    Images with a given split keep it. A split without given images is drawn from those of ``train``
    and those without a split. ``groups`` int64[N] are duplicate groups; a group with a member in a
    given val or test split is not drawn. ``old_splits`` come from `recall_splits`; old images keep
    their split even if a new one joins their groups.
    """
    splits = [name or "train" for name in given_splits]
    fractions = {"test": test_fraction, "val": val_fraction}
    fractions = {n: share for n, share in fractions.items() if n not in given_splits and share > 0}
    # Python numbers: numpy's are several times slower one at a time.
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
    # Moving a group of several strata may remove the last one of a stratum: check train again.
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
    """Return the split of each group in ``drawn``: the first one whose shares it improves.

    Images of the ``pool`` that already have a split count too.
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
        # Creating a `Counter` is slow, and most groups have one image.
        counts = {members[group][0]: 1} if len(members[group]) == 1 else Counter(members[group])
        for name in fractions:
            # How much the squared distance to the target shares shrinks.
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
    """Give each stratum without images in ``name`` one new group, from the split with the most.

    An old group moves only if the stratum would otherwise have no training images because its
    images were deleted.
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
