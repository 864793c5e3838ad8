"""Commands that train and measure: plan, train, evaluate, refit, calibrate."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rootstock.cli.common import (
    add_command,
    add_options,
    forget_seen,
    open_model,
    own_params,
    print_document,
    print_json,
    print_metrics,
    read_config,
    workspace,
)
from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.errors import RootstockError
from rootstock.system.exclusive import claim_folder

if TYPE_CHECKING:
    from rootstock.model.bundle import ModelBundle

RUNS = Path("runs")
"""The folder that `rootstock train` uses without --out; it has one subfolder per data folder."""


def add_commands(commands: Any) -> None:
    """Add plan, train, evaluate, refit and calibrate."""
    command = add_command(
        commands, "plan", plan, "measure a data set and explain the transfer plan"
    )
    command.add_argument("data", type=Path, help="folder or table of labelled images")
    command.add_argument("--out", type=Path, help="folder for artifacts and reports")
    add_options(command, "set", "recheck", "json")

    command = add_command(commands, "train", train, "run all stages on a folder, without DVC")
    command.add_argument("data", type=Path, help="folder or table of labelled images")
    command.add_argument("--out", type=Path, help=f"output folder; default: {RUNS}/NAME-OF-DATA")
    add_options(command, "set", "recheck", "json")

    command = add_command(commands, "evaluate", evaluate, "measure a model on labelled images")
    command.add_argument("data", type=Path, help="folder or table of labelled images")
    command.add_argument("--model", default="", help="model directory or models:/ URI")
    command.add_argument("--out", type=Path, help="folder for the report")
    add_options(command, "set", "json")

    command = add_command(
        commands, "refit", refit, "fit the model's head to the current labels, in seconds"
    )
    command.add_argument("--model", type=Path, help="default: the model of this project")
    command.add_argument(
        "--register",
        action="store_true",
        help="register the result; it becomes champion if it passes the gate",
    )
    add_options(command, "json")

    command = add_command(
        commands, "calibrate", calibrate, "fit the planner's thresholds to the runs in the ledger"
    )
    command.add_argument(
        "--ledger", type=Path, action="append", help="default: plan.ledger; may be repeated"
    )
    add_options(command, "json")


def plan(options: argparse.Namespace) -> None:
    """Index, assess and plan; print the plan."""
    from rootstock.ports.search import SequentialSearcher
    from rootstock.workflow.prepare import prepare_plan

    config = read_config(options)
    with workspace(options.out) as paths:
        forget_seen(options, paths)
        prepare_plan(config, paths, searcher=SequentialSearcher())
        result = paths.plan if options.json else paths.reports / "plan.md"
        print_document(result.read_text(encoding="utf-8"))


def train(options: argparse.Namespace) -> None:
    """Run all stages on one folder; print the result and the next commands."""
    from rootstock.integrations.connect import locate_runs
    from rootstock.system.files import read_json
    from rootstock.workflow.result import render_result

    options.out = options.out or default_folder(options.data)
    config, paths = read_config(options), Paths(options.out.resolve())
    forget_seen(options, paths)
    run_connected(config, paths)
    if options.json:
        metrics = read_json(paths.metrics, made_by="evaluate")
        registration = read_json(paths.registration, made_by="register")
        print_json({"metrics": metrics, "model": str(paths.model), "registration": registration})
    else:
        print(render_result(paths))
        if address := locate_runs(config, paths):
            print(f"runs      {address}")


def run_connected(config: Config, paths: Paths) -> ModelBundle:
    """Run all stages with the tracking, the search and the registry of the settings.

    Raises:
        RootstockError: the images, the settings or the machine do not allow it.
    """
    from rootstock.integrations.connect import (
        check_cluster,
        check_tracking,
        connect_racer,
        connect_registry,
        connect_runs,
        connect_searcher,
        connect_spreader,
    )
    from rootstock.workflow.run import run_all

    check_tracking(config, paths)
    check_cluster(config)
    return run_all(
        config,
        paths,
        runs=connect_runs(config, paths),
        searcher=connect_searcher(config),
        racer=connect_racer(config),
        spreader=connect_spreader(config),
        registry=connect_registry(config, paths),
    )


def default_folder(data: Path) -> Path:
    """Return the folder below `RUNS` for these images."""
    out = RUNS / (data.stem if data.is_file() else data.resolve().name)
    print(f"writing to {out} (choose another folder with --out)", file=sys.stderr)
    return out


def evaluate(options: argparse.Namespace) -> None:
    """Measure a model on the test split of labelled images, or on all if there is no split."""
    from rootstock.workflow.evaluate import evaluate_folder

    config = read_config(options)
    with open_model(options.model) as directory, workspace(options.out) as paths:
        metrics, notes = evaluate_folder(config, paths, model=directory)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if options.json:
        print_json(metrics)
    else:
        print_metrics(metrics)


def refit(options: argparse.Namespace) -> None:
    """Fit the head of the project's model to the current labels; print the gain."""
    from rootstock.integrations.connect import connect_registry, connect_runs
    from rootstock.workflow.refit import refit_head
    from rootstock.workflow.register import register_model

    config, paths = load_config(own_params()), Paths(Path.cwd())
    with claim_folder(paths.root):
        done = refit_head(config, paths, base=options.model)
        outcome: dict[str, Any] = {}
        if options.register:
            runs, registry = connect_runs(config, paths), connect_registry(config, paths)
            outcome = register_model(done.config, done.paths, runs=runs, registry=registry)
    if options.json:
        comparison = done.comparison and done.comparison.to_dict()
        parts = {"metrics": done.metrics, "model": str(done.paths.model), "seconds": done.seconds}
        print_json(parts | {"comparison": comparison, "registration": outcome})
        return
    reason = done.comparison.reason if done.comparison else "the classes have changed"
    print(f"refitted in {done.seconds:.1f} s with {done.n_corrected} corrected labels: {reason}")
    print(f"model     {done.paths.model}")
    if outcome:
        print(f"registry  {outcome['reason']}")


def calibrate(options: argparse.Namespace) -> None:
    """Print settings for params.yaml that fit the runs in the ledger."""
    import yaml

    from rootstock.plan.calibrate import calibrate as fit
    from rootstock.plan.ledger import read_ledger

    config = load_config(own_params())
    files = options.ledger or [config.plan.ledger]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise RootstockError(
            f"{', '.join(missing)} does not exist",
            hint="finished runs write the ledger to plan.ledger in params.yaml",
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
    print(f"# {found.n_rows} runs, {found.n_sets} data sets with at least two strategies")
    if found.coverage is not None:
        print(f"# accuracy was in the expected range in {found.coverage:.0%} of the runs")
    if found.regret is None:
        print("# thresholds unchanged: too few data sets to compare strategies")
    else:
        old, new = found.regret
        print(f"# mean regret of the table: {old:.2f} points now, {new:.2f} with these thresholds")
    print(yaml.safe_dump(found.settings(), sort_keys=False), end="")
