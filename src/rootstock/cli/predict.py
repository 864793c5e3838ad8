"""The command predict: print one answer per image."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rootstock.cli.common import add_command, add_options, open_model, own_params, print_json
from rootstock.data.entry import TABLE_ENDINGS
from rootstock.data.tree import scan_folder
from rootstock.errors import ImageError, RootstockError
from rootstock.system.escape import escape_terminal
from rootstock.system.files import write_atomic

if TYPE_CHECKING:
    from rootstock.model.predictor import Predictor, Prepared
    from rootstock.tasks.answer import Answer
    from rootstock.tasks.task import AnswerOptions


def add_commands(commands: Any) -> None:
    """Add predict."""
    command = add_command(commands, "predict", predict, "classify image files with a model")
    command.add_argument(
        "images",
        type=Path,
        nargs="+",
        metavar="IMAGE",
        help="a file, a folder of images, or a CSV or Parquet table with a column `path`",
    )
    command.add_argument("--model", default="", help="model directory or models:/ URI")
    command.add_argument(
        "--top-k", type=positive, default=3, metavar="N", help="labels per image (default 3)"
    )
    command.add_argument(
        "--out",
        type=Path,
        metavar="TABLE",
        help="write the answers to a .csv or .parquet file, for any number of images; a stopped "
        "run continues when started again",
    )
    command.add_argument(
        "--coverage",
        type=share,
        metavar="SHARE",
        help="also give the set or interval that contains the true value in this share of cases",
    )
    command.add_argument(
        "--precision",
        choices=("float32", "int8", "auto"),
        default="float32",
        help="int8: the model's int8 twin; auto: the twin if it is faster here (default float32)",
    )
    command.add_argument(
        "--embeddings",
        action="store_true",
        help="with --out: also write the features of each image",
    )
    command.add_argument(
        "--files",
        type=Path,
        metavar="FOLDER",
        help="also write the files of answers, such as masks, to this folder",
    )
    add_options(command, "json")


def predict(options: argparse.Namespace) -> None:
    """Predict image files; exit with 1 if one of them has no answer.

    Raises:
        RootstockError: --embeddings without --out, or --files with --out.
    """
    from rootstock.tasks.task import AnswerOptions

    if options.embeddings and not options.out:
        raise RootstockError(
            "--embeddings works only together with --out", hint="for example --out answers.parquet"
        )
    if options.files and options.out:
        raise RootstockError(
            "--files does not work together with --out", hint="leave out one of the two"
        )
    asked = AnswerOptions(options.top_k, options.coverage)
    files = [file for given in options.images for file in _list_files(given)]
    with open_model(options.model) as directory:
        failed = (
            _write_table(options, directory, files, asked)
            if options.out
            else _print_answers(options, directory, [path for _, path in files], asked)
        )
    if failed:
        sys.exit(1)


def _print_answers(
    options: argparse.Namespace, directory: Path, paths: Sequence[Path], asked: AnswerOptions
) -> int:
    """Print an answer for each file as soon as it is ready; return how many have none."""
    from rootstock.model.answer_files import answer_files, open_for_files

    answers = []
    predictor = open_for_files(directory, options.precision)
    for answer, _ in answer_files(predictor, paths, asked):
        if options.files:
            write_files(answer, options.files)
        answers.append(answer)
        if not options.json:
            _print_answer(answer)
    if options.json:
        print_json({"predictions": [answer.to_json() for answer in answers]})
    return sum(answer.error is not None for answer in answers)


def _write_table(
    options: argparse.Namespace,
    directory: Path,
    files: Sequence[tuple[str, Path]],
    asked: AnswerOptions,
) -> int:
    """Write the answers to a table, on this machine or on the Ray cluster in RAY_ADDRESS."""
    from rootstock.config.load import load_config
    from rootstock.integrations.connect import connect_spreader
    from rootstock.model.answer_table import AnswerTable
    from rootstock.system.progress import Progress

    out = options.out.absolute()
    table = AnswerTable(
        directory.absolute(),
        out,
        asked,
        embeddings=options.embeddings,
        precision=options.precision,
    )
    spreader = connect_spreader(load_config(own_params()))
    names, paths = [name for name, _ in files], [path.absolute() for _, path in files]
    with Progress("predict", len(files), "image") as progress:
        counts = table.write(names, paths, spreader=spreader, on_part=progress.update)
    if options.json:
        print_json({"table": str(out), **counts._asdict()})
    else:
        print(
            f"{options.out}: {counts.images:,} images, of which {counts.unknown:,} are unlike the "
            f"training images and {counts.failed:,} have no answer"
        )
    return counts.failed


def _list_files(given: Path) -> Iterator[tuple[str, Path]]:
    """Yield each file of ``given`` and its name there.

    Raises:
        RootstockError: the folder has no images, or the list cannot be read.
    """
    if given.suffix.lower() not in TABLE_ENDINGS or given.is_dir():
        yield from ((str(path), path) for path in list_images(given))
        return
    from rootstock.data.columns import ColumnRoles, Columns

    columns = Columns.read(given, ColumnRoles())
    names = columns.find("path")
    if not names:
        raise RootstockError(
            f"{given} has no column `path`; its columns are {columns.describe_names()}",
            hint="name the column of the files `path`",
        )
    for name in columns.texts(names[0], clean=False):
        yield name, given.parent / name


def write_files(answer: Answer, folder: Path) -> None:
    """Write the files of an answer below ``folder``, at the image's path in the current folder.

    For an image outside the current folder only the name is used.
    Raises:
        RootstockError: a file cannot be written, or would replace the image.
    """
    image = Path(answer.filename)
    kept = image if not image.is_absolute() and ".." not in image.parts else Path(image.name)
    for ending, content in answer.files().items():
        path = (folder / kept).with_suffix(ending)
        if path.resolve() == image.resolve():
            raise RootstockError(
                f"{path} is the image itself and will not be replaced", hint="give another folder"
            )
        with write_atomic(path) as temporary:
            temporary.write_bytes(content)


def list_images(given: Path) -> Iterator[Path]:
    """Yield the file, or the files of a folder that training would read.

    Files may be at any depth and behind links; skipped files cause a warning.
    Raises:
        RootstockError: the folder has no images, or cannot be read.
    """
    if not given.is_dir():
        yield given
        return
    folder, warnings = scan_folder(given)
    for warning in warnings:
        print(f"warning: {escape_terminal(warning)}", file=sys.stderr)
    if not folder.n_images:
        raise RootstockError(f"{given} contains no images")
    yield from (given / path for path in sorted(folder.paths()))


def prepare_files(
    predictor: Predictor, paths: Sequence[Path]
) -> Iterator[tuple[Path, bytes, Prepared]]:
    """Yield path, content and prepared image of each file; report files that cannot be used."""
    from rootstock.data.read import read_file

    for path in paths:
        try:
            content = read_file(path, predictor.limits).content
            prepared = predictor.prepare_sized(content)
        except ImageError as error:
            print(escape_terminal(f"{path}: {error.message}"), file=sys.stderr)
        else:
            yield path, content, prepared


def _print_answer(answer: Answer) -> None:
    note = "  (unlike the training images)" if answer.unknown else ""
    text = str(answer.error) if answer.error else f"{answer.summary}{note}"
    print(f"{escape_terminal(answer.filename)}: {text}")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1, such as 0.9")
    return value
