"""Compare the average of several networks with one network: accuracy and cost.

    python benchmarks/ensemble.py --data-dir ../shared/data --out benchmarks/results/ensemble.json

Each set is reduced to 200 training images and fine-tuned for at most 6 epochs, like
`train.ensemble`: first the plan's trials, then two more networks like the chosen one, with other
seeds. The average is measured on the test images even if its gain on the validation images is not
significant; `sure` states whether Rootstock would have kept it. Training costs are given as the
number of trainings, which take about the same time each. Milliseconds are those of one image
through ONNX Runtime on one core, both models in turns.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from sets import find_sets, link_subset, list_images, load_settings
from stamp import describe_run

from rootstock.config.paths import Paths
from rootstock.metrics import lead
from rootstock.ports.runs import NullRunLogger
from rootstock.ports.search import SequentialSearcher
from rootstock.runtimes.choose import time_in_turns
from rootstock.runtimes.onnx import onnx_session
from rootstock.system.files import write_json
from rootstock.training.export import export_onnx
from rootstock.training.images import ImageSet
from rootstock.training.members import train_ensemble
from rootstock.training.network import TransferNet
from rootstock.training.predict import predict_outputs
from rootstock.training.selection import is_sure_gain
from rootstock.training.tracked import Tracking
from rootstock.training.training_job import TrainingJob
from rootstock.training.trials import FinetunedTrial, best_head
from rootstock.workflow.features import cache_features
from rootstock.workflow.prepare import prepare_plan
from rootstock.workflow.project import Project
from rootstock.workflow.train import open_planned_job

NETWORKS = 3
LIMITS = {"train": 200, "val": 100, "test": 600}
ROUNDS = 40
Cell = dict[str, Any]


def main() -> int:
    """Measure the sets that are missing in --out, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="+", default=["sign_digits", "ants_bees"])
    parser.add_argument("--strategy", default="partial_finetune")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ensemble.json"))
    options = parser.parse_args()
    cells = json.loads(options.out.read_text())["cells"] if options.out.exists() else []
    with tempfile.TemporaryDirectory() as scratch:
        missing = [name for name in options.sets if name not in {cell["set"] for cell in cells}]
        for name, folder in find_sets(options.data_dir, missing, Path(scratch)):
            images = Path(scratch) / f"few-{name}"
            link_subset(list_images(folder, seed=0), folder, images, limits=LIMITS, classes=None)
            out = Path(scratch) / f"run-{name}"
            cells.append({"set": name} | measure(images, out, options.strategy))
            facts = describe_run("python benchmarks/ensemble.py --data-dir ../shared/data")
            write_json(options.out, facts | {"strategy": options.strategy, "cells": cells})
    print_table(cells)
    return 0


def measure(images: Path, out: Path, strategy: str) -> Cell:
    """Return test metrics and cost of one network and of the average."""
    settings = [f"plan.strategy={strategy}", f"train.ensemble={NETWORKS}", "train.epochs=6"]
    config, paths = load_settings(images, settings), Paths(out)
    searcher, tracking = SequentialSearcher(), Tracking(NullRunLogger(), "")
    prepare_plan(config, paths, searcher=searcher)
    cache_features(config, paths)
    job = open_planned_job(Project(config, paths))
    heads = job.search_heads(searcher, tracking)
    head = best_head(heads, job.data.task.selection)
    tuned = job.search_finetuning(searcher, tracking, head)
    first, _ = job.best_tuned(head, tuned)
    ensemble = train_ensemble(
        job, searcher, tracking, head=head, first=first, tuned=tuned, seconds=None
    )
    average = ensemble.average
    assert average
    losses = [job.calibrated_losses(trial) for trial in (average, first)]
    ahead, noise = lead(*losses)
    networks = [job.build_network(trial) for trial in (first, average)]
    times = time_networks(networks, job.plan.input_size, out)
    return {
        "train": len(job.data.rows("train")),
        "test": len(job.data.rows("test")),
        "chosen": dict(first.params),
        "gain": round(ahead, 4),
        "noise": round(noise, 4),
        "sure": is_sure_gain(ahead, noise),
        "one": test(job, first, networks[0]) | {"trainings": len(tuned), "ms": times[0]},
        "several": test(job, average, networks[1])
        | {"trainings": len(tuned) + len(ensemble.trainings), "ms": times[1]},
    }


def test(job: TrainingJob, trial: FinetunedTrial, network: TransferNet) -> Cell:
    """Return the test metrics of a trial, calibrated on the validation images."""
    task, data = job.data.task, job.data
    rows = data.rows("test")
    images = ImageSet(tuple(rows), data.targets("test"), data.reader.root,
                      data.reader.preprocess, None)  # fmt: skip
    calibration = task.calibrate(job.val_outputs(trial), data.targets("val"))
    decisions = task.decide(predict_outputs(network, images), calibration)
    metrics = task.metrics(decisions, images.targets)
    return {key: round(metrics[key], 4) for key in ("accuracy", "log_loss", "ece")}


def time_networks(networks: list[TransferNet], size: int, folder: Path) -> list[float]:
    """Return the milliseconds per image of each network, on one core."""
    image = np.zeros((1, 3, size, size), np.float32)
    runs = {}
    for network in networks:
        path = folder / f"{network.n_networks}.onnx"
        export_onnx(network.cpu().eval(), path, np.repeat(image, 2, axis=0))
        session = onnx_session(path, threads=1)
        runs[str(network.n_networks)] = partial(session.run, ["logits"], {"images": image})
    seconds = time_in_turns(runs, rounds=ROUNDS, summary=median)
    return [round(1000 * one, 2) for one in seconds.values()]


def print_table(cells: list[Cell]) -> None:
    """Print Markdown."""
    print("| set | networks | test accuracy | log-loss | calibration error | trainings "
          "| ms per image | validation gain |\n" + "| --- " * 8 + "|")  # fmt: skip
    for cell in cells:
        for key, count in (("one", 1), ("several", NETWORKS)):
            side = cell[key]
            gain = f"{cell['gain']:.3f} ± {cell['noise']:.3f}" if count > 1 else ""
            error = math.sqrt(side["accuracy"] * (1 - side["accuracy"]) / cell["test"])
            print(f"| {cell['set']} | {count} | {side['accuracy']:.3f} ± {error:.3f} "
                  f"| {side['log_loss']:.3f} | {side['ece']:.3f} | {side['trainings']} "
                  f"| {side['ms']:.1f} | {gain} |")  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
