"""Part of the stage `evaluate`: compare the plan's expectation with the outcome."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rootstock.plan.ledger import LedgerRow
from rootstock.plan.rules import EXPECTED_LEVEL
from rootstock.plan.transfer_plan import TransferPlan
from rootstock.system.files import read_json

EXPECTED, UNCORRECTED = "minutes", "uncorrected_minutes"
"""Keys of a file of estimates: the expected minutes, and those before `measure_pace`."""


def read_expected_minutes(
    estimates: Path, plan: TransferPlan, *, key: str = EXPECTED
) -> float | None:
    """Return the expected minutes of training; None if the estimate is from another machine."""
    file = estimates / f"{plan.hash}.json"
    minutes = read_json(file, made_by="plan").get(key) if file.exists() else None
    return None if minutes is None else round(minutes, 4)


def training_minutes(training: Mapping[str, Any]) -> float:
    """Return the minutes of all trials, as if they ran one after another."""
    trials = [*training["heads"], *training["finetuning"]]
    return sum(trial["metrics"].get("seconds", 0.0) for trial in trials) / 60


def plan_minutes(estimates: Path, plan: TransferPlan) -> dict[str, float]:
    """Return the known minutes of assessment and race on this machine, by name."""
    file = estimates / f"{plan.hash}.json"
    known = read_json(file, made_by="plan") if file.exists() else {}
    return {
        name: round(value, 3)
        for name, value in known.items()
        if name not in (EXPECTED, UNCORRECTED)
    }


def forecast_record(row: LedgerRow, own: Mapping[str, float]) -> dict[str, Any]:
    """Return the content of reports/forecast.json; ``own`` are the minutes of the plan itself."""
    return {
        **own,
        "level": EXPECTED_LEVEL,
        "strategy": row.strategy,
        "expected_accuracy": row.expected_accuracy,
        "test_accuracy": row.test_accuracy,
        "as_expected": row.as_expected,
        "expected_minutes": row.expected_minutes,
        "minutes": row.minutes,
    }


def forecast_metrics(row: LedgerRow) -> dict[str, float]:
    """Return the numbers for the tracking."""
    metrics = {"training_minutes": row.minutes}
    if row.expected_accuracy:
        low, high = row.expected_accuracy
        metrics |= {"expected_accuracy_low": low, "expected_accuracy_high": high}
    if row.expected_minutes is not None:
        metrics["expected_minutes"] = row.expected_minutes
    return metrics
