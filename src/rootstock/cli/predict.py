"""The command predict: files and folders in, one answer per image out."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rootstock.cli.common import add_command, add_options, open_model, print_json
from rootstock.data.tree import scan_folder
from rootstock.errors import ImageError, RootstockError
from rootstock.system.escape import escape_terminal

if TYPE_CHECKING:
    from rootstock.model.predictor import Predictor, Prepared
    from rootstock.tasks.answer import Answer

BATCH_IMAGES = 16
"""Files in memory at once."""


def add_commands(commands: Any) -> None:
    """Add predict."""
    command = add_command(commands, "predict", predict, "classify image files with a model")
    command.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGE", help="a file, or a folder of images"
    )
    command.add_argument("--model", default="", help="model directory or models:/ URI")
    command.add_argument(
        "--top-k", type=positive, default=3, metavar="N", help="labels per image (default 3)"
    )
    add_options(command, "json")


def predict(options: argparse.Namespace) -> None:
    """Classify image files; exit with 1 if one of them has no answer."""
    from rootstock.model.predictor import Predictor

    paths = [path for given in options.images for path in list_images(given)]
    with open_model(options.model) as directory:
        predictor = Predictor(directory)
    answers = []
    for start in range(0, len(paths), BATCH_IMAGES):
        for answer in _answer(predictor, paths[start : start + BATCH_IMAGES], options.top_k):
            answers.append(answer)
            if not options.json:
                _print_answer(answer)
    if options.json:
        print_json({"predictions": [answer.to_json() for answer in answers]})
    if any(answer.error for answer in answers):
        sys.exit(1)


def list_images(given: Path) -> Iterator[Path]:
    """Yield the file itself, or the files of a folder that training would look at.

    Those are at any depth, also behind links; what is passed over is a warning.
    Raises:
        RootstockError: the folder has no image, or cannot be read.
    """
    if not given.is_dir():
        yield given
        return
    folder, warnings = scan_folder(given)
    for warning in warnings:
        print(f"warning: {escape_terminal(warning)}", file=sys.stderr)
    if not folder.n_images:
        raise RootstockError(f"{given} is a folder without images")
    yield from (given / path for path in sorted(folder.paths()))


def prepare_files(
    predictor: Predictor, paths: Sequence[Path]
) -> Iterator[tuple[Path, bytes, Prepared]]:
    """Yield path, content and prepared image of each file; name those that cannot be used."""
    from rootstock.data.read import read_file

    for path in paths:
        try:
            content = read_file(path, predictor.limits).content
            prepared = predictor.prepare_sized(content)
        except ImageError as error:
            print(escape_terminal(f"{path}: {error.message}"), file=sys.stderr)
        else:
            yield path, content, prepared


def _answer(predictor: Predictor, paths: Sequence[Path], top_k: int) -> Iterator[Answer]:
    """Yield an answer for each file, in order; one that cannot be used has an ``error``."""
    from rootstock.data.read import read_file
    from rootstock.tasks import answer_type
    from rootstock.tasks.answer import AnswerError

    contents: list[bytes] = []
    errors: dict[Path, ImageError] = {}
    for path in paths:
        try:
            contents.append(read_file(path, predictor.limits).content)
        except ImageError as error:
            errors[path] = error
    answers = iter(predictor.predict(contents, top_k=top_k))
    for path in paths:
        if refusal := errors.get(path):
            kind = answer_type(predictor.task.name)
            answer = kind(error=AnswerError(refusal.message, refusal.reason))
        else:
            answer = next(answers)
        yield dataclasses.replace(answer, filename=str(path))


def _print_answer(answer: Answer) -> None:
    note = "  (unlike all the model has seen)" if answer.unknown else ""
    text = str(answer.error) if answer.error else f"{answer.summary}{note}"
    print(f"{escape_terminal(answer.filename)}: {text}")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)
