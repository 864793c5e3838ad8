"""Measure how each stage's seconds and peak memory grow with the data, and fit exponents.

    python benchmarks/growth.py --data-dir ../shared/data --plot growth.png
    python benchmarks/growth.py --sizes 300 1000 --against CHECKOUT --json growth.json

CIFAR-10 and Tiny ImageNet together, 32 and 64 pixels, divided into ten classes; embedded backbone,
`linear_probe`. Each stage runs in a separate process, as with DVC, so imports count (about
5 seconds and 400 MB if torch is needed). The model is registered twice, so that it is compared
with a champion, in a registry that is a folder. The last rows add 1 % of new images and run index
and features again. ``--against`` runs each stage of another checkout's growth.py just before this
one's, on the same images. On a machine with other work, compare the processor seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from stamp import commit_of, describe_run

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.config.schema import Config

STAGES = ("index", "assess", "plan", "features", "train", "evaluate", "register")
AGAIN = ("index, 1 % new", "features, 1 % new")
SETTINGS = (
    "plan.strategy=linear_probe",
    "plan.race=never",
    "search.engine=sequential",
    "tracking.enabled=false",
    "train.l2_grid=[0.001,0.01,0.1,1.0]",
)
CLASSES = 10
HERE = Path(__file__).resolve().parents[1]


class Cost(NamedTuple):
    """Wall-clock and processor seconds, and peak resident memory."""

    seconds: float
    processor_seconds: float
    memory_mb: float


Costs = dict[int, dict[str, Cost]]
"""Costs by number of images and stage."""


def main() -> None:
    """Run one stage (as a child), or all of them on every size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="checkout to compare with")
    parser.add_argument("--stage", nargs=3, metavar=("NAME", "IMAGES", "OUT"), help="a child's")
    options = parser.parse_args()
    if options.stage:
        name, images, out = options.stage
        run_stage(name, Path(images), Path(out))
        print(peak_memory())
        return
    from sets import find_sets  # it imports torch, which not every stage does

    checkouts = [folder.resolve() for folder in (options.against, HERE) if folder]
    costs: dict[Path, Costs] = {checkout: {} for checkout in checkouts}
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as scratch:
        sets = find_sets(options.data_dir, ("cifar10", "tiny_imagenet"), Path(scratch))
        folders = [folder for _, folder in sets]
        for size in options.sizes:
            measured = measure(checkouts, folders, size, Path(scratch) / str(size))
            for checkout, cost in measured.items():
                costs[checkout][size] = cost
    print_table(costs[HERE])
    if options.against:
        print_comparison(*costs.values())
    if options.json:
        write_results(costs, load, options.json)
    if options.plot:
        plot(costs[HERE], options.plot)


