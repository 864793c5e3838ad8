"""Compare a training step in both memory layouts, and in bfloat16 if the hardware has it.

    python benchmarks/layouts.py

timm networks with random weights. Images per second of processor time, so other work on the
machine has little effect; in turns, the better of two.
"""

from __future__ import annotations

import argparse
import time

import timm
import torch
from torch.nn import functional as F

from rootstock.system.malloc import keep_freed_memory
from rootstock.training.compute import Compute, possible_ways

NETWORKS = (
    ("mobilenetv3_small_100", 96),
    ("mobilenetv2_100", 128),
    ("mobilenetv2_100", 224),
    ("resnet18", 128),
    ("efficientnet_b0", 128),
)
BATCH, STEPS, TURNS = 16, 4, 2


def main() -> None:
    """Print one row per network."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ways = possible_ways(device)
    print(f"| network | pixels | {' | '.join(map(describe, ways))} | best against plain |")
    print("| --- " * (len(ways) + 3) + "|")
    for name, size in NETWORKS:
        turns = [[rate(name, size, way, device) for way in ways] for _ in range(TURNS)]
        best = [max(column) for column in zip(*turns, strict=True)]
        rates = " | ".join(f"{value:.1f}" for value in best)
        print(f"| {name} | {size} | {rates} | {max(best) / best[0]:.2f} |", flush=True)


def describe(way: Compute) -> str:
    """Return a heading."""
    layout = "channels_last" if way.channels_last else "contiguous"
    return f"{layout}, bfloat16" if way.bfloat16 else layout


def rate(name: str, size: int, way: Compute, device: torch.device) -> float:
    """Return images per second of forward and backward pass and AdamW's step."""
    torch.manual_seed(0)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    network = timm.create_model(name, num_classes=10).eval().to(device)
    network = network.to(memory_format=way.memory_format)
    images = torch.randn(BATCH, 3, size, size, device=device)
    images = images.contiguous(memory_format=way.memory_format)
    labels = torch.zeros(BATCH, dtype=torch.int64, device=device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        with way.autocast():
            logits = network(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    step()
    started = clock()
    for _ in range(STEPS):
        step()
    return STEPS * BATCH / (clock() - started)


if __name__ == "__main__":
    main()
