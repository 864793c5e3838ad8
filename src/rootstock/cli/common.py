"""Helpers shared by the commands: settings, models, printing, options."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.errors import RootstockError
from rootstock.system.exclusive import claim_folder
from rootstock.system.output import divert_stdout

DEFAULT_PARAMS = Path("params.yaml")
_documents: list[TextIO] = []
"""The stream for documents while `only_documents` is active."""


def own_params() -> Path | None:
    """params.yaml of the current folder, if there is one."""
    return DEFAULT_PARAMS if DEFAULT_PARAMS.exists() else None


def read_config(options: argparse.Namespace) -> Config:
    """Return params.yaml of the current folder, if any, with the data folder and --set applied.

    Raises:
        DataError: the results would be written among the images.
    """
    from rootstock.workflow.start import check_place

    path = options.params or own_params()
    root = json.dumps(str(options.data.absolute()))
    config = load_config(path, overrides=[f"data.root={root}", *options.set])
    if getattr(options, "out", None):
        check_place(config.data.root, options.out)
    return config


@contextmanager
def workspace(out: Path | None) -> Iterator[Paths]:
    """Yield ``out``, or a temporary folder that is removed afterwards.

    Raises:
        ArtifactError: another run is writing to this folder.
    """
    if out is not None:
        with claim_folder(out.resolve()):
            yield Paths(out.resolve())
        return
    with tempfile.TemporaryDirectory(prefix="rootstock-") as folder:
        yield Paths(Path(folder))


def forget_seen(options: argparse.Namespace, paths: Paths) -> None:
    """Make the index read every image again if ``--recheck`` is given."""
    if options.recheck:
        paths.seen.unlink(missing_ok=True)


@contextmanager
def open_model(name: str) -> Iterator[Path]:
    """Yield the directory of a model (a directory or models:/ URI; default: the champion)."""
    if name and not name.startswith("models:/"):
        yield Path(name)
        return
    from rootstock.integrations.connect import connect_reader
    from rootstock.registry.model_uri import parse_model_uri

    named = parse_model_uri(name) if name else None
    config, registry = open_registry(connect_reader)
    wanted = named or parse_model_uri(f"models:/{config.registry.name}@champion")
    entry = registry.find(wanted.name, alias=wanted.alias, version=wanted.version)
    with tempfile.TemporaryDirectory(prefix="rootstock-") as folder:
        yield registry.download(entry, Path(folder) / "model")


def open_registry(connect: Callable[..., Any] | None = None) -> tuple[Config, Any]:
    """Return the settings and the registry, opened by ``connect`` (default: for all uses)."""
    from rootstock.integrations.connect import connect_registry

    config = load_config(own_params())
    connect = connect or partial(connect_registry, make=False)
    registry = connect(config, Paths(Path.cwd()))
    if registry is None:
        raise RootstockError(
            "the project has no registry, because tracking.enabled is false",
            hint="set it to true in params.yaml",
        )
    return config, registry


@contextmanager
def only_documents() -> Iterator[None]:
    """Reserve standard output for `print_document`; other output goes to standard error."""
    with divert_stdout(sys.stderr) as true:
        _documents.append(true)
        try:
            yield
        finally:
            _documents.pop()


def print_document(text: str) -> None:
    """Print the result of a command to standard output."""
    print(text, file=_documents[-1] if _documents else sys.stdout, flush=True)


def print_json(value: Any) -> None:
    """Print the result of a command as JSON."""
    print_document(json.dumps(value, indent=2, ensure_ascii=False))


def print_metrics(metrics: dict[str, Any]) -> None:
    print("test metrics")
    for name, value in metrics.items():
        print(f"  {name:24} {value}")


def add_command(commands: Any, name: str, handler: Any, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    command.set_defaults(handler=handler)
    return command


def add_options(command: argparse.ArgumentParser, *names: str) -> None:
    if "set" in names:
        command.add_argument(
            "--params",
            type=Path,
            help="path of a params.yaml; default: the one in the current folder, if any",
        )
        command.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="override a key of params.yaml, e.g. --set plan.strategy=linear_probe",
        )
    if "recheck" in names:
        command.add_argument(
            "--recheck",
            action="store_true",
            help="read every image again, even if it looks unchanged since the last run",
        )
    if "json" in names:
        command.add_argument("--json", action="store_true", help="print one JSON object")
