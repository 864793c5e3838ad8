"""Commands that answer: predict, serve, key."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rootstock.cli.common import add_command, add_options, open_model, print_json
from rootstock.errors import RootstockError
from rootstock.system.escape import escape_terminal

if TYPE_CHECKING:
    from rootstock.tasks.answer import Answer


def add_commands(commands: Any) -> None:
    """Add predict, serve and key."""
    command = add_command(commands, "predict", predict, "classify image files with a model")
    command.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    command.add_argument("--model", default="", help="model directory or models:/ URI")
    command.add_argument("--top-k", type=int, default=3, help="labels an image (default 3)")
    add_options(command, "json")

    command = add_command(commands, "serve", serve, "serve a model over HTTP")
    command.epilog = (
        "Keys, limits, batches and all else are variables ROOTSTOCK_<NAME>; "
        "`python -m rootstock.service --help` lists them."
    )
    command.add_argument("--host", help="default 127.0.0.1")
    command.add_argument("--port", type=int, help="default 8000")
    command.add_argument("--model", help="directory or models:/ URI; default: the champion")

    command = add_command(commands, "key", key, "make an API key for the service, shown once")
    command.add_argument("name", help="who will hold it, one word")
    command.add_argument("--role", choices=["predict", "admin"], default="predict")
    command.add_argument(
        "--file",
        type=Path,
        required=True,
        help="its hash is added there; serve with ROOTSTOCK_KEYS=FILE",
    )


def predict(options: argparse.Namespace) -> None:
    """Classify image files."""
    from rootstock.model.predictor import Predictor

    with open_model(options.model) as directory:
        predictor = Predictor(directory)
    contents = [_read(path) for path in options.images]
    answers = predictor.predict(contents, top_k=options.top_k)
    answers = [
        dataclasses.replace(answer, filename=str(path))
        for path, answer in zip(options.images, answers, strict=True)
    ]
    if options.json:
        print_json({"predictions": [answer.to_json() for answer in answers]})
    else:
        _print_predictions(answers)
    if all(answer.error for answer in answers):
        sys.exit(1)


def serve(options: argparse.Namespace) -> None:
    """Serve a model over HTTP."""
    from rootstock.integrations.connect import quiet_environment

    quiet_environment()
    from rootstock.service.serve import serve as serve_http

    given = {"host": options.host, "port": options.port, "model": options.model}
    sys.exit(serve_http(**{key: value for key, value in given.items() if value is not None}))


def key(options: argparse.Namespace) -> None:
    """Make an API key: the key to stdout, its hash to the file."""
    from rootstock.service.http.keys import make_key

    print(make_key(options.name, options.role, options.file))
    print(
        f"{options.file} holds its hash alone: keep the key now, it is not shown again",
        file=sys.stderr,
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RootstockError(f"{path} cannot be read: {error.strerror}") from None


def _print_predictions(answers: Sequence[Answer]) -> None:
    for answer in answers:
        note = "  (unlike all the model has seen)" if answer.unknown else ""
        text = str(answer.error) if answer.error else f"{answer.summary}{note}"
        print(f"{escape_terminal(answer.filename)}: {text}")
