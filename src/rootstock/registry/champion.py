"""Promote and roll back champions, and keep the aliases consistent with the history.

The history (see `champions`) decides; the aliases follow it, because services read them. Each
change is first a record in the log, then the aliases, then a mark on the record. A process that
finds a record without the mark sets the aliases, because its writer may have died.
"""

from __future__ import annotations

import getpass
import os
import platform
import time

from rootstock.errors import ConflictError, NoModelError, TrackingError
from rootstock.ports.registry import ModelRegistry, RegistryEntry
from rootstock.registry.history import SETTLED, Change, find_rollback, propose, read_changes

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous_champion"

DRIFT_SECONDS = 1.0
"""An alias that is wrong for longer was moved by other means; a shorter time is a change."""


def find_alias(registry: ModelRegistry, name: str, alias: str) -> RegistryEntry | None:
    """Return the entry under an alias, or None."""
    try:
        return registry.find(name, alias=alias)
    except NoModelError:
        return None


def settle(registry: ModelRegistry, name: str) -> list[Change]:
    """Return the changes of the champion, after setting the aliases of the last one.

    Nothing is written if they are already set.
    """
    changes = read_changes(registry.records(name))
    if not changes or changes[-1].settled:
        return changes
    while True:
        last = changes[-1]
        _set_aliases(registry, name, changes)
        changes = read_changes(registry.records(name))
        # Another change may have come in between, whose aliases were then overwritten.
        if changes[-1].number == last.number:
            registry.note_on_record(name, last.number, {SETTLED: "true"})
            return changes


def settle_and_adopt(registry: ModelRegistry, name: str) -> list[Change]:
    """Do as `settle`, and record an alias that was moved by other means as a change.

    The champion of a registry that is older than its history is recorded too.
    """
    for _ in range(20):
        changes = settle(registry, name)
        moved = find_drift(registry, name, changes)
        if moved is None:
            return changes
        if changes:
            time.sleep(DRIFT_SECONDS)
            again = settle(registry, name)
            if again[-1].number != changes[-1].number or find_drift(registry, name, again) is None:
                continue
        why = (
            "the alias was changed outside of Rootstock"
            if changes
            else "champion before the history"
        )
        after = changes[-1].number if changes else 0
        _append(registry, name, propose(moved, kind="adopted", why=why, by="unknown", after=after))
    raise TrackingError(
        f"the champion of {name!r} changes faster than it can be read", hint="try again later"
    )


def find_drift(registry: ModelRegistry, name: str, changes: list[Change]) -> str | None:
    """Return the version of the alias if it differs from the history, otherwise None."""
    champion = find_alias(registry, name, CHAMPION)
    if champion is None or (changes and changes[-1].version == champion.version):
        return None
    return champion.version


def promote(
    registry: ModelRegistry,
    name: str,
    version: str,
    *,
    expect: str = "",
    after: int | None = None,
    kind: str = "promotion",
    why: str = "",
    by: str = "",
) -> RegistryEntry:
    """Make a version champion; the current champion becomes `previous_champion`.

    If two promotions race, exactly one succeeds, and the other raises. ``expect`` is the version
    that must be champion now, ``after`` the number of the last change; empty and None allow any.

    Raises:
        NoModelError: the version does not exist, or its files are gone.
        ConflictError: another change came first; nothing was changed.
    """
    if not registry.holds_files(registry.find(name, version=version)):
        raise NoModelError(
            f"the files of version {version} of {name!r} no longer exist; nothing was changed",
            hint="the run's artifacts were deleted or moved: promote another version, or restore "
            "them",
        )
    changes = settle_and_adopt(registry, name)
    champion = find_alias(registry, name, CHAMPION)
    now = champion.version if champion else ""
    if expect and now != expect:
        raise ConflictError(
            f"the champion of {name!r} is {_name_version(changes, now)}, not version {expect}; "
            "nothing was changed",
            hint="`rootstock history` shows who changed it, and why",
        )
    last = changes[-1].number if changes else 0
    if after is not None and last != after:
        raise _lost_race(name, version, changes[-1])
    if now != version:
        claim = propose(version, kind=kind, why=why, by=by or whoami(), after=last)
        _append(registry, name, claim)
        changes = settle(registry, name)
        winner = next(change for change in changes if change.number > last)
        if winner.claim != claim.claim and winner.version != version:
            raise _lost_race(name, version, winner)
    return registry.find(name, version=version)


def rollback(registry: ModelRegistry, name: str, *, why: str = "", by: str = "") -> RegistryEntry:
    """Make the previous champion champion again; a second time, the one before it.

    Raises:
        NoModelError: no earlier champion is in the registry with its files.
        ConflictError: another change came first; nothing was changed.
    """
    changes = settle_and_adopt(registry, name)
    known = {entry.version: entry for entry in registry.versions(name)}
    before = [known[version] for version in find_rollback(changes) if version in known]
    target = next((entry.version for entry in before if registry.holds_files(entry)), None)
    if target is None:
        gone = f"the files of all earlier champions of {name!r} no longer exist"
        raise NoModelError(
            gone if before else f"model {name!r} has no earlier champion",
            hint="promote a version instead with `rootstock promote VERSION`",
        )
    return promote(
        registry,
        name,
        target,
        after=changes[-1].number,
        kind="rollback",
        why=why or f"back from version {changes[-1].version}",
        by=by,
    )


def whoami() -> str:
    """Return the user known to MLflow or this machine, and the machine, for the history."""
    user = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    if not user:
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a container's user may have no name
            user = f"user {os.getuid()}"
    return f"{user}@{platform.node()}"


def _append(registry: ModelRegistry, name: str, change: Change) -> None:
    try:
        registry.append_record(name, change.version, change.facts())
    except NoModelError:
        raise
    except TrackingError:
        # The answer may have been lost after the work was done.
        changes = read_changes(registry.records(name))
        if change.claim not in {known.claim for known in changes}:
            raise


def _set_aliases(registry: ModelRegistry, name: str, changes: list[Change]) -> None:
    version = changes[-1].version
    known = {entry.version: entry for entry in registry.versions(name)}
    if version not in known:
        return  # it was deleted from the registry; the history still has it
    before = [old for old in find_rollback(changes) if old in known]
    if before:
        registry.set_alias(name, PREVIOUS, before[0])
    else:
        registry.drop_alias(name, PREVIOUS)
    registry.set_alias(name, CHAMPION, version)
    if CHALLENGER in known[version].aliases:
        registry.drop_alias(name, CHALLENGER)


def _name_version(changes: list[Change], version: str) -> str:
    if changes and changes[-1].version == version:
        return f"version {version} (by {changes[-1].by})"
    return f"version {version}" if version else "no version"


def _lost_race(name: str, version: str, winner: Change) -> ConflictError:
    return ConflictError(
        f"version {version} of {name!r} is not the champion: version {winner.version} became "
        f"champion first, by {winner.by} ({winner.kind}: {winner.why or 'no reason given'})",
        hint="see `rootstock history`; promote again if you still want to",
    )
