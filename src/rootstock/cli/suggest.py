"""The command suggest: choose the images of a folder to label next."""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

from rootstock.cli.common import add_command, add_options, open_model, print_json
from rootstock.cli.predict import positive
from rootstock.system.escape import escape_terminal

DEFAULT_IMAGES = 50


def add_commands(commands: Any) -> None:
    """Add suggest."""
    command = add_command(
        commands, "suggest", suggest, "choose the images of a folder that are most worth labelling"
    )
    command.add_argument("pool", type=Path, help="a folder of images without labels")
    command.add_argument(
        "-n",
        type=positive,
        default=DEFAULT_IMAGES,
        metavar="N",
        help=f"number of images (default {DEFAULT_IMAGES})",
    )
    command.add_argument("--model", default="", help="model directory or models:/ URI")
    command.add_argument("--out", type=Path, help="also write the list as CSV to this file")
    add_options(command, "json")


def suggest(options: argparse.Namespace) -> None:
    """Print images by uncertainty and diversity; skip known and duplicate images."""
    from rootstock.model.predictor import Predictor
    from rootstock.system.files import write_atomic
    from rootstock.system.progress import Progress
    from rootstock.workflow.pool import PoolImage, PoolImages

    with open_model(options.model) as directory:
        pool = PoolImages(Predictor(directory), options.pool)
        paths, warnings = pool.list_paths()
        with Progress("suggest", len(paths), "image") as progress:
            pool.read(paths, progress.update)
        for problem in [*(f"warning: {text}" for text in warnings), *pool.problems]:
            print(escape_terminal(problem), file=sys.stderr)
        rows = [image._asdict() for image in pool.rank(options.n)]
    if options.out:
        with (
            write_atomic(options.out) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.DictWriter(file, PoolImage._fields, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    if options.json:
        print_json(rows)
        return
    for row in rows:
        note = "  (unlike the training images)" if row["unknown"] else ""
        print(
            f"{row['rank']:4}  {escape_terminal(row['path'])}: {escape_terminal(row['answer'])}, "
            f"uncertainty {row['uncertainty']:.2f}, distance {row['distance']:.2f}{note}"
        )
    print(
        f"{len(rows)} of {len(pool.files)} images; skipped {pool.n_known} that are in the training "
        "set or duplicates in the folder"
    )
