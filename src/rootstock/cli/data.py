"""Commands on images and on the machine: check, params, doctor, tidy."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rootstock.cli.common import (
    add_command,
    add_options,
    own_params,
    print_json,
    read_config,
    workspace,
)
from rootstock.config.describe import describe_keys, show_value
from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.errors import RootstockError
from rootstock.system.escape import escape_terminal


def add_commands(commands: Any) -> None:
    """Add check, params, doctor and tidy."""
    command = add_command(
        commands, "check", check, "index a data set and report what is wrong with it"
    )
    command.add_argument("data", type=Path, help="class folders, split folders, or a CSV/Parquet")
    add_options(command, "set", "json")

    command = add_command(commands, "params", params, "list every key of params.yaml")
    add_options(command, "json")

    command = add_command(commands, "doctor", doctor, "check this machine and its services")
    add_options(command, "json")

    command = add_command(
        commands, "tidy", tidy, "delete cached features of images that no longer exist"
    )
    command.add_argument(
        "--keep",
        type=Path,
        action="append",
        default=[],
        metavar="MANIFEST",
        help="in addition to artifacts/manifest.parquet, manifests of other projects that share "
        "the store; features removed by mistake are computed again",
    )
    add_options(command, "json")


def check(options: argparse.Namespace) -> None:
    """Index a folder and print a summary."""
    from rootstock.data.notices import describe_corrections, list_notices
    from rootstock.workflow.index import index_images

    with workspace(None) as paths:
        manifest = index_images(read_config(options), paths)
        summary = manifest.summary()
    if options.json:
        print_json(summary)
        return
    print(f"{summary['n_usable']} usable images of {summary['n_images']}")
    why = f", recognised by {summary['recognised']}" if summary["recognised"] else ""
    print(f"  task: {summary['task']}{escape_terminal(why)}")
    for label, splits in summary["classes"].items():
        print(
            f"  {escape_terminal(label):24} "
            + "  ".join(f"{name} {n}" for name, n in splits.items())
        )
    for item in summary["quarantined"]:
        print(f"  quarantined: {escape_terminal(item['path'])}: {item['reason']}")
    if corrections := describe_corrections(summary):
        print(f"  {corrections}")
    for notice in list_notices(manifest):
        print(f"  warning: {escape_terminal(notice)}")


def params(options: argparse.Namespace) -> None:
    """List every key of params.yaml with its default, meaning and allowed values."""
    if options.json:
        print_json(
            [
                {
                    "key": key.name,
                    "default": key.default,
                    "allowed": key.allowed,
                    "meaning": key.meaning,
                }
                for key in describe_keys()
            ]
        )
        return
    for key in describe_keys():
        print(f"{key.name} = {show_value(key.default)}")
        print(f"    {key.meaning}\n    Allowed: {key.allowed}.")


def doctor(options: argparse.Namespace) -> None:
    """Check this machine, and print what is missing."""
    from rootstock.cli.doctor import examine

    findings = examine(Paths(Path.cwd()))
    if options.json:
        print_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            print(f"{finding.verdict:5} {finding.name:14} {finding.detail}")
    if any(finding.verdict == "fail" for finding in findings):
        sys.exit(1)


def tidy(options: argparse.Namespace) -> None:
    """Delete features of images that are no longer in any manifest."""
    from rootstock.data.manifest import Manifest
    from rootstock.features.store.compaction import collect
    from rootstock.features.store.store import FeatureStore

    config = load_config(own_params())
    paths = Paths(Path.cwd())
    root = paths.below(config.features.store)
    absent = [str(path) for path in options.keep if not path.is_file()]
    if absent:
        raise RootstockError(
            f"{', '.join(absent)} does not exist; nothing was deleted",
            hint="name the artifacts/manifest.parquet of another project that uses the same store",
        )
    manifests = [Manifest.read(path) for path in (paths.manifest, *options.keep)]
    before = _size(root)
    gone = collect(FeatureStore(root), manifests)
    freed = before - _size(root)
    if options.json:
        print_json({"rows": gone.rows, "files": gone.files, "bytes": freed})
        return
    print(
        f"{gone.rows} feature rows removed, {gone.files} files deleted, {freed / 1e6:.1f} MB freed"
    )
    print("Files of the last hour are kept: the run that writes them may not have a manifest yet.")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