def measure(
    checkouts: list[Path], folders: list[Path], size: int, scratch: Path
) -> dict[Path, dict[str, Cost]]:
    """Return the costs of each stage of each checkout on ``size`` images, and with 1 % more."""
    names, root = images_of(folders), scratch / "images"
    costs: dict[Path, dict[str, Cost]] = {checkout: {} for checkout in checkouts}
    deal(names, root, size)
    for title in (*STAGES, *AGAIN):
        if title == AGAIN[0]:
            deal(names, root, max(1, size // 100), first=size)
        for number, checkout in enumerate(checkouts):
            cost = child(checkout, title.split(",")[0], root, scratch / f"out-{number}")
            costs[checkout][title] = cost
            print(
                f"{size} {title} of {checkout.name}: {cost.seconds:.1f} s, "
                f"{cost.processor_seconds:.1f} processor seconds, {cost.memory_mb:.0f} MB",
                file=sys.stderr,
                flush=True,
            )
    return costs


def images_of(folders: list[Path]) -> Iterator[Path]:
    """Return the folders' images in an order that mixes their classes."""
    endings = (".jpg", ".jpeg", ".png", ".webp")
    found = chain.from_iterable(folder.rglob("*") for folder in folders)
    images = [path for path in found if path.suffix.lower() in endings]
    return iter(sorted(images, key=lambda path: (path.name, str(path))))


def deal(names: Iterator[Path], root: Path, count: int, *, first: int = 0) -> None:
    """Add links to ``count`` more images; hard links, which look like plain files, if possible."""
    for number, path in zip(range(first, first + count), names, strict=False):
        link = root / f"class{number % CLASSES}" / f"{number:07}{path.suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            link.hardlink_to(path)
        except OSError:
            link.symlink_to(path)


def child(checkout: Path, stage: str, root: Path, out: Path) -> Cost:
    """Run one stage of a checkout in a separate process."""
    script = checkout / "benchmarks/growth.py"
    command = [sys.executable, str(script), "--stage", stage, str(root), str(out)]
    environment = os.environ | {"PYTHONPATH": f"{checkout / 'src'}{os.pathsep}{checkout}"}
    started, used = time.perf_counter(), processor_seconds()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"the stage {stage} ended with {done.returncode}: {done.stderr[-500:]}")
    return Cost(
        time.perf_counter() - started,
        processor_seconds() - used,
        float(done.stdout.split()[-1]),
    )


def processor_seconds() -> float:
    """Return the processor seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def peak_memory() -> float:
    """Return this process's peak megabytes; getrusage would include the parent's before exec."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000


def run_stage(name: str, images: Path, out: Path) -> None:
    """Run a stage like its stage file, with the benchmark's settings."""
    config, paths = configuration(images), Paths(out)
    if name == "index":
        from rootstock.workflow.index import index_images

        index_images(config, paths)
    elif name == "assess":
        from rootstock.workflow.assess import assess_data

        assess_data(config, paths)
    elif name == "features":
        from rootstock.workflow.features import cache_features

        cache_features(config, paths)
    else:
        run_trained(name, config, paths)


def run_trained(name: str, config: Config, paths: Paths) -> None:
    """Run a stage that is connected to a run logger or a searcher."""
    from rootstock.ports.runs import NullRunLogger
    from rootstock.ports.search import SequentialSearcher
    from rootstock.workflow.evaluate import evaluate_model
    from rootstock.workflow.plan import make_plan
    from rootstock.workflow.register import register_model
    from rootstock.workflow.train import train_model
    from tests.folder_registry import FolderRegistry, alter_bundle

    if name == "plan":
        make_plan(config, paths, searcher=SequentialSearcher())
    elif name == "train":
        train_model(config, paths, runs=NullRunLogger(), searcher=SequentialSearcher())
    elif name == "evaluate":
        evaluate_model(config, paths, runs=NullRunLogger())
    else:
        registry = FolderRegistry(paths.root / "registry")
        for _ in ("first", "meets it"):
            register_model(config, paths, runs=NullRunLogger(), registry=registry)
            alter_bundle(paths.model)


def configuration(images: Path) -> Config:
    """Return settings with the embedded backbone and a fixed strategy."""
    return load_config(None, overrides=[f"data.root={images}", *SETTINGS])


def exponent(sizes: list[int], values: list[float]) -> float:
    """Return the exponent of the power law that fits best (least squares of the logarithms)."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def print_table(costs: Costs) -> None:
    """Print Markdown: seconds and MB at each size, and exponents, fitted and of the last step."""
    sizes = list(costs)
    heads = "".join(f" {size:,} |" for size in sizes)
    print(f"| stage |{heads} exponent of time | at the end | of memory | at the end |")
    print("| --- |" + " --- |" * (len(sizes) + 4))
    for stage in (*STAGES, *AGAIN):
        cells = [costs[size][stage] for size in sizes]
        text = "".join(f" {cell.seconds:.1f} s, {cell.memory_mb:.0f} MB |" for cell in cells)
        if len(sizes) > 1:
            powers = [
                exponent(sizes[since:], [cell[part] for cell in cells[since:]])
                for part in (0, 2)
                for since in (0, -2)
            ]
            text += "".join(f" {power:.2f} |" for power in powers)
        print(f"| {stage} |{text}")


def print_comparison(before: Costs, after: Costs) -> None:
    """Print Markdown: processor seconds at each size in both checkouts."""
    heads = "".join(f" {size:,} before | after |" for size in before)
    print(f"\n| stage, processor seconds |{heads}")
    print("| --- |" + " --- |" * (2 * len(before)))
    for stage in (*STAGES, *AGAIN):
        cells = [costs[size][stage] for size in before for costs in (before, after)]
        print(f"| {stage} |" + "".join(f" {cell.processor_seconds:.1f} |" for cell in cells))


def write_results(costs: dict[Path, Costs], load: tuple[float, ...], path: Path) -> None:
    """Write JSON: machine, date, commits, and every cost; load is measured at the start."""
    results: dict[str, Any] = {
        **describe_run("python benchmarks/growth.py --data-dir ../shared/data --json growth.json"),
        "load": {"before": round(load[0], 1), "after": round(os.getloadavg()[0], 1)},
        "runs": [
            {
                "commit": commit_of(checkout),
                "costs": {
                    str(size): {
                        stage: {name: round(value, 2) for name, value in cost._asdict().items()}
                        for stage, cost in stages.items()
                    }
                    for size, stages in measured.items()
                },
            }
            for checkout, measured in costs.items()
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def plot(costs: Costs, path: Path) -> None:
    """Plot seconds and memory over the number of images, both axes logarithmic."""
    from matplotlib.ticker import LogLocator, NullFormatter

    from rootstock.plots.style import GRID, canvas, headline

    sizes = list(costs)
    with canvas(path, width=9.0, height=4.2) as figure:
        axes = figure.subplots(1, 2)
        for axis, part, title in zip(axes, (0, 2), ("seconds", "peak memory, MB"), strict=True):
            for stage in STAGES:
                axis.plot(sizes, [costs[size][stage][part] for size in sizes], "o-", label=stage)
            axis.set_xscale("log")
            axis.set_yscale("log")
            for side in (axis.xaxis, axis.yaxis):
                side.set_major_formatter("{x:,.0f}")
                side.set_minor_formatter(NullFormatter())
            axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_xlabel("images")
            axis.grid(color=GRID)
            headline(axis, title, "each stage in a separate process")
        axes[0].legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    main()
