"""The command line: parse, connect, call one function, print.

Heavy modules are imported inside the commands, so that `rootstock --help` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from rootstock.cli import data, predict, registry, serve, train
from rootstock.cli.common import only_documents
from rootstock.errors import RootstockError
from rootstock.system.escape import escape_lines

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
        with only_documents() if getattr(options, "json", False) else nullcontext():
            options.handler(options)
    except RootstockError as error:
        sys.exit(f"error: {escape_lines(str(error))}")
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
    for group in (data, train, predict, serve, registry):
        group.add_commands(commands)
    return parser
