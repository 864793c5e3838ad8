"""The result that a run prints: quality of the model, its registration, and next commands."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from rootstock.config.paths import Paths
from rootstock.data.manifest import Manifest
from rootstock.system.escape import escape_terminal
from rootstock.system.files import read_json
from rootstock.tasks import get_task

REPORTS = {
    "data.md": "problems with images, labels to review, expected accuracy",
    "plan.md": "the choices and their reasons",
    "report.html": "results per class, and wrong answers",
    "model_card.md": "a summary for users of the model",
}


def render_result(paths: Paths) -> str:
    """Return the result of the last run in a few lines.

    Raises:
        ArtifactError: a stage has not run yet.
    """
    metrics = read_json(paths.metrics, made_by="evaluate")
    registration = read_json(paths.registration, made_by="register")
    training = read_json(paths.training, made_by="train")
    forecast = read_json(paths.forecast, made_by="evaluate")
    task = get_task(Manifest.read(paths.manifest).task)
    quality = task.describe_quality(metrics, [], 0.0)[0].removeprefix("- ").replace("**", "")
    expected = ""
    if forecast["expected_accuracy"] and task.score == task.headline:
        low, high = forecast["expected_accuracy"]
        expected = f" The plan expected {low:.1%} to {high:.1%}."
    lines = _block("result", [f"{quality}{expected}"])
    lines += _block("model", [f"{training['strategy']}: {training['won']}"])
    lines += _block("registry", [registration["reason"]])
    lines += _block(
        "reports",
        (
            f"{_shown(paths.reports / name):32} {what}"
            for name, what in REPORTS.items()
            if (paths.reports / name).exists()
        ),
    )
    lines += _block("next", _next_commands(paths, registration.get("alias", ""), task.headline))
    return "\n".join(lines)


def _next_commands(paths: Paths, alias: str, headline: str) -> list[str]:
    """Return commands to run next, as typed in the current folder."""
    model = _shown(paths.model)
    commands = [
        f"rootstock predict IMAGE --model {model}",
        f"rootstock serve --model {model}",
    ]
    there = "" if paths.root.resolve() == Path.cwd() else f"cd {_shown(paths.root)} && "
    if alias == "challenger":
        commands.append(f"{there}rootstock compare    # champion against this model")
    if (paths.root / "dvc.yaml").exists():
        commands.append("dvc exp run -S plan.strategy=full_finetune    # try another strategy")
        columns = f"^(Experiment|{headline}|plan.strategy)"  # all parameters would add 70 columns
        # Only the last five commits: -A reads the whole history, which takes minutes in a clone.
        commands.append(
            f"dvc exp show -n 5 --drop '.*' --keep '{columns}'    # compare the experiments"
        )
    return commands


def _block(title: str, lines: Iterable[str]) -> list[str]:
    return [
        f"{title if number == 0 else '':9} {escape_terminal(line)}"
        for number, line in enumerate(lines)
    ]


def _shown(path: Path) -> str:
    """Return ``path`` for the command line: relative if it is below the current folder."""
    path, here = path.resolve(), Path.cwd()
    return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)
