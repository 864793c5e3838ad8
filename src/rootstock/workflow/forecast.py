"""Part of stage `evaluate`: what the plan expected beside what came out, and the ledger's row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rootstock.assess.profile import DatasetProfile
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.plan.ledger import LedgerRow, append_row, make_row
from rootstock.plan.plan import TransferPlan
from rootstock.system.files import read_json, write_json


def compare_forecast(
    config: Config, paths: Paths, training: Mapping[str, Any], metrics: Mapping[str, float]
) -> dict[str, float]:
    """Write reports/forecast.json, add the run to the ledger; returns the numbers for tracking."""
    plan = TransferPlan.read(paths.plan)
    row = make_row(
        DatasetProfile.read(paths.profile).seen_by(plan.weights_sha256),
        plan,
        kept_head=training["kept_head"],
        test_accuracy=metrics["accuracy"],
        n_test=int(metrics["n_test"]),
        expected_minutes=_expected_minutes(paths, plan),
        minutes=round(_minutes(training), 4),
        seed=config.seed,
    )
    append_row(paths.below(config.plan.ledger), row)
    write_json(paths.forecast, _forecast(row))
    return _numbers(row)


def _expected_minutes(paths: Paths, plan: TransferPlan) -> float | None:
    """None where the plan was made on another machine."""
    file = paths.estimates / f"{plan.hash}.json"
    return round(read_json(file, made_by="plan")["minutes"], 3) if file.exists() else None


def _minutes(training: Mapping[str, Any]) -> float:
    """Of all trials together, as if one had followed the other."""
    trials = [*training["heads"], *training["finetuning"]]
    return sum(trial["metrics"].get("seconds", 0.0) for trial in trials) / 60


def _forecast(row: LedgerRow) -> dict[str, Any]:
    return {
        "strategy": row.strategy,
        "expected_accuracy": row.expected_accuracy,
        "test_accuracy": row.test_accuracy,
        "as_expected": row.as_expected,
        "expected_minutes": row.expected_minutes,
        "minutes": row.minutes,
    }


def _numbers(row: LedgerRow) -> dict[str, float]:
    found = {"training_minutes": row.minutes}
    if row.expected_accuracy:
        low, high = row.expected_accuracy
        found |= {"expected_accuracy_low": low, "expected_accuracy_high": high}
    if row.expected_minutes is not None:
        found["expected_minutes"] = row.expected_minutes
    return found
