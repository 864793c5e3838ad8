"""Iterative stratification: splits that keep the share of each label, if images have several.

Sechidis, Tsoumakas and Vlahavas 2011, "On the stratification of multi-label data", applied to
whole groups of images: the rarest label is dealt first, to the split that lacks most of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence


def deal_out(
    drawn: Mapping[int, float],
    fractions: Mapping[str, float],
    splits: Sequence[str],
    pool: Sequence[int],
    groups: Sequence[int],
    labels: Sequence[tuple[str, ...]],
) -> dict[int, str]:
    """Return the split of each group in ``drawn``, which sorts the groups of one label.

    ``fractions`` are the shares of the splits other than `train`. ``splits``, ``groups`` and
    ``labels`` are those of all images; only the ``pool`` is divided, but all images count.
    """
    shares = {"train": 1.0 - sum(fractions.values()), **fractions}
    totals = Counter(label for i in pool for label in labels[i])
    missing = {(name, label): s * n for name, s in shares.items() for label, n in totals.items()}
    room = {name: share * len(pool) for name, share in shares.items()}
    members: dict[int, list[int]] = {group: [] for group in drawn}
    for i in pool:
        if splits[i]:
            _place(splits[i], [i], labels, missing, room)
        else:
            members[groups[i]].append(i)
    having: dict[str, list[int]] = {}
    for group in sorted(drawn, key=lambda group: (drawn[group], group)):
        for label in sorted({label for i in members[group] for label in labels[i]}):
            having.setdefault(label, []).append(group)
    left = Counter(label for rows in members.values() for i in rows for label in labels[i])
    shared: dict[int, str] = {}
    while left := +left:
        rarest = min(left, key=lambda label: (left[label], label))
        for group in having[rarest]:
            if group in shared:
                continue
            name = max(shares, key=lambda name: (missing[name, rarest], room[name]))
            shared[group] = name
            _place(name, members[group], labels, missing, room)
            left.subtract(label for i in members[group] for label in labels[i])
    return shared


def _place(
    name: str,
    rows: Sequence[int],
    labels: Sequence[tuple[str, ...]],
    missing: dict[tuple[str, str], float],
    room: dict[str, float],
) -> None:
    for i in rows:
        # A given split that is not divided has no share.
        if name in room:
            room[name] -= 1
            for label in labels[i]:
                missing[name, label] -= 1
