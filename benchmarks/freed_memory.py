"""Training steps with freed memory given back, as glibc does, and kept, as Rootstock does.

    python benchmarks/freed_memory.py --weights ../shared/backbones/mobilenetv2_100.in1k.safetensors

Each runs in a separate process, in turns; the better of two turns counts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

STEPS = 3
SIDES = {"given back": False, "kept": True}


def main() -> None:
    """Print images per second of both sides by batch and input size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="packaged")
    weights = parser.parse_args().weights
    print("| batch | pixels | given back, images/s | kept, images/s | ratio |")
    print("| --- " * 5 + "|")
    for batch, size in ((8, 224), (32, 128), (32, 224)):
        best = dict.fromkeys(SIDES, 0.0)
        for _ in range(2):
            for name, keep in SIDES.items():
                spawn = multiprocessing.get_context("spawn")
                with ProcessPoolExecutor(1, mp_context=spawn) as alone:
                    rate = alone.submit(train, weights, batch, size, keep=keep).result()
                best[name] = max(best[name], rate)
        print(f"| {batch} | {size} | {best['given back']:.1f} | {best['kept']:.1f} "
              f"| {best['kept'] / best['given back']:.2f} |", flush=True)  # fmt: skip


def train(weights: str, batch: int, size: int, *, keep: bool) -> float:
    """Return images per second of forward and backward pass."""
    import torch

    from rootstock.backbones import load
    from rootstock.backbones.packaged import DEFAULT_NAME

    if not keep:
        load.keep_freed_memory = lambda: False
    module = load.load_backbone(weights, DEFAULT_NAME).module
    images = torch.zeros(batch, 3, size, size)

    def step() -> None:
        module.zero_grad()
        module.forward_features(images).mean().backward()

    step()
    started = time.perf_counter()
    for _ in range(STEPS):
        step()
    return STEPS * batch / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
