"""The page of all commands and options."""

import argparse
from collections.abc import Iterator

from rootstock.cli.main import build_parser
from tools.docs.markdown import MADE, make_block, make_table

INTRODUCTION = f"""# Command line

{MADE}
`rootstock COMMAND --help` prints the same in a terminal.

| exit status | meaning |
| --- | --- |
| 0 | the command succeeded |
| 1 | an error; the message says what to do |
| 2 | the command line is wrong |
| 70 | a fault in Rootstock; the message names a file with details |
| 130 | you stopped the command with Ctrl-C |

"""


def make_commands_page() -> str:
    """Return the page: a section for each command."""
    parser = build_parser()
    parts = [INTRODUCTION, make_block(parser.epilog or ""), "\n"]
    for name, command in list_commands(parser):
        parts += [f"## rootstock {name}\n\n", (command.description or "").strip() + "\n\n"]
        parts += [make_block(" ".join(command.format_usage().split())), "\n"]
        if rows := list(_rows(command)):
            parts += [make_table(["argument", "meaning"], rows), "\n"]
    return "".join(parts)


def list_commands(
    parser: argparse.ArgumentParser, prefix: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield each command, and each command of a command, with its parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield f"{prefix}{name}", command
                yield from list_commands(command, f"{prefix}{name} ")


def _rows(command: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    for action in command._actions:
        if action.help == argparse.SUPPRESS or isinstance(
            action, argparse._HelpAction | argparse._SubParsersAction
        ):
            continue
        help_text = (action.help or "") % {**vars(action), "prog": command.prog}
        if action.choices:
            help_text += f" ({', '.join(map(str, action.choices))})"
        yield f"`{_name(action)}`", help_text.strip()


def _name(action: argparse.Action) -> str:
    word = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    if not action.option_strings:
        return str(word)
    value = "" if action.nargs == 0 else f" {word}"
    return f"{', '.join(action.option_strings)}{value}"
