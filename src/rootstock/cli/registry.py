"""What the commands around the registry do once their options are parsed."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rootstock.cli.commands import open_registry, print_json
from rootstock.paths import Paths


def promote(options: argparse.Namespace) -> None:
    """Make a version the champion."""
    from rootstock.stages.champion import CHALLENGER
    from rootstock.stages.champion import promote as promote_version

    config, registry = open_registry()
    name = config.registry.name
    version = options.version or registry.find(name, alias=CHALLENGER).version
    entry = promote_version(registry, name, version, expect=options.expect, why=options.why)
    _print_entry(entry, options)


def rollback(options: argparse.Namespace) -> None:
    """Make the previous champion champion again."""
    from rootstock.stages.champion import rollback as rollback_champion

    config, registry = open_registry()
    entry = rollback_champion(registry, config.registry.name, why=options.why)
    _print_entry(entry, options)


def history(options: argparse.Namespace) -> None:
    """Who was champion when, by whom and why; the newest last."""
    from rootstock.stages.champion import find_drift, settle

    config, registry = open_registry()
    name = config.registry.name
    changes = settle(registry, name)
    moved = find_drift(registry, name, changes)
    if options.json:
        hidden = ("claim", "after", "settled", "at")
        rows = [
            {key: value for key, value in dataclasses.asdict(one).items() if key not in hidden}
            | {"at": _time(one.at).isoformat()}
            for one in changes
        ]
        print_json({"name": name, "alias_moved_to": moved, "changes": rows})
        return
    for one in changes:
        when = _time(one.at).strftime("%Y-%m-%d %H:%M:%S")
        print(f"{one.number:4}  {when} UTC  version {one.version:4} {one.kind:10} by {one.by}")
        if one.why:
            print(f"      {one.why}")
    if not changes:
        print(f"{name} has had no champion yet, as far as its history tells")
    if moved:
        print(
            f"the alias champion points to version {moved}: it was moved by other means\n"
            "  -> `rootstock promote VERSION` writes that down and sets the champion that is meant",
            file=sys.stderr,
        )


def compare(options: argparse.Namespace) -> None:
    """Compare two models on the present test images."""
    from rootstock.stages.compare import compare_models

    config, registry = open_registry()
    paths = Paths(Path.cwd())
    duel = compare_models(
        config, paths, registry=registry, first=options.first, second=options.second
    )
    if options.json:
        print_json(duel.to_dict())
        return
    print((paths.reports / "compare.md").read_text(encoding="utf-8"))
    print(f"written to {paths.reports / 'compare.md'}")


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _print_entry(entry: Any, options: argparse.Namespace) -> None:
    if options.json:
        print_json({"name": entry.name, "version": entry.version, "aliases": list(entry.aliases)})
    else:
        print(f"{entry.name} version {entry.version} is now champion")
