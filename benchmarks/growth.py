"""What each stage costs as the data grow: seconds and peak memory, and the fitted exponent.

    python benchmarks/growth.py --data-dir ../shared/data --plot growth.png

CIFAR-10 and Tiny ImageNet together, 32 and 64 pixels, dealt into ten classes; embedded backbone,
`linear_probe`, each stage in a process of its own as DVC runs it (imports, about 5 seconds and
400 MB where torch is needed, are counted). The model is registered twice, so that it meets a
champion, in a registry that is a folder. The last rows add 1 % of new images and run index and
features again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

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
Cost = tuple[float, float]
"""Seconds, and the peak of resident memory in MB."""


def main() -> None:
    """Run one stage (as a child), or all of them on every size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--stage", nargs=3, metavar=("NAME", "IMAGES", "OUT"), help="a child's")
    options = parser.parse_args()
    if options.stage:
        name, images, out = options.stage
        run_stage(name, Path(images), Path(out))
        print(peak_memory())
        return
    from sets import find_sets  # it imports torch, which not every stage does

    costs: dict[int, dict[str, Cost]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        sets = find_sets(options.data_dir, ("cifar10", "tiny_imagenet"), Path(scratch))
        folders = [folder for _, folder in sets]
        for size in options.sizes:
            costs[size] = measure(folders, size, Path(scratch) / str(size))
    print_table(costs)
    if options.plot:
        plot(costs, options.plot)


def measure(folders: list[Path], size: int, scratch: Path) -> dict[str, Cost]:
    """Seconds and memory of each stage on so many images, and of 1 % more."""
    names = images_of(folders)
    root, out = scratch / "images", scratch / "out"
    deal(names, root, size)
    costs = {stage: child(stage, root, out) for stage in STAGES}
    deal(names, root, max(1, size // 100), first=size)
    for title in AGAIN:
        costs[title] = child(title.split(",")[0], root, out)
    for stage, (seconds, memory) in costs.items():
        print(f"{size} {stage}: {seconds:.1f} s, {memory:.0f} MB", file=sys.stderr, flush=True)
    return costs


def images_of(folders: list[Path]) -> Iterator[Path]:
    """The folders' images, in an order that mixes their classes."""
    endings = (".jpg", ".jpeg", ".png", ".webp")
    found = chain.from_iterable(folder.rglob("*") for folder in folders)
    images = [path for path in found if path.suffix.lower() in endings]
    return iter(sorted(images, key=lambda path: (path.name, str(path))))


def deal(names: Iterator[Path], root: Path, count: int, *, first: int = 0) -> None:
    """Link so many more images into the class folders; hard, as plain files, where that can be."""
    for number, path in zip(range(first, first + count), names, strict=False):
        link = root / f"class{number % CLASSES}" / f"{number:07}{path.suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            link.hardlink_to(path)
        except OSError:
            link.symlink_to(path)


def child(stage: str, root: Path, out: Path) -> Cost:
    """One stage in a process of its own."""
    command = [sys.executable, __file__, "--stage", stage, str(root), str(out)]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the stage {stage} ended with {done.returncode}: {done.stderr[-500:]}")
    return time.perf_counter() - started, float(done.stdout.split()[-1])


def peak_memory() -> float:
    """Megabytes this process has had at most; getrusage would count the parent's before exec."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000


def run_stage(name: str, images: Path, out: Path) -> None:
    """What a stage file does, with the benchmark's settings."""
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
    """The stages that a run logger or a searcher is connected to."""
    from rootstock.ports.runs import NullRunLogger
    from rootstock.ports.search import SequentialSearcher
    from rootstock.workflow.evaluate import evaluate_model
    from rootstock.workflow.plan import make_plan
    from rootstock.workflow.register import register_model
    from rootstock.workflow.train import train_model
    from tests.folder_registry import FolderRegistry

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


def configuration(images: Path) -> Config:
    """The embedded backbone and a pinned strategy."""
    return load_config(None, overrides=[f"data.root={images}", *SETTINGS])


def exponent(sizes: list[int], values: list[float]) -> float:
    """Of the power law that fits all of them best (least squares of the logarithms)."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def print_table(costs: dict[int, dict[str, Cost]]) -> None:
    """Markdown: seconds and MB at each size, and the exponents: fitted, and of the last step."""
    sizes = list(costs)
    heads = "".join(f" {size:,} |" for size in sizes)
    print(f"| stage |{heads} exponent of time | at the end | of memory | at the end |")
    print("| --- |" + " --- |" * (len(sizes) + 4))
    for stage in (*STAGES, *AGAIN):
        cells = [costs[size][stage] for size in sizes]
        text = "".join(f" {seconds:.1f} s, {memory:.0f} MB |" for seconds, memory in cells)
        if len(sizes) > 1:
            powers = [
                exponent(sizes[since:], [cell[part] for cell in cells[since:]])
                for part in (0, 1)
                for since in (0, -2)
            ]
            text += "".join(f" {power:.2f} |" for power in powers)
        print(f"| {stage} |{text}")


def plot(costs: dict[int, dict[str, Cost]], path: Path) -> None:
    """Seconds and memory over the number of images, both axes logarithmic."""
    from matplotlib.ticker import LogLocator, NullFormatter

    from rootstock.plots.style import GRID, canvas, headline

    sizes = list(costs)
    with canvas(path, width=9.0, height=4.2) as figure:
        axes = figure.subplots(1, 2)
        for axis, part, title in zip(axes, (0, 1), ("seconds", "peak memory, MB"), strict=True):
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
            headline(axis, title, "each stage in a process of its own")
        axes[0].legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    main()
