"""The command `corrections`: list, import and export."""

from __future__ import annotations

import argparse
import dataclasses
import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rootstock.cli.common import add_command, add_options, print_json
from rootstock.system.escape import escape_terminal

if TYPE_CHECKING:
    from rootstock.workflow.corrections import ProjectLabels


def add_commands(commands: Any) -> None:
    """Add the command corrections with its subcommands."""
    command = commands.add_parser(
        "corrections",
        help="list, import and export corrections of labels",
        description="List, import and export corrections of labels. They are stored in "
        "corrections.csv next to the images.",
    )
    own = command.add_subparsers(title="commands", required=True, metavar="COMMAND")

    listing = add_command(
        own, "list", list_corrections, "list all corrections, and which are in force"
    )
    add_options(listing, "json")

    importing = add_command(
        own, "import", import_labels, "add a correction for each label in a file that differs"
    )
    importing.add_argument(
        "file",
        type=Path,
        help="a CSV file with path or sha256, and label; an export of Label Studio (JSON); "
        "annotations in COCO format (.json); or another corrections.csv",
    )
    importing.add_argument("--who", default="", help="who gave the labels; default: your user name")
    importing.add_argument("--why", default="", help="the reason; default: the name of the file")
    add_options(importing, "json")

    exporting = add_command(own, "export", export_labels, "write the labels for another tool")
    exporting.add_argument("--format", choices=("csv", "coco", "label-studio"), default="csv")
    exporting.add_argument(
        "--all",
        action="store_true",
        help="export the labels of all images, not only corrected ones",
    )
    exporting.add_argument("--out", type=Path, help="the file to write; default: standard output")
    for one in (listing, importing, exporting):
        one.add_argument(
            "--project",
            type=Path,
            default=Path(),
            metavar="DIR",
            help="the folder that contains artifacts/; default: the current one",
        )
        one.add_argument(
            "--data", type=Path, help="the images; default: data.root in the project's params.yaml"
        )


def list_corrections(options: argparse.Namespace) -> None:
    """Print all corrections in the order of the file."""
    from rootstock.data.label_corrections import conflicts, last_rows

    labels = _open(options)
    in_force = {id(row) for row in last_rows(labels.corrections).values()}
    open_ones = {conflict.later.sha256 for conflict in conflicts(labels.corrections)}
    rows = [
        dataclasses.asdict(row)
        | {
            "paths": labels.paths.get(row.sha256, []),
            "in_force": id(row) in in_force,
            "conflict": row.sha256 in open_ones,
        }
        for row in labels.corrections
    ]
    if options.json:
        print_json(rows)
        return
    for row in rows:
        image = ", ".join(row["paths"]) or f"{row['sha256'][:12]} (not among the images)"
        notes = ["" if row["in_force"] else "replaced", "conflict" if row["conflict"] else ""]
        text = f"{row['when']}  {row['who']:10}  {image}: {row['old'] or '(none)'} -> {row['new']}"
        reason = f"  {row['why']}" if row["why"] else ""
        status = ", ".join(filter(None, notes))
        print(escape_terminal(f"{text}{reason}{f'  [{status}]' if status else ''}"))
    print(
        f"{len(rows)} rows, {len(in_force)} in force, {len(open_ones)} conflicts: "
        f"{escape_terminal(labels.path)}"
    )


def import_labels(options: argparse.Namespace) -> None:
    """Add the labels in a file as corrections."""
    from rootstock.data.label_corrections import COLUMNS, read_corrections
    from rootstock.review.label_files import read_labels

    labels = _open(options)
    if _first_line(options.file) == ",".join(COLUMNS):
        imported = labels.add_rows(read_corrections(options.file))
    else:
        imported = labels.add(
            read_labels(options.file, labels.task),
            who=options.who or getpass.getuser(),
            why=options.why or f"imported from {options.file.name}",
        )
    if options.json:
        print_json(
            {
                "added": len(imported.added),
                "unchanged": imported.n_unchanged,
                "unknown": list(imported.unknown),
            }
        )
        return
    print(
        f"{len(imported.added)} corrections added, {imported.n_unchanged} labels unchanged: "
        f"{escape_terminal(labels.path)}"
    )
    if unknown := imported.unknown:
        print(
            f"{len(unknown)} are not labels of images in the data, such as "
            f"{escape_terminal(unknown[0])}"
        )


def export_labels(options: argparse.Namespace) -> None:
    """Write the labels that are in force."""
    from rootstock.review.label_files import write_labels
    from rootstock.system.files import write_atomic

    labels = _open(options)
    images = labels.labelled(only_corrected=not options.all)
    text = write_labels(images, labels.task, options.format)
    if options.out is None:
        sys.stdout.write(text)
        return
    with write_atomic(options.out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"{len(images)} labels: {escape_terminal(options.out)}")


def _open(options: argparse.Namespace) -> ProjectLabels:
    from rootstock.workflow.corrections import open_labels

    return open_labels(options.project, options.data)


def _first_line(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.readline().strip()
    except (OSError, UnicodeDecodeError):
        return ""
