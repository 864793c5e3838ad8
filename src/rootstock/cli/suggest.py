"""The command suggest: choose the images of a folder to label next."""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
from pathlib import Path
from typing import Any

from rootstock.cli.common import add_command, add_options, open_model, print_json
from rootstock.cli.predict import list_images, positive, prepare_files
from rootstock.system.escape import escape_terminal

BATCH_IMAGES = 16
COLUMNS = ("rank", "path", "sha256", "uncertainty", "distance", "unknown", "answer")


def add_commands(commands: Any) -> None:
    """Add suggest."""
    command = add_command(
        commands, "suggest", suggest, "choose the images of a folder that are most worth labelling"
    )
    command.add_argument("pool", type=Path, help="a folder of images without labels")
    command.add_argument(
        "-n", type=positive, default=50, metavar="N", help="number of images (default 50)"
    )
    command.add_argument("--model", default="", help="model directory or models:/ URI")
    command.add_argument("--out", type=Path, help="also write the list as CSV to this file")
    add_options(command, "json")


def suggest(options: argparse.Namespace) -> None:
    """Print images by uncertainty and diversity; skip known and duplicate images."""
    import numpy as np

    from rootstock.model.predictor import Predictor
    from rootstock.review.suggest import suggest_images
    from rootstock.system.files import write_atomic
    from rootstock.system.progress import Progress

    with open_model(options.model) as directory:
        predictor = Predictor(directory)
    known, reference = predictor.bundle.known_images, predictor.bundle.reference
    seen = {image.sha256 for image in known.images} if known else set()
    paths = list(list_images(options.pool))
    files, decisions, features, n_known = [], [], [], 0
    with Progress("suggest", len(paths), "image") as progress:
        for start in range(0, len(paths), BATCH_IMAGES):
            batch = []
            for path, content, prepared in prepare_files(
                predictor, paths[start : start + BATCH_IMAGES]
            ):
                sha256 = hashlib.sha256(content).hexdigest()
                if sha256 in seen:
                    n_known += 1
                    continue
                seen.add(sha256)
                files.append((os.path.relpath(path, options.pool), sha256))
                batch.append(prepared.views)
            inferred = predictor.infer(batch)
            decisions.append(inferred.decisions)
            features.append(inferred.features.astype(np.float16))
            progress.update(len(paths[start : start + BATCH_IMAGES]))
    decided, matrix = np.concatenate(decisions), np.concatenate(features)
    chosen = suggest_images(
        matrix,
        predictor.task.uncertainty(decided),
        count=options.n,
        known=reference.features if reference else None,
    )
    rows = []
    for rank, one in enumerate(chosen, start=1):
        answer = predictor.answer(decided[one.row], matrix[one.row].astype(np.float32))
        name, sha256 = files[one.row]
        values = (rank, name, sha256, round(one.uncertainty, 4), round(one.distance, 4))
        rows.append(dict(zip(COLUMNS, (*values, answer.unknown, answer.text), strict=True)))
    if options.out:
        with (
            write_atomic(options.out) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
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
        f"{len(rows)} of {len(files)} images; skipped {n_known} that are in the training set or "
        "duplicates in the folder"
    )
