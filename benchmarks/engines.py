"""Compare engines on this processor: ONNX Runtime, OpenVINO, and PyTorch, one image per call.

    python benchmarks/engines.py --model artifacts/model --peers peers

OpenVINO is installed into the environment --peers, which is created if missing (needs a package
index). Without --peers, it is measured only if installed already. Each engine gets one thread;
they run in turns. The table also shows how far the answers are from the golden ones.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from environments import peers_python

ROOT = Path(__file__).parents[1]
ROUNDS = 60


def main() -> int:
    """Measure here, or in the environment for peers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, nargs="+", default=[ROOT / "artifacts/model"])
    parser.add_argument("--peers", type=Path)
    options = parser.parse_args()
    if options.peers:
        python = peers_python(options.peers, ["openvino>=2025.4"])
        command = [python, __file__, "--model", *options.model]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        return subprocess.run(command, env=environment, check=False).returncode
    print("| model | pixels | engine | ms per image | of the fastest | off golden by |")
    print("| --- " * 6 + "|")
    for model in options.model:
        measure(model)
    return 0


def measure(model: Path) -> None:
    """Print one row per engine."""
    from rootstock.model.bundle import read_bundle
    from rootstock.model.predictor import Predictor
    from rootstock.runtimes.choose import time_in_turns
    from rootstock.runtimes.engines import installed_engines

    bundle = read_bundle(model)
    size = bundle.preprocess.input_size
    image = np.random.default_rng(0).normal(size=(1, 3, size, size)).astype(np.float32)
    sides = {name: Predictor(bundle, engine=name, threads=1) for name in installed_engines()}
    runs = {name: partial(predictor.logits, image) for name, predictor in sides.items()}
    seconds = time_in_turns(runs, rounds=ROUNDS, summary=median)
    medians = {name: 1000 * one for name, one in seconds.items()}
    for name, milliseconds in medians.items():
        print(
            f"| {bundle.facts.card['architecture']} | {size} | {name} | {milliseconds:.2f} "
            f"| {milliseconds / min(medians.values()):.2f} | {sides[name].check_golden():.1g} |"
        )


if __name__ == "__main__":
    sys.exit(main())
