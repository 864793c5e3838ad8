"""What the planner's choice costs against the best strategy in hindsight.

    python benchmarks/regret.py --data-dir ../shared/data --out regret.jsonl

For every image set and number of training images each strategy is forced, then the choice is left
to the planner; same splits, same epochs. The assessment is the same for all: it is done once and
its processor time is counted for each; beyond it every run starts with a cold feature cache. Prints
a table of test accuracy, the regret of `auto` in points (best forced minus auto) and its processor
time against that of trying all; with several seeds accuracies are means over them. Every run is
appended to --out, and a repeated command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sets import Assessed, assess, find_sets, link_subset, list_images, train_and_measure

from rootstock.plan.rules import MEANING, REGRET_SETS
from rootstock.plots.style import BLUE, GRID, ORANGE, QUIET, canvas, headline

CLASSES = {"tiny_imagenet": 20}
ALL = 5_000
"""`all` is at most this many training images, so that the largest set fits an afternoon."""
TEST_IMAGES = 1_000
AUTO = "auto"
Run = dict[str, Any]


def main() -> int:
    """Run what is missing in --out, then print the table."""
    options = parse_options()
    done = read_runs(options.out)
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder in find_sets(options.data_dir, options.sets, Path(scratch)):
            for seed in options.seeds:
                done += run_set(name, folder, seed, options, done, Path(scratch))
    if not done:
        return 1
    weights = Path(options.weights).stem
    shown = [run for run in done if run["weights"] == weights]
    print_tables(shown)
    if options.plot:
        plot_regret(shown, options.plot)
    return 0


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--sets", nargs="+", default=list(REGRET_SETS), help="folders in --data-dir"
    )
    parser.add_argument("--sizes", nargs="+", type=int, default=[100, 500, ALL])
    parser.add_argument("--strategies", nargs="+", default=[*MEANING, AUTO])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--weights", default="packaged", help="as backbone.weights")
    parser.add_argument("--out", type=Path, default=Path("regret.jsonl"))
    parser.add_argument("--plot", type=Path, help="write a picture there")
    return parser.parse_args()


def read_runs(path: Path) -> list[Run]:
    """The runs of earlier calls."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_set(
    name: str, folder: Path, seed: int, options: argparse.Namespace, done: list[Run], scratch: Path
) -> list[Run]:
    """Every strategy and auto on one set, for each number of images that it has."""
    manifest = list_images(folder, seed=seed)
    weights = Path(options.weights).stem
    fresh: list[Run] = []
    counts: set[int] = set()
    for size in sorted(options.sizes):
        part = scratch / f"{name}-{seed}-{size}"
        limits = {"train": size, "val": max(40, size // 4), "test": TEST_IMAGES}
        count = link_subset(
            manifest, folder.resolve(), part, limits=limits, classes=CLASSES.get(name)
        )
        if count in counts:
            continue  # the set has no more images than the last size took
        counts.add(count)
        assessed = None
        for strategy in options.strategies:
            key = {"set": name, "n_train": count, "seed": seed, "weights": weights}
            key |= {"strategy": strategy}
            if any(key.items() <= run.items() for run in done):
                continue
            settings = [f"backbone.weights={json.dumps(options.weights)}", f"seed={seed}"]
            assessed = assessed or assess(part, settings, part.with_name(f"{part.name}-assessed"))
            run = (
                key
                | {"size": size}
                | run_once(part, [*settings, f"plan.strategy={strategy}"], assessed)
            )
            with options.out.open("a") as file:
                file.write(json.dumps(run) + "\n")
            print(json.dumps(run), file=sys.stderr, flush=True)
            fresh.append(run)
    return fresh


def run_once(part: Path, settings: list[str], assessed: Assessed) -> Run:
    """Test accuracy, and processor minutes from the assessment to the written model."""
    done = train_and_measure(part, settings, assessed=assessed)
    return {
        "chosen": done.plan.strategy,
        "ruled": done.plan.evidence.ruled,
        "raced": done.plan.race is not None,
        "accuracy": done.metrics["accuracy"],
        "n_test": done.metrics["n_test"],
        "won": done.training["won"],
        "minutes": round(done.minutes, 3),
    }


@dataclass(frozen=True)
class Cell:
    """One set at one size: means over the seeds of which every strategy was run."""

    name: str
    n_train: int
    seeds: int
    accuracy: dict[str, float]
    """In points, by strategy and `AUTO`."""
    minutes: dict[str, float]
    chosen: Counter[str]
    ruled: float
    """What the table alone would have reached, in points."""

    @property
    def best(self) -> float:
        """Points of the best forced strategy in hindsight."""
        return max(self.accuracy[name] for name in MEANING)

    @property
    def regret(self) -> float:
        """Points that auto lies below the best forced strategy; negative where it lies above."""
        return self.best - self.accuracy[AUTO]

    @property
    def tried(self) -> float:
        """Minutes of trying all."""
        return sum(self.minutes[name] for name in MEANING)


def complete_cells(runs: list[Run]) -> list[Cell]:
    """Those sets and sizes of which every strategy was run with the same seeds."""
    seeds: dict[tuple[str, int], dict[int, dict[str, Run]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        seeds[run["set"], run["size"]][run["seed"]][run["strategy"]] = run
    cells = []
    for (name, _), tries in seeds.items():
        whole = [scores for scores in tries.values() if len(scores) == len(MEANING) + 1]
        if whole:
            cells.append(average_seeds(name, whole))
    return cells


def average_seeds(name: str, tries: list[dict[str, Run]]) -> Cell:
    """The means over ``tries``, each a run by strategy."""
    autos = [scores[AUTO] for scores in tries]
    pairs = zip(tries, autos, strict=True)
    return Cell(
        name=name,
        n_train=round(np.mean([run["n_train"] for run in autos])),
        seeds=len(tries),
        accuracy={s: 100 * float(np.mean([t[s]["accuracy"] for t in tries])) for s in tries[0]},
        minutes={s: float(np.mean([t[s]["minutes"] for t in tries])) for s in tries[0]},
        chosen=Counter(run["chosen"] + (" (raced)" if run["raced"] else "") for run in autos),
        ruled=100 * float(np.mean([scores[auto["ruled"]]["accuracy"] for scores, auto in pairs])),
    )


def print_tables(runs: list[Run]) -> None:
    """Markdown: a row for each set and size, accuracy and processor minutes; then the summary."""
    names = [*MEANING, AUTO]
    print(f"| set | train | seeds | {' | '.join(names)} | chosen | regret | time |")
    print(f"|{' --- |' * (len(names) + 6)}")
    cells = complete_cells(runs)
    for cell in cells:
        scores = " | ".join(f"{cell.accuracy[s]:.1f} ({cell.minutes[s]:.1f})" for s in names)
        chosen = ", ".join(
            name if times == cell.seeds else f"{times} {name}"
            for name, times in cell.chosen.most_common()
        )
        print(
            f"| {cell.name} | {cell.n_train} | {cell.seeds} | {scores} | {chosen} "
            f"| {cell.regret:+.1f} | {cell.minutes[AUTO] / cell.tried:.0%} |"
        )
    if not cells:
        return
    regrets = [cell.regret for cell in cells]
    table = [cell.best - cell.ruled for cell in cells]
    spent = sum(cell.seeds * cell.minutes[AUTO] for cell in cells)
    tried = sum(cell.seeds * cell.tried for cell in cells)
    print(
        f"\nregret of auto: mean {np.mean(regrets):.2f}, worst {max(regrets):.2f} points; of the "
        f"table alone: mean {np.mean(table):.2f}, worst {max(table):.2f}; auto took {spent:.1f} of "
        f"the {tried:.1f} processor minutes of trying all ({spent / tried:.0%})"
    )


def plot_regret(runs: list[Run], path: Path) -> None:
    """Each cell a line from the worst to the best forced strategy, auto marked on it."""
    cells = complete_cells(runs)
    with canvas(path, width=8, height=1.2 + 0.3 * len(cells)) as figure:
        axes = figure.subplots()
        for row, cell in enumerate(reversed(cells)):
            forced = [cell.accuracy[name] for name in MEANING]
            axes.plot([min(forced), max(forced)], [row, row], color=GRID, linewidth=4, zorder=1)
            axes.scatter(forced, [row] * len(forced), s=18, color=QUIET, zorder=2)
            axes.scatter(cell.accuracy[AUTO], row, s=46, color=ORANGE, zorder=3)
        labels = [f"{cell.name}, {cell.n_train}" for cell in reversed(cells)]
        axes.set_yticks(range(len(cells)), labels)
        axes.set_xlabel("test accuracy in %", color=BLUE)
        headline(
            axes, "auto against every strategy forced", "grey: forced strategies; orange: auto"
        )


if __name__ == "__main__":
    sys.exit(main())
