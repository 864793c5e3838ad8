"""Compare time to .95 test accuracy and final accuracy: Rootstock and other training loops.

    python benchmarks/peers.py --data-dir ../shared/data --venv peers-env \
        --weights ../shared/backbones/mobilenetv2_100.in1k.safetensors

All sides get the same weights, the same training and test images and all cores; each runs in its
own process, one after another. Seconds count from the images on disk to the model, imports
included; the measuring of test accuracy after an epoch is not counted. Processor seconds are those
of all processes of a side, and can be compared on a busy machine too. AutoGluon is measured at its
end only, as Rootstock is. Ultralytics trains the given network by its own trainer, since the
weights of YOLO networks come from a server. The command makes environments below --venv, which see
this environment's torch, and installs the other libraries into them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from environments import peers_python
from sets import find_sets, link_subset, list_images
from stamp import describe_run

HERE = Path(__file__).parent
PACKAGES = ("fastai==2.8.12", "lightning==2.6.6")
TORCH = ("torch", "torchvision")
GOAL = 0.95
Outcome = dict[str, Any]
OURS = {
    "plan": ("rootstock, left to the plan", []),
    "no_race": ("rootstock, no race", ["plan.race=never"]),
}
LOOPS = {
    "plain": "plain PyTorch, frozen backbone",
    "fastai": "fastai, fine_tune",
    "lightning": "Lightning, all layers",
    "ultralytics": "Ultralytics, train",
    "autogluon": "AutoGluon MultiModal, medium_quality",
}


def main() -> None:
    """Run every side on every set and print a table per set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--venv", type=Path, default=Path("peers-env"))
    parser.add_argument("--sets", nargs="+", default=["ants_bees", "flowers12", "sign_digits"])
    parser.add_argument("--epochs", type=int, default=8, help="epochs of the other loops")
    parser.add_argument("--sides", nargs="+", default=[*OURS, *LOOPS], choices=[*OURS, *LOOPS])
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder in find_sets(options.data_dir, options.sets, Path(scratch)):
            images = Path(scratch) / f"split-{name}"
            limits = dict.fromkeys(("train", "val", "test"), 10**6)
            link_subset(list_images(folder, seed=0), folder, images, limits=limits, classes=None)
            print_head(name)
            base = None
            for side in options.sides:
                if side in OURS:
                    title, settings = OURS[side]
                    outcome = run_ours(images, options.weights, settings)
                else:
                    title, python = LOOPS[side], make_environment(options.venv, side)
                    outcome = run_loop(python, side, images, options.weights, options.epochs)
                base = base or outcome["processor_reached"]
                rows.append({"set": name, "side": title, **outcome})
                print_row(title, outcome, base)
                if options.out:
                    facts = describe_run(f"python benchmarks/peers.py --sets {name}")
                    text = json.dumps(facts | {"goal": GOAL, "rows": rows}, indent=1)
                    options.out.write_text(text + "\n", encoding="utf-8")


def make_environment(folder: Path, loop: str) -> Path:
    """Return the Python of the environment that a loop needs; some cannot share one."""
    if loop == "ultralytics":
        return peers_python(folder / loop, ["ultralytics==8.4.190"], borrowed=TORCH)
    if loop == "autogluon":
        packages = ["autogluon.multimodal==1.6.3"]
        return peers_python(folder / loop, packages, constrained=False, borrowed=TORCH)
    return peers_python(folder / "loops", PACKAGES)


def run_ours(images: Path, weights: Path, settings: list[str]) -> Outcome:
    """Run all of `rootstock train`, without the registry."""
    chosen = [f"backbone.weights={weights.resolve()}", "tracking.enabled=false", *settings]
    with tempfile.TemporaryDirectory() as out:
        command = [Path(sys.executable).parent / "rootstock", "train", str(images)]
        command += ["--out", out, "--json", *(part for s in chosen for part in ("--set", s))]
        started, used = time.perf_counter(), children_seconds()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds, processor = time.perf_counter() - started, children_seconds() - used
        accuracy = json.loads(done.stdout)["metrics"]["accuracy"]
        strategy = json.loads((Path(out) / "artifacts/plan.json").read_text())["strategy"]
    return {
        "accuracy": accuracy,
        "seconds": seconds,
        "reached": seconds if accuracy >= GOAL else None,
        "processor": processor,
        "processor_reached": processor if accuracy >= GOAL else None,
        "how": strategy,
    }


def run_loop(python: Path, loop: str, images: Path, weights: Path, epochs: int) -> Outcome:
    """Run one of the loops in peers_loops.py."""
    command = [python, HERE / "peers_loops.py", loop, images, weights, str(epochs)]
    started = time.time()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    begin = found[0]["begun"] - started  # imports
    reached = next((epoch for epoch in found[1:] if epoch["accuracy"] >= GOAL), None)
    last = found[-1]
    return {
        "accuracy": last["accuracy"],
        "seconds": begin + last["seconds"],
        "reached": reached and begin + reached["seconds"],
        "processor": last["processor"],
        "processor_reached": reached and reached["processor"],
        "how": f"{epochs} epochs at most" if loop == "autogluon" else f"{len(found) - 1} epochs",
    }


def children_seconds() -> float:
    """Return the processor seconds of the processes that have been waited for."""
    used = os.times()
    return used.children_user + used.children_system


def print_head(name: str) -> None:
    """Print Markdown; the ratio is that of processor seconds to the goal, to the first side."""
    print(f"\n{name}\n\n| side | how | test accuracy | seconds | processor seconds "
          f"| seconds to {GOAL} | processor seconds to {GOAL} | ratio |")  # fmt: skip
    print("| --- " * 8 + "|")


def print_row(title: str, outcome: Outcome, base: float | None) -> None:
    """Print one side."""
    reached = [outcome[key] for key in ("reached", "processor_reached")]
    to_goal = " | ".join("not reached" if one is None else f"{one:.0f}" for one in reached)
    ratio = f"{reached[1] / base:.1f}" if reached[1] and base else ""
    print(f"| {title} | {outcome['how']} | {outcome['accuracy']:.3f} | {outcome['seconds']:.0f} "
          f"| {outcome['processor']:.0f} | {to_goal} | {ratio} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
