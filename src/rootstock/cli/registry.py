"""Commands of the registry.

register, promote, rollback, history, compare, reproduce, backup, restore.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rootstock.cli.common import (
    add_command,
    add_options,
    open_model,
    open_registry,
    own_params,
    print_json,
)
from rootstock.config.paths import Paths
from rootstock.errors import RootstockError
from rootstock.system.escape import escape_terminal


def add_commands(commands: Any) -> None:
    """Add the commands of the registry."""
    command = add_command(
        commands, "register", register, "register the project's model, if it is not registered yet"
    )
    add_options(command, "set", "json")

    command = add_command(commands, "promote", promote, "make a registered version the champion")
    command.add_argument("version", nargs="?", type=_given, help="default: the challenger")
    command.add_argument(
        "--expect",
        type=_given,
        metavar="VERSION",
        help="fail unless this version is the champion now",
    )
    command.add_argument("--why", default="", metavar="TEXT", help="reason for the history")
    add_options(command, "json")

    command = add_command(
        commands, "rollback", rollback, "make the previous champion champion again"
    )
    command.add_argument("--why", default="", metavar="TEXT", help="reason for the history")
    add_options(command, "json")

    command = add_command(commands, "history", history, "list the champions: when, by whom and why")
    add_options(command, "json")

    command = add_command(
        commands, "compare", compare, "compare two models on the same test images"
    )
    about = "a version, an alias or a model directory"
    command.add_argument("first", nargs="?", help=f"{about}; default: the champion")
    command.add_argument(
        "second",
        nargs="?",
        help=f"{about}; default: the challenger, or else the champion's predecessor",
    )
    add_options(command, "json")

    command = add_command(
        commands, "reproduce", reproduce, "print the commands that reproduce a version"
    )
    command.add_argument("version", type=_given, help="a version number, or a model directory")
    command.add_argument(
        "--folder", type=Path, help="folder of the clone; default: next to the project"
    )
    instead = command.add_mutually_exclusive_group()
    instead.add_argument("--run", action="store_true", help="run the commands, in a separate clone")
    instead.add_argument(
        "--check",
        type=Path,
        metavar="FOLDER",
        help="compare the result in this folder with the version",
    )
    instead.add_argument("--params", action="store_true", help="print only its params.yaml")
    instead.add_argument(
        "--data", action="store_true", help="print only its .dvc file of the images"
    )

    command = add_command(
        commands, "backup", backup, "back up the registry and its artifacts to a folder"
    )
    command.add_argument("folder", type=Path, help="a new folder")
    add_options(command, "json")

    command = add_command(commands, "restore", restore, "restore a backup into an empty project")
    command.add_argument("folder", type=Path, help="folder that `rootstock backup` wrote")
    add_options(command, "json")


def _given(text: str) -> str:
    """Return the argument; refuse an empty one, which a script may pass by mistake."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def register(options: argparse.Namespace) -> None:
    """Do what the stage `register` does, for the model in artifacts/model."""
    from rootstock.config.load import load_config
    from rootstock.integrations.connect import connect_registry, connect_runs
    from rootstock.workflow.register import register_model

    config = load_config(options.params or own_params(), overrides=options.set)
    paths = Paths(Path.cwd())
    outcome = register_model(
        config,
        paths,
        runs=connect_runs(config, paths),
        registry=connect_registry(config, paths),
    )
    if options.json:
        print_json(outcome)
        return
    print(outcome["reason"])


def promote(options: argparse.Namespace) -> None:
    """Make a version the champion."""
    from rootstock.registry.champion import CHALLENGER, CHAMPION, find_alias
    from rootstock.registry.champion import promote as promote_version

    config, registry = open_registry()
    name = config.registry.name
    version = options.version or registry.find(name, alias=CHALLENGER).version
    before = find_alias(registry, name, CHAMPION)
    entry = promote_version(registry, name, version, expect=options.expect or "", why=options.why)
    _print_entry(entry, options)
    if before is not None and before.version == entry.version:
        print("this version was already the champion; the history is unchanged", file=sys.stderr)


def rollback(options: argparse.Namespace) -> None:
    """Make the previous champion champion again."""
    from rootstock.registry.champion import rollback as rollback_champion

    config, registry = open_registry()
    entry = rollback_champion(registry, config.registry.name, why=options.why)
    _print_entry(entry, options)


