"""The command feedback: true labels for answers of a service."""

from __future__ import annotations

import argparse
import csv
import getpass
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rootstock.cli.common import add_command, add_options, print_json
from rootstock.errors import DataError, RootstockError
from rootstock.system.escape import escape_terminal


def add_commands(commands: Any) -> None:
    """Add feedback."""
    command = add_command(
        commands, "feedback", feedback, "send true labels from a table for answers of a service"
    )
    command.add_argument(
        "file", type=Path, help="a CSV file with the columns request_id,label[,sha256]"
    )
    command.add_argument(
        "--journal",
        type=Path,
        default=os.environ.get("ROOTSTOCK_JOURNAL"),
        metavar="DIR",
        help="the journal of the service; default: ROOTSTOCK_JOURNAL",
    )
    command.add_argument("--url", default="", help="send the labels to this service instead")
    command.add_argument(
        "--key",
        default=os.environ.get("ROOTSTOCK_KEY", ""),
        help="API key of the service; default: ROOTSTOCK_KEY",
    )
    add_options(command, "json")


def feedback(options: argparse.Namespace) -> None:
    """Store each label that matches an answer; exit with 1 if one does not match."""
    rows = list(_read(options.file))
    wanted = {row["request_id"] for row in rows}
    judge = _sender(options) if options.url else _storer(options, wanted)
    scores: list[float] = []
    refused: list[dict[str, str]] = []
    for number, row in enumerate(rows, start=2):
        try:
            scores.append(judge(row))
        except RootstockError as error:
            refused.append({"line": str(number), "why": error.message})
    if options.json:
        print_json({"stored": len(scores), "refused": refused})
    else:
        for one in refused:
            print(
                escape_terminal(f"{options.file}, line {one['line']}: {one['why']}"),
                file=sys.stderr,
            )
        mean = f", mean score {sum(scores) / len(scores):.3f}" if scores else ""
        print(f"{len(scores)} of {len(rows)} labels stored{mean}")
    if refused:
        sys.exit(1)


def _read(path: Path) -> Iterator[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if not {"request_id", "label"} <= set(reader.fieldnames or ()):
                raise ValueError(f"the columns are {', '.join(reader.fieldnames or ())}")
            for row in reader:
                yield {name: row.get(name) or "" for name in ("request_id", "label", "sha256")}
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path} is not a valid feedback file: {error}",
            hint="give a CSV file in UTF-8 with the columns request_id,label[,sha256]",
        ) from None


def _storer(options: argparse.Namespace, wanted: set[str]) -> Callable[[dict[str, str]], float]:
    from rootstock.evaluate.feedback import append_feedback, judge_answer
    from rootstock.evaluate.journal import read_journal

    if options.journal is None or not Path(options.journal).is_dir():
        raise DataError(
            f"there is no journal at {options.journal or 'ROOTSTOCK_JOURNAL'}",
            hint="give --journal DIR, or --url of the service",
        )
    folder, who = Path(options.journal), getpass.getuser()
    answers: dict[str, list[dict[str, Any]]] = {}
    for answer in read_journal(folder):
        if answer["request_id"] in wanted:
            answers.setdefault(answer["request_id"], []).append(answer)

    def store(row: dict[str, str]) -> float:
        known = answers.get(row["request_id"], [])
        judged = judge_answer(known, row["label"], sha256=row["sha256"], who=who)
        append_feedback(folder, [judged])
        return judged.score

    return store


def _sender(options: argparse.Namespace) -> Callable[[dict[str, str]], float]:
    from rootstock.client import Client

    client = Client(options.url, key=options.key)

    def send(row: dict[str, str]) -> float:
        answer = client.feedback(row["request_id"], row["label"], sha256=row["sha256"])
        return float(answer["score"])

    return send
