"""How fast this machine is with one backbone: measured in seconds, kept, used for estimates.

Measured times differ from run to run, so they stay out of every artifact that has to be the same
bit for bit; a file per backbone, size and machine keeps what was measured first.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from rootstock.backbones.load import LAST, Backbone
from rootstock.heads.linear import LinearHead
from rootstock.plan import rules
from rootstock.runtimes.onnx import onnx_session
from rootstock.system.artifacts import Record, measured_once
from rootstock.system.cpu import usable_cores
from rootstock.train.compute import Compute, choose_compute, possible_ways
from rootstock.train.export import export_onnx
from rootstock.train.network import TransferNet

BATCH = 32
FEW = 8
"""Images a batch on a processor, where each costs nearly the same in a small batch."""
REPEATS = 3


class Pace(Record):
    """Images a second, forward and in a full training step; milliseconds of one image."""

    machine: str
    forward_per_second: float
    """At the card's input size."""
    tuning_forward_per_second: float
    """At the size for fine-tuning."""
    tuning_steps_per_second: float
    """Images trained a second at that size, nothing frozen, computed as ``tuning`` says."""
    tuning: Compute
    """The fastest way to compute a training step."""
    latency_ms: float
    """One prepared image through ONNX Runtime on the processor."""

    def minutes(
        self, strategy: rules.Strategy, *, n_train: int, n_val: int, epochs: int, n_rates: int
    ) -> float:
        """What training by ``strategy`` will take here; decoding is not counted."""
        seconds = (n_train + n_val) / self.forward_per_second
        if rules.is_finetune(strategy):
            whole = 1.0 / self.tuning_steps_per_second
            forward = 1.0 / self.tuning_forward_per_second
            step = (whole + forward) / 2 if strategy == "partial_finetune" else whole
            seconds += n_rates * epochs * (n_train * step + n_val * forward)
        return seconds / 60


def known_pace(folder: Path, backbone: Backbone, *, tuning_size: int) -> Pace:
    """What was measured on this machine before, or is measured now and kept in ``folder``."""
    machine = f"{platform.machine()} {usable_cores()} cores, {_device_name(backbone.device)}"
    parts = [machine, torch.__version__, backbone.card.weights_sha256, backbone.card.name]
    parts += [*map(str, backbone.card.input_size), str(tuning_size)]
    path = folder / f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}.json"
    return measured_once(
        path, Pace, lambda: measure_pace(backbone, machine=machine, tuning_size=tuning_size)
    )


def measure_pace(backbone: Backbone, *, machine: str, tuning_size: int) -> Pace:
    """Time the backbone with a head of ten classes; takes a few seconds."""
    size = backbone.card.input_size[1]
    width = backbone.taps[-1].channels
    head = LinearHead(np.zeros((10, width), np.float32), np.zeros(10, np.float32))
    network = TransferNet.build(backbone, tap=LAST, head=head)
    rates = {side: _forward_rate(network, side) for side in {size, tuning_size}}
    forward, tuning_forward = rates[size], rates[tuning_size]
    latency_ms = _latency_ms(network.cpu(), size)
    if backbone.device.type == "cpu":
        forward = max(forward, 1000 / latency_ms)  # features of many images take this way
    network.to(backbone.device)
    tuning, training = choose_compute(
        possible_ways(backbone.device),
        lambda way, hopeless: _training_rate(network, tuning_size, way, hopeless=hopeless),
    )
    return Pace(
        machine=machine,
        forward_per_second=round(forward, 2),
        tuning_forward_per_second=round(tuning_forward, 2),
        latency_ms=round(latency_ms, 3),
        tuning_steps_per_second=round(training, 2),
        tuning=tuning,
    )


def _forward_rate(network: TransferNet, size: int) -> float:
    images = _images(network, size)

    @torch.inference_mode()
    def forward() -> None:
        network(images).sum().item()

    return len(images) / _fastest(forward)


def _training_rate(network: TransferNet, size: int, way: Compute, *, hopeless: float) -> float:
    """Images a second; below ``hopeless`` one step is enough to know it."""
    network.to(memory_format=way.memory_format).requires_grad_(True)
    images = _images(network, size).contiguous(memory_format=way.memory_format)
    device = images.device
    labels = torch.zeros(len(images), dtype=torch.int64, device=device)

    def step() -> None:
        network.zero_grad()
        with way.autocast():
            logits = network(images)
        F.cross_entropy(logits.float(), labels).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return len(images) / _fastest(step, give_up=len(images) / hopeless if hopeless else math.inf)


def _latency_ms(network: TransferNet, size: int) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        export_onnx(network, path, input_size=size)
        session = onnx_session(path)
        image = np.zeros((1, 3, size, size), np.float32)
        return 1000 * _fastest(lambda: session.run(["logits"], {"images": image}))


def _fastest(work: Callable[[], object], *, give_up: float = math.inf) -> float:
    """Seconds of the fastest of some runs after one that warms up: load only ever adds.

    One run that takes longer than ``give_up`` seconds is the last.
    """
    work()
    times: list[float] = []
    while len(times) < REPEATS and (not times or times[-1] <= give_up):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return max(min(times), 1e-9)


def _images(network: TransferNet, size: int) -> torch.Tensor:
    device = next(network.parameters()).device
    return torch.zeros(FEW if device.type == "cpu" else BATCH, 3, size, size, device=device)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
