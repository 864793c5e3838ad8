"""The tables of `regret.py`: regret, time, intervals, and minutes of its runs."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from stamp import describe_run

from rootstock.config.choices import PRIOR_SHARES, Strategy
from rootstock.plan import rules
from rootstock.plan.calibrate import calibrate
from rootstock.plan.ledger import LedgerRow
from rootstock.plan.rules import MEANING
from rootstock.plots.style import BLUE, GRID, ORANGE, QUIET, canvas, headline

AUTO = "auto"
REFERENCE = "reference"
FORCED = tuple(name for name in MEANING if name != "norm_finetune")
"""The strategies that the planner chooses from; `norm_finetune` is trained only on request."""
Run = dict[str, Any]
THRESHOLDS = {"small_below": 1000, "similar_from": 0.5}
"""The defaults of `assess`, which `leave_one_out` starts from."""
SIZES = {"small_per_class_below": 10, "large_from": 20_000}


def read_runs(path: Path) -> list[Run]:
    """Return the runs of earlier calls."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@dataclass(frozen=True)
class Cell:
    """One set at one size with one backbone: the seeds for which every strategy was run."""

    name: str
    weights: str
    tries: Sequence[dict[str, Run]]

    def mean(self, strategy: str, key: str) -> float:
        """Return the mean over the seeds."""
        return float(np.mean([scores[strategy][key] for scores in self.tries]))

    def points(self, strategy: str) -> float:
        """Return the accuracy in points."""
        return 100 * self.mean(strategy, "accuracy")

    @property
    def autos(self) -> list[Run]:
        """The runs in which the planner chose."""
        return [scores[AUTO] for scores in self.tries]

    @property
    def best(self) -> float:
        """Accuracy in points of the best forced strategy in hindsight."""
        return max(self.points(name) for name in FORCED)

    @property
    def regret(self) -> float:
        """Points by which the best forced strategy beats auto; negative if auto is better."""
        return self.best - self.points(AUTO)

    @property
    def regret_error(self) -> float:
        """The standard error of the regret: both answered the same test images."""
        best = max(FORCED, key=self.points)
        return self._lead(best, AUTO)[1]

    @property
    def table_regret(self) -> float:
        """Points by which the best forced strategy beats the table's choice."""
        ruled = [scores[scores[AUTO]["ruled"]]["accuracy"] for scores in self.tries]
        return self.best - 100 * float(np.mean(ruled))

    @property
    def tried(self) -> float:
        """Minutes of trying all strategies."""
        return sum(self.mean(name, "minutes") for name in FORCED)

    @property
    def chosen(self) -> str:
        """The planner's choices, with how often it made each."""
        counts = Counter(
            run["trained"] + (" (raced)" if run["raced"] else "") for run in self.autos
        )
        return ", ".join(
            name if times == len(self.tries) else f"{times} {name}"
            for name, times in counts.most_common()
        )

    def against_reference(self, key: str = "right") -> tuple[float, float] | None:
        """Auto's lead over the reference in points, and the paired standard error; None without."""
        if not all(key in scores.get(REFERENCE, {}) for scores in self.tries):
            return None
        return self._lead(AUTO, REFERENCE, key)

    def _lead(self, name: str, other: str, other_key: str = "right") -> tuple[float, float]:
        """Return the lead of one way over another in points, and its paired standard error."""
        leads = np.concatenate(
            [as_array(one[name]) - as_array(one[other], other_key) for one in self.tries]
        )
        return 100 * float(leads.mean()), 100 * float(leads.std()) / math.sqrt(len(leads))

    @property
    def intervals(self) -> list[bool]:
        """Whether each run, forced ones included, was in its expected range."""
        runs = [run for scores in self.tries for run in scores.values() if "forecast" in run]
        return [run["forecast"]["as_expected"] for run in runs]

    @property
    def minutes(self) -> list[float]:
        """Minutes of training divided by the expected ones, for each fine-tuned run."""
        runs = [run for scores in self.tries for run in scores.values() if "forecast" in run]
        found = [(run["forecast"]["minutes"], run["forecast"]["expected_minutes"]) for run in runs]
        return [taken / expected for taken, expected in found if expected and taken > 0.2]


