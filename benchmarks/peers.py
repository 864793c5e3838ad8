"""Compare time to .95 test accuracy and final accuracy: Rootstock and other training loops.

    python benchmarks/peers.py --data-dir ../shared/data --venv peers-env \
        --weights ../shared/backbones/mobilenetv2_100.in1k.safetensors

All sides get the same weights, the same training and test images, and all cores. Each runs in a
separate process, one after another. Seconds count from the images on disk to the model, including
imports; measuring the test accuracy after an epoch is not counted. The command creates --venv,
which sees this environment's torch, and installs fastai and Lightning into it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from environments import peers_python
from sets import find_sets, link_subset, list_images

HERE = Path(__file__).parent
PACKAGES = ("fastai==2.8.12", "lightning==2.6.6")
GOAL = 0.95
Outcome = dict[str, Any]
OURS = {
    "rootstock, left to the plan": [],
    "rootstock, no race": ["plan.race=never"],
}
LOOPS = {"plain": "plain PyTorch, frozen backbone", "fastai": "fastai, fine_tune",
         "lightning": "Lightning, all layers"}  # fmt: skip


def main() -> None:
    """Run every side on every set and print a table per set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--venv", type=Path, default=Path("peers-env"))
    parser.add_argument("--sets", nargs="+", default=["ants_bees", "flowers12", "sign_digits"])
    parser.add_argument("--epochs", type=int, default=8, help="epochs of the other loops")
    options = parser.parse_args()
    python = peers_python(options.venv, PACKAGES)
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder in find_sets(options.data_dir, options.sets, Path(scratch)):
            images = Path(scratch) / f"split-{name}"
            limits = dict.fromkeys(("train", "val", "test"), 10**6)
            link_subset(list_images(folder, seed=0), folder, images, limits=limits, classes=None)
            print_head(name)
            base = None
            for title, settings in OURS.items():
                outcome = run_ours(images, options.weights, settings)
                base = base or outcome["reached"]
                print_row(title, outcome, base)
            for loop, title in LOOPS.items():
                outcome = run_loop(python, loop, images, options.weights, options.epochs)
                print_row(title, outcome, base)


def run_ours(images: Path, weights: Path, settings: list[str]) -> Outcome:
    """Run all of `rootstock train`, without the registry."""
    chosen = [f"backbone.weights={weights.resolve()}", "tracking.enabled=false", *settings]
    with tempfile.TemporaryDirectory() as out:
        command = [Path(sys.executable).parent / "rootstock", "train", str(images)]
        command += ["--out", out, "--json", *(part for s in chosen for part in ("--set", s))]
        started = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        accuracy = json.loads(done.stdout)["metrics"]["accuracy"]
        strategy = json.loads((Path(out) / "artifacts/plan.json").read_text())["strategy"]
    return {
        "accuracy": accuracy,
        "seconds": seconds,
        "reached": seconds if accuracy >= GOAL else None,
        "how": strategy,
    }


def run_loop(python: Path, loop: str, images: Path, weights: Path, epochs: int) -> Outcome:
    """Run one of the loops in peers_loops.py."""
    command = [python, HERE / "peers_loops.py", loop, images, weights, str(epochs)]
    started = time.time()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    begin = found[0]["begun"] - started  # imports
    reached = [begin + epoch["seconds"] for epoch in found[1:] if epoch["accuracy"] >= GOAL]
    last = found[-1]
    return {
        "accuracy": last["accuracy"],
        "seconds": begin + last["seconds"],
        "reached": reached[0] if reached else None,
        "how": f"{len(found) - 1} epochs",
    }


def print_head(name: str) -> None:
    """Print Markdown; the ratio is that of the seconds to the goal, relative to the first side."""
    print(f"\n{name}\n\n| side | how | test accuracy | seconds | seconds to {GOAL} | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")


def print_row(title: str, outcome: Outcome, base: float | None) -> None:
    """Print one side."""
    reached = outcome["reached"]
    to_goal = "not reached" if reached is None else f"{reached:.0f}"
    ratio = f"{reached / base:.1f}" if reached and base else ""
    print(f"| {title} | {outcome['how']} | {outcome['accuracy']:.3f} "
          f"| {outcome['seconds']:.0f} | {to_goal} | {ratio} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
