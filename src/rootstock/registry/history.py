"""The history of a model's champions, read from the log of its registry.

A change of the champion is one appended record that names the change it builds on (``after``). In
the order of the numbers, a record counts if it builds on the last one that counts. If two records
build on the same one, only the earlier counts, for every reader: the log works as a
compare-and-swap, although it only needs an append that gives numbers in order.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rootstock.ports.registry import Record

SETTLED = "settled"
"""The fact on a record whose aliases have been set."""


@dataclass(frozen=True)
class Change:
    """One change of the champion.

    ``kind``: gate, promotion, rollback, or adopted (the alias was moved by other means);
    ``at``: Unix seconds by the registry's clock; ``after``: number of the previous change;
    ``claim``: a random text of its author, by which a repeated request is recognised.
    """

    number: int
    version: str
    kind: str
    why: str
    by: str
    at: float
    after: int
    claim: str
    settled: bool

    def facts(self) -> dict[str, str]:
        """Return the facts that are appended to the log."""
        names = ("kind", "why", "by", "after", "claim")
        return {name: str(getattr(self, name)) for name in names}


def propose(version: str, *, kind: str, why: str, by: str, after: int) -> Change:
    """Return a change that is not in the log yet."""
    return Change(0, version, kind, why, by, 0.0, after, uuid.uuid4().hex, settled=False)


def read_changes(records: Sequence[Record]) -> list[Change]:
    """Return the changes that count, oldest first."""
    known = {record.number for record in records}
    counting: list[Change] = []
    for change in _parse(records):
        last = counting[-1].number if counting else 0
        # A missing record was deleted by hand; changes that build on it still count.
        if change.after == last or (change.after > last and change.after not in known):
            counting.append(change)
    return counting


def find_rollback(changes: Sequence[Change]) -> list[str]:
    """Return the versions that rollbacks would restore, nearest first.

    A rollback undoes a promotion, so a second rollback goes further back instead of returning.
    """
    stack: list[str] = []
    for change in changes:
        if change.kind == "rollback" and change.version in stack[:-1]:
            below = max(i for i, version in enumerate(stack[:-1]) if version == change.version)
            stack = stack[: below + 1]
        elif not stack or stack[-1] != change.version:
            stack.append(change.version)
    return stack[-2::-1]


def _parse(records: Sequence[Record]) -> Iterator[Change]:
    for record in sorted(records, key=lambda one: one.number):
        # Any other record in the log is not a change of the champion.
        if not record.facts.get("after", "").isdecimal():
            continue
        yield Change(
            number=record.number,
            version=record.version,
            kind=record.facts.get("kind", ""),
            why=record.facts.get("why", ""),
            by=record.facts.get("by", ""),
            at=record.at,
            after=int(record.facts["after"]),
            claim=record.facts.get("claim", ""),
            settled=SETTLED in record.facts,
        )
