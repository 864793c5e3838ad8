"""What each command does once its options are parsed.

A command connects the adapters, calls one function and prints. Heavy modules are imported
inside, so that `rootstock --help` answers at once. Long, because it is one list of all commands.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rootstock.config.load import describe_keys, load_config
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.errors import RootstockError

if TYPE_CHECKING:
    from rootstock.tasks.answer import Answer

DEFAULT_PARAMS = Path("params.yaml")


def check(options: argparse.Namespace) -> None:
    """Index a folder and print what is in it."""
    from rootstock.workflow.index import index_images

    with _workspace(None) as paths:
        manifest = index_images(_config(options), paths)
        summary = manifest.summary()
    if options.json:
        print_json(summary)
        return
    print(f"{summary['n_usable']} usable images of {summary['n_images']}")
    for label, splits in summary["classes"].items():
        print(f"  {printable(label):24} " + "  ".join(f"{name} {n}" for name, n in splits.items()))
    for item in summary["quarantined"]:
        print(f"  quarantined: {printable(item['path'])}: {item['reason']}")
    for warning in summary["warnings"]:
        print(f"  warning: {warning}")


def plan(options: argparse.Namespace) -> None:
    """Index, assess and plan; print the plan."""
    from rootstock.ports.search import SequentialSearcher
    from rootstock.workflow.prepare import prepare_plan

    config = _config(options)
    with _workspace(options.out) as paths:
        prepare_plan(config, paths, searcher=SequentialSearcher())
        result = paths.plan if options.json else paths.reports / "plan.md"
        print(result.read_text(encoding="utf-8"))


def train(options: argparse.Namespace) -> None:
    """All stages on one folder; print the test metrics and where things are."""
    from rootstock.integrations.connect import (
        connect_racer,
        connect_registry,
        connect_runs,
        connect_searcher,
        connect_spreader,
        quiet_environment,
    )
    from rootstock.workflow.run import run_all

    quiet_environment()
    config, paths = _config(options), Paths(options.out.resolve())
    run_all(
        config,
        paths,
        runs=connect_runs(config, paths),
        searcher=connect_searcher(config),
        racer=connect_racer(config),
        spreader=connect_spreader(config),
        registry=connect_registry(config, paths),
    )
    metrics = json.loads(paths.metrics.read_text(encoding="utf-8"))
    registration = json.loads(paths.registration.read_text(encoding="utf-8"))
    if options.json:
        print_json({"metrics": metrics, "model": str(paths.model), "registration": registration})
        return
    print((paths.reports / "plan.md").read_text(encoding="utf-8"))
    _print_metrics(metrics)
    print(f"\n{registration['reason']}")
    print(f"\nmodel    {paths.model}\nreports  {paths.reports}")
    print(f"serve    rootstock serve --model {paths.model}")


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


def evaluate(options: argparse.Namespace) -> None:
    """Measure a model on the test split of a labelled folder (all of it where none is given)."""
    from rootstock.workflow.evaluate import evaluate_folder

    config = _config(options)
    with open_model(options.model) as directory, _workspace(options.out) as paths:
        metrics = evaluate_folder(config, paths, model=directory)
    if options.json:
        print_json(metrics)
    else:
        _print_metrics(metrics)


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


def calibrate(options: argparse.Namespace) -> None:
    """Print the settings that fit the runs in the ledger, for params.yaml."""
    import yaml

    from rootstock.plan.calibrate import calibrate as fit
    from rootstock.plan.ledger import read_ledger

    config = load_config(_own_params())
    files = options.ledger or [config.plan.ledger]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise RootstockError(
            f"there is no ledger {', '.join(missing)}",
            hint="it is written by finished runs, see plan.ledger in params.yaml",
        )
    rows = [row for file in files for row in read_ledger(file)]
    found = fit(
        rows,
        shares=config.plan.shares,
        small_below=config.assess.small_below,
        similar_from=config.assess.similar_from,
        small_per_class_below=config.assess.small_per_class_below,
        large_from=config.assess.large_from,
    )
    if options.json:
        print_json(dataclasses.asdict(found))
        return
    print(f"# {found.n_rows} runs, {found.n_sets} data sets with two strategies or more")
    if found.coverage is not None:
        print(f"# accuracy was in the expected range in {found.coverage:.0%} of the runs")
    if found.regret is None:
        print("# thresholds left as they are: too few data sets to compare strategies on")
    else:
        old, new = found.regret
        print(f"# mean regret of the table: {old:.2f} points now, {new:.2f} with these thresholds")
    print(yaml.safe_dump(found.settings(), sort_keys=False), end="")


def params(options: argparse.Namespace) -> None:
    """List every key of params.yaml with its default and meaning."""
    keys = list(describe_keys())
    if options.json:
        print_json([dict(zip(("key", "default", "meaning"), row, strict=True)) for row in keys])
        return
    for key, default, meaning in keys:
        print(f"{key} = {default}\n    {meaning}")


def doctor(options: argparse.Namespace) -> None:
    """Say what this machine has, and what is missing."""
    from rootstock.cli.doctor import examine

    findings = examine(Paths(Path.cwd()))
    if options.json:
        print_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            print(f"{finding.verdict:5} {finding.name:14} {finding.detail}")
    if any(finding.verdict == "fail" for finding in findings):
        sys.exit(1)


def tidy(options: argparse.Namespace) -> None:
    """Remove features of images that are in no manifest any more."""
    from rootstock.data.manifest import Manifest
    from rootstock.features.store.compaction import collect
    from rootstock.features.store.store import FeatureStore

    config = load_config(_own_params())
    paths = Paths(Path.cwd())
    root = paths.below(config.features.store)
    absent = [str(path) for path in options.keep if not path.is_file()]
    if absent:
        raise RootstockError(
            f"there is no manifest {', '.join(absent)}; nothing was removed",
            hint="name the artifacts/manifest.parquet of another project on the same store",
        )
    manifests = [Manifest.read(path) for path in (paths.manifest, *options.keep)]
    before = _size(root)
    gone = collect(FeatureStore(root), manifests)
    freed = before - _size(root)
    if options.json:
        print_json({"rows": gone.rows, "files": gone.files, "bytes": freed})
        return
    print(
        f"{gone.rows} feature rows removed, {gone.files} files deleted, {freed / 1e6:.1f} MB freed"
    )
    print("Files of the last hour are left alone: who writes them may not have a manifest yet.")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _own_params() -> Path | None:
    """params.yaml of the current folder, if there is one."""
    return DEFAULT_PARAMS if DEFAULT_PARAMS.exists() else None


def _config(options: argparse.Namespace) -> Config:
    """params.yaml of the current folder, if any, with the data folder and --set on top."""
    path = options.params or _own_params()
    root = json.dumps(str(options.data.absolute()))
    return load_config(path, overrides=[f"data.root={root}", *options.set])


@contextmanager
def _workspace(out: Path | None) -> Iterator[Paths]:
    """The folder asked for, or one that is removed afterwards."""
    if out is not None:
        yield Paths(out.resolve())
        return
    with tempfile.TemporaryDirectory(prefix="rootstock-") as folder:
        yield Paths(Path(folder))


@contextmanager
def open_model(name: str) -> Iterator[Path]:
    """The directory of a model given as directory or models:/ URI; default: the champion."""
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
    """Return the parameters here and their registry, opened by ``connect``; default: in full."""
    from rootstock.integrations.connect import connect_registry, quiet_environment

    quiet_environment()
    config = load_config(_own_params())
    connect = connect or partial(connect_registry, make=False)
    registry = connect(config, Paths(Path.cwd()))
    if registry is None:
        raise RootstockError(
            "there is no registry: tracking.enabled is false", hint="set it to true in params.yaml"
        )
    return config, registry


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RootstockError(f"{path} cannot be read: {error.strerror}") from None


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _print_metrics(metrics: dict[str, Any]) -> None:
    print("test metrics")
    for name, value in metrics.items():
        print(f"  {name:24} {value}")


def _print_predictions(answers: Sequence[Answer]) -> None:
    for answer in answers:
        note = "  (unlike all the model has seen)" if answer.unknown else ""
        text = str(answer.error) if answer.error else f"{answer.summary}{note}"
        print(f"{printable(answer.filename)}: {text}")


def printable(text: str) -> str:
    """A name as one line: control characters, which file names may hold, are escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
