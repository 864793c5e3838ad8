"""The command line: parse the arguments and run one command.

Commands import heavy modules when they run, so that `rootstock --help` is fast.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from rootstock.cli import (
    corrections,
    data,
    explain,
    export,
    feedback,
    predict,
    registry,
    serve,
    similar,
    studio,
    suggest,
    train,
)
from rootstock.cli.common import only_documents
from rootstock.system.failure import exit_on_failure

EXAMPLES = """\
examples:
  rootstock check photos/                       list what is in the folder, and problems
  rootstock plan photos/                        choose a transfer strategy, with reasons
  rootstock train photos/ --out run1            run all stages; write to run1
  rootstock predict cat.jpg --model run1/artifacts/model
  rootstock explain cat.jpg --model run1/artifacts/model --out maps
  rootstock serve --model run1/artifacts/model
  rootstock studio run1 --data photos/          view images, correct labels, decide
in a project with a registry:
  rootstock compare                             compare champion and challenger
  rootstock promote 7 --expect 5 --why "fewer false alarms"
"""


ANSWERING_COMMANDS = (
    "explain",
    "feedback",
    "index_images",
    "key",
    "predict",
    "serve",
    "similar",
    "suggest",
)
"""Commands that need only the extra `serve`; the others need `train`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; print an error as a message and exit with its status."""
    options = build_parser().parse_args(arguments)
    with exit_on_failure():
        try:
            with only_documents() if getattr(options, "json", False) else nullcontext():
                options.handler(options)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package in ("", "rootstock"):
                raise
            command = options.handler.__name__
            extra = "serve" if command in ANSWERING_COMMANDS else "train"
            if extra == "serve" and package == "pyarrow":
                extra = "serve,journal"
            sys.exit(
                f"error: `rootstock {command}` needs {package}, which is not installed\n"
                f"  -> pip install 'rootstock-vision[{extra}]'"
            )
        except BrokenPipeError:
            sys.exit(141)


class _Version(argparse.Action):
    """Print the version, and look it up only then."""

    def __call__(self, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"rootstock {version('rootstock-vision')}")
        except PackageNotFoundError:  # run from a folder, not installed
            print("rootstock (not installed as a package)")
        raise SystemExit(0)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with all commands and options."""
    parser = argparse.ArgumentParser(
        prog="rootstock",
        description="Train image models from labelled images, and serve them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for group in (
        data,
        corrections,
        train,
        predict,
        explain,
        export,
        similar,
        suggest,
        serve,
        studio,
        feedback,
        registry,
    ):
        group.add_commands(commands)
    return parser