def as_array(run: Run, key: str = "right") -> np.ndarray:
    """Return float[N]: 1 for each test image whose class was right."""
    return np.array([float(digit) for digit in run[key]])


def complete_cells(runs: list[Run]) -> list[Cell]:
    """Return the sets and sizes for which every strategy was run with the same seeds."""
    found: dict[tuple[str, str, int], dict[int, dict[str, Run]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for run in runs:
        found[run["weights"], run["set"], run["size"]][run["seed"]][run["strategy"]] = run
    needed = {*FORCED, AUTO}
    cells = []
    for (weights, name, _), tries in sorted(found.items()):
        whole = [scores for scores in tries.values() if needed <= scores.keys()]
        if whole:
            cells.append(Cell(name, weights, whole))
    return cells


def leave_one_out(cells: Sequence[Cell]) -> dict[str, float]:
    """Return, by set, the table's mean regret in points with thresholds fitted to the other sets.

    These thresholds, by `calibrate`, are everything that the planner fits to data. The other
    numbers in `plan/` are constants, whose comments name the sets that they were chosen on.
    """
    regrets = {}
    for name in sorted({cell.name for cell in cells}):
        rows = [row for cell in cells if cell.name != name for row in as_ledger(cell)]
        fitted = calibrate(rows, shares=PRIOR_SHARES, **THRESHOLDS, **SIZES)
        left = []
        for cell in (cell for cell in cells if cell.name == name):
            row = as_ledger(cell)[0]
            size = rules_size(row, fitted.small_below)
            choice = rules.choose_strategy(size, similar=row.similarity >= fitted.similar_from)
            left.append(cell.best - cell.points(choice))
        regrets[name] = round(float(np.mean(left)), 2)
    return regrets


def rules_size(row: LedgerRow, small_below: int) -> Any:
    """Return the size class of a row with this threshold."""
    from rootstock.assess.size import size_class

    return size_class(row.n_train, row.median_per_class, small_below=small_below, **SIZES)


def as_ledger(cell: Cell) -> list[LedgerRow]:
    """Return the forced runs of a cell as rows of a ledger."""
    rows = []
    for scores in cell.tries:
        for name in FORCED:
            run = scores[name]
            rows.append(
                LedgerRow(
                    data_hash=f"{cell.name}-{run['size']}",
                    weights_sha256=cell.weights,
                    n_train=run["n_train"],
                    n_classes=2,
                    median_per_class=run["median_per_class"],
                    imbalance=1.0,
                    size_class="small",
                    similarity=run["similarity"],
                    similar=run["similarity"] >= THRESHOLDS["similar_from"],
                    probe_last=None,
                    probe_early=None,
                    ruled=run["ruled"],
                    strategy=cast(Strategy, name),
                    raced=False,
                    kept_head=False,
                    expected_accuracy=None,
                    test_accuracy=run["accuracy"],
                    n_test=int(run["n_test"]),
                    expected_minutes=None,
                    minutes=run["minutes"],
                    seed=run["seed"],
                )
            )
    return rows


def summarise(cells: Sequence[Cell]) -> dict[str, Any]:
    """Return the figures of all cells together."""
    regrets = [cell.regret for cell in cells]
    spent = sum(len(cell.tries) * cell.mean(AUTO, "minutes") for cell in cells)
    tried = sum(len(cell.tries) * cell.tried for cell in cells)
    intervals = [one for cell in cells for one in cell.intervals if one is not None]
    autos = [run["forecast"]["as_expected"] for cell in cells for run in cell.autos]
    ratios = [ratio for cell in cells for ratio in cell.minutes]
    leads = [lead for cell in cells if (lead := cell.against_reference())]
    with_val = [lead for cell in cells if (lead := cell.against_reference("right_with_val"))]
    out = leave_one_out(cells)
    return {
        "cells": len(cells),
        "mean_regret": round(float(np.mean(regrets)), 2),
        "worst_regret": round(max(regrets), 2),
        "regret_beyond_two_errors": sum(c.regret > 2 * c.regret_error for c in cells),
        "mean_regret_of_the_table": round(float(np.mean([c.table_regret for c in cells])), 2),
        "leave_one_out_regret_of_the_table": round(float(np.mean(list(out.values()))), 2),
        "share_of_time": round(spent / tried, 3),
        "coverage_of_the_interval": round(float(np.mean(intervals)), 3) if intervals else None,
        "runs_with_an_interval": len(intervals),
        "coverage_of_auto": round(float(np.mean([one for one in autos if one is not None])), 3),
        "minutes_within_a_quarter": [sum(0.75 <= r <= 1.25 for r in ratios), len(ratios)],
        "mean_lead_over_the_reference": round(float(np.mean([lead for lead, _ in leads])), 2)
        if leads
        else None,
        "below_the_reference_by_more_than_its_error": int(
            sum(lead < -noise for lead, noise in leads)
        ),
        "compared_with_the_reference": len(leads),
        "mean_lead_over_the_reference_with_val": round(float(np.mean([a for a, _ in with_val])), 2)
        if with_val
        else None,
        "below_it_with_val_by_more_than_its_error": sum(a < -noise for a, noise in with_val),
    }


def show(runs: list[Run], *, plot: Path | None = None) -> None:
    """Print Markdown: a row per set and size, then the summary; draw a picture to ``plot``."""
    cells = complete_cells(runs)
    if not cells:
        return
    names = [*FORCED, AUTO]
    columns = ["backbone", "set", "train", "seeds", *names, "chosen", "regret", "time"]
    columns += ["lead over scikit-learn", "the same with validation images"]
    print("| " + " | ".join(columns) + " |")
    print("| --- " * len(columns) + "|")
    for cell in cells:
        scores = [f"{cell.points(s):.1f} ({cell.mean(s, 'minutes'):.1f})" for s in names]
        leads = [cell.against_reference(key) for key in ("right", "right_with_val")]
        row = [cell.weights, cell.name, f"{cell.mean(AUTO, 'n_train'):.0f}", str(len(cell.tries))]
        row += [*scores, cell.chosen, f"{cell.regret:+.1f} ± {cell.regret_error:.1f}"]
        row += [f"{cell.mean(AUTO, 'minutes') / cell.tried:.0%}"]
        row += [f"{lead[0]:+.1f} ± {lead[1]:.1f}" if lead else "" for lead in leads]
        print("| " + " | ".join(row) + " |")
    for name, value in summarise(cells).items():
        print(f"{name.replace('_', ' ')}: {value}")
    print(f"leave one out: {leave_one_out(cells)}")
    if plot:
        plot_regret(cells, plot)


def write_results(runs: list[Run], path: Path) -> None:
    """Write the summary, every cell and every run as JSON."""
    cells = complete_cells(runs)
    tree = {
        **describe_run("python benchmarks/regret.py --data-dir ../shared/data --out regret.jsonl"),
        "summary": summarise(cells),
        "leave_one_out_regret_of_the_table": leave_one_out(cells),
        "regret_errors": {
            f"{c.name}, {c.tries[0][AUTO]['size']}": round(c.regret_error, 2) for c in cells
        },
        "runs": [{k: v for k, v in run.items() if not k.startswith("right")} for run in runs],
    }
    path.write_text(json.dumps(tree, indent=1) + "\n")


def plot_regret(cells: Sequence[Cell], path: Path) -> None:
    """Draw each cell as a line from the worst to the best forced strategy, with auto marked."""
    with canvas(path, width=8, height=1.2 + 0.3 * len(cells)) as figure:
        axes = figure.subplots()
        for row, cell in enumerate(reversed(cells)):
            forced = [cell.points(name) for name in FORCED]
            axes.plot([min(forced), max(forced)], [row, row], color=GRID, linewidth=4, zorder=1)
            axes.scatter(forced, [row] * len(forced), s=18, color=QUIET, zorder=2)
            axes.scatter(cell.points(AUTO), row, s=46, color=ORANGE, zorder=3)
        labels = [f"{cell.name}, {cell.mean(AUTO, 'n_train'):.0f}" for cell in reversed(cells)]
        axes.set_yticks(range(len(cells)), labels)
        axes.set_xlabel("test accuracy in %", color=BLUE)
        headline(axes, "auto and every forced strategy", "grey: forced strategies; orange: auto")