def history(options: argparse.Namespace) -> None:
    """Print when each version became champion, by whom and why; the newest last."""
    from rootstock.registry.champion import find_drift, settle

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
            print(f"      {escape_terminal(one.why)}")
    if not changes:
        print(f"the history of {name} has no champion yet")
    if moved:
        print(
            f"the alias champion points to version {moved}: it was changed outside of Rootstock\n"
            "  -> run `rootstock promote VERSION` for the right version, which also records the "
            "change",
            file=sys.stderr,
        )


def compare(options: argparse.Namespace) -> None:
    """Compare two models on the current test images."""
    from rootstock.registry.compare import choose_pair, compare_models
    from rootstock.workflow.project import Project

    config, registry = open_registry()
    paths = Paths(Path.cwd())
    project = Project(config, paths)
    first, second = options.first, options.second
    if second is None:
        usual = choose_pair(registry, config.registry.name)
        first, second = (first, usual[1]) if first else usual
    comparison = compare_models(
        project.manifest,
        project.root,
        registry=registry,
        name=config.registry.name,
        first=first,
        second=second,
        reports=paths.reports,
    )
    if options.json:
        print_json(comparison.to_dict())
        return
    print((paths.reports / "compare.md").read_text(encoding="utf-8"))
    print(f"written to {paths.reports / 'compare.md'}")


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _print_entry(entry: Any, options: argparse.Namespace) -> None:
    if options.json:
        print_json({"name": entry.name, "version": entry.version, "aliases": list(entry.aliases)})
    else:
        print(f"{entry.name} version {entry.version} is now the champion")


def reproduce(options: argparse.Namespace) -> None:
    """Print, or run, the commands that reproduce a version."""
    from rootstock.model.bundle import read_bundle
    from rootstock.registry import reproduce as again

    version = options.version
    folder = (options.folder or Path(f"../rootstock-again-{Path(version).name}")).resolve()
    with open_model(_model_uri(version)) as directory:
        bundle = read_bundle(directory)
        lineage = bundle.lineage
        recipe = again.make_recipe(lineage, version=version, folder=folder, project=Path.cwd())
        if options.params or options.data:
            text = recipe.params if options.params else recipe.data
            if not text:
                raise RootstockError(f"version {version}: {'; '.join(recipe.missing)}")
            print(text, end="")
            return
        if options.check is None:
            if options.run:
                again.run_recipe(lineage, recipe, Path.cwd())
            else:
                print("\n".join(recipe.commands))
            for text in recipe.missing:
                print(f"missing: {text}", file=sys.stderr)
            for text in again.other_libraries(lineage):
                print(f"different version here: {text}", file=sys.stderr)
        checked = folder if options.run else options.check
        if checked is None:
            return
        results = again.check_folder(lineage, bundle.weights_path, checked)
    for name, same in results:
        print(f"{name}: {'same' if same else 'DIFFERENT'}")
    if not all(same for _, same in results[:2]):
        raise RootstockError(
            f"{checked} does not reproduce version {version}",
            hint="compare the images, params.yaml and the commit",
        )


def _model_uri(version: str) -> str:
    if not version.isdecimal():
        return version  # a model directory or a models:/ address
    return f"models:/{open_registry()[0].registry.name}/{version}"


def backup(options: argparse.Namespace) -> None:
    """Back up the registry and its artifacts to a new folder."""
    from rootstock.integrations.connect import tracking_uri
    from rootstock.integrations.mlflow.backup import backup as back_up

    counts = back_up(tracking_uri(Paths(Path.cwd())), options.folder.absolute())
    if options.json:
        print_json(counts)
        return
    print(
        f"{options.folder}: {counts['runs']} runs, {counts['model_versions']} versions and "
        f"{counts['files']} files with checksums"
    )
    if counts["not_included"]:
        print(
            "some artifacts are stored elsewhere and were not copied: see not_included in "
            "backup.json",
            file=sys.stderr,
        )
    if counts["without_files"]:
        print(
            f"the files of {counts['without_files']} versions no longer exist: see without_files "
            "in backup.json",
            file=sys.stderr,
        )


def restore(options: argparse.Namespace) -> None:
    """Restore a backup into a project without a registry."""
    from rootstock.integrations.connect import tracking_uri
    from rootstock.integrations.mlflow.backup import restore as put_back

    counts = put_back(options.folder, tracking_uri(Paths(Path.cwd())))
    if options.json:
        print_json(counts)
        return
    print(f"restored {counts['runs']} runs and {counts['model_versions']} versions")
