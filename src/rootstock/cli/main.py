"""The command line: parse, connect, call one function, print.

Heavy modules are imported inside the commands, so that `rootstock --help` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rootstock.cli import commands as run
from rootstock.cli import registry
from rootstock.errors import RootstockError

EXAMPLES = """\
examples:
  rootstock check photos/                       what is in the folder, and what is wrong with it
  rootstock plan photos/                        which transfer strategy, and why
  rootstock train photos/ --out run1            the whole way: artifacts/ and reports/ in run1
  rootstock predict cat.jpg --model run1/artifacts/model
  rootstock serve --model run1/artifacts/model
in a project with a registry:
  rootstock compare                             champion and challenger on the same test images
  rootstock promote 7 --expect 5 --why "fewer false alarms"
"""


ANSWERING_COMMANDS = ("key", "predict", "serve")
"""Commands for which the extra `serve` is enough; the others need `train`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script; exits 1 with one clear message on a known error."""
    options = build_parser().parse_args(arguments)
    try:
        options.handler(options)
    except RootstockError as error:
        sys.exit(f"error: {error}")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "rootstock"):
            raise
        command = options.handler.__name__
        extra = "serve" if command in ANSWERING_COMMANDS else "train"
        sys.exit(
            f"error: `rootstock {command}` needs {package}, which is not installed\n"
            f"  -> pip install 'rootstock-vision[{extra}]'"
        )
    except BrokenPipeError:
        sys.exit(141)
    except KeyboardInterrupt:
        sys.exit("stopped; what was finished is kept, and the same command goes on from there")


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="rootstock",
        description="From a folder of labelled images to a served classifier.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = _add(
        commands, "check", run.check, "index a data set and report what is wrong with it"
    )
    command.add_argument("data", type=Path, help="class folders, split folders, or a CSV/Parquet")
    _add_common(command, "set", "json")

    command = _add(commands, "plan", run.plan, "measure a data set and explain the transfer plan")
    command.add_argument("data", type=Path)
    command.add_argument("--out", type=Path, help="keep artifacts and reports there")
    _add_common(command, "set", "json")

    command = _add(commands, "train", run.train, "all stages on a folder, without DVC")
    command.add_argument("data", type=Path)
    command.add_argument("--out", type=Path, required=True, help="folder for all that is written")
    _add_common(command, "set", "json")

    command = _add(commands, "predict", run.predict, "classify image files with a model")
    command.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    command.add_argument("--model", default="", help="model directory or models:/ URI")
    command.add_argument("--top-k", type=int, default=3, help="labels an image (default 3)")
    _add_common(command, "json")

    command = _add(commands, "evaluate", run.evaluate, "measure a model on labelled images")
    command.add_argument("data", type=Path)
    command.add_argument("--model", default="", help="model directory or models:/ URI")
    command.add_argument("--out", type=Path, help="write the report there")
    _add_common(command, "set", "json")

    _add_registry_commands(commands)
    _add_upkeep_commands(commands)

    command = _add(commands, "serve", run.serve, "serve a model over HTTP")
    command.epilog = (
        "Keys, limits, batches and all else are variables ROOTSTOCK_<NAME>; "
        "`python -m services.inference --help` lists them."
    )
    command.add_argument("--host", help="default 127.0.0.1")
    command.add_argument("--port", type=int, help="default 8000")
    command.add_argument("--model", help="directory or models:/ URI; default: the champion")

    command = _add(commands, "key", run.key, "make an API key for the service, shown once")
    command.add_argument("name", help="who will hold it, one word")
    command.add_argument("--role", choices=["predict", "admin"], default="predict")
    command.add_argument(
        "--file",
        type=Path,
        required=True,
        help="its hash is added there; serve with ROOTSTOCK_KEYS=FILE",
    )

    command = _add(
        commands, "calibrate", run.calibrate, "fit the planner's numbers to the runs in the ledger"
    )
    command.add_argument(
        "--ledger", type=Path, action="append", help="default: plan.ledger; may be repeated"
    )
    _add_common(command, "json")

    command = _add(commands, "params", run.params, "list every key of params.yaml")
    _add_common(command, "json")

    command = _add(commands, "doctor", run.doctor, "look at this machine and its services")
    _add_common(command, "json")
    return parser


def _add_registry_commands(commands: Any) -> None:
    command = _add(commands, "promote", registry.promote, "make a registered version the champion")
    command.add_argument("version", nargs="?", type=_given, help="default: the challenger")
    command.add_argument(
        "--expect", type=_given, metavar="VERSION", help="only if this version is champion now"
    )
    command.add_argument("--why", default="", metavar="TEXT", help="for the history")
    _add_common(command, "json")

    command = _add(
        commands, "rollback", registry.rollback, "make the previous champion champion again"
    )
    command.add_argument("--why", default="", metavar="TEXT", help="for the history")
    _add_common(command, "json")

    command = _add(
        commands, "history", registry.history, "tell who was champion when, by whom and why"
    )
    _add_common(command, "json")

    command = _add(
        commands, "compare", registry.compare, "compare two models on the same test images"
    )
    about = "a version, an alias or a model directory; default: the "
    command.add_argument("first", nargs="?", default="champion", help=f"{about}champion")
    command.add_argument("second", nargs="?", default="challenger", help=f"{about}challenger")
    _add_common(command, "json")


def _add_upkeep_commands(commands: Any) -> None:
    command = _add(
        commands, "reproduce", registry.reproduce, "tell the commands that make a version again"
    )
    command.add_argument("version", type=_given, help="a version's number, or a model directory")
    command.add_argument("--folder", type=Path, help="of the clone; default: beside the project")
    instead = command.add_mutually_exclusive_group()
    instead.add_argument("--run", action="store_true", help="run them, in a clone of its own")
    instead.add_argument(
        "--check", type=Path, metavar="FOLDER", help="compare what was made there with the version"
    )
    instead.add_argument("--params", action="store_true", help="print its params.yaml alone")
    instead.add_argument("--data", action="store_true", help="print its .dvc file of the images")

    command = _add(
        commands, "backup", registry.backup, "copy the registry and its artifacts to a folder"
    )
    command.add_argument("folder", type=Path, help="a new one for each back-up")
    _add_common(command, "json")

    command = _add(commands, "restore", registry.restore, "put a back-up into an empty project")
    command.add_argument("folder", type=Path, help="what `rootstock backup` wrote")
    _add_common(command, "json")

    command = _add(commands, "tidy", run.tidy, "remove cached features of images that are gone")
    command.add_argument(
        "--keep",
        type=Path,
        action="append",
        default=[],
        metavar="MANIFEST",
        help="besides artifacts/manifest.parquet, those of other projects on the same store; "
        "what is removed by mistake is computed again",
    )
    _add_common(command, "json")


def _given(text: str) -> str:
    """An argument that a script cannot leave empty by mistake."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return text


def _add(commands: Any, name: str, handler: Any, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    command.set_defaults(handler=handler)
    return command


def _add_common(command: argparse.ArgumentParser, *names: str) -> None:
    if "set" in names:
        command.add_argument(
            "--params",
            type=Path,
            help="a params.yaml; default: the one in the current folder, if there is one",
        )
        command.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="override a key of params.yaml, e.g. --set plan.strategy=linear_probe",
        )
    if "json" in names:
        command.add_argument("--json", action="store_true", help="one JSON object for machines")
