"""Measure how fast this machine is with one backbone, for estimates.

Measured times differ from run to run, so they are not in any artifact that must be the same bit for
bit; a file per backbone, size and machine keeps them until they are far off.
"""

from __future__ import annotations

import copy
import platform
import tempfile
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from rootstock.backbones.load import LAST, Backbone
from rootstock.config.choices import Strategy
from rootstock.heads.linear import LinearHead
from rootstock.plan import rules
from rootstock.runtimes.choose import ROUNDS, time_in_turns
from rootstock.runtimes.onnx import onnx_session
from rootstock.system.artifacts import Record, measured_once
from rootstock.system.cpu import usable_cores
from rootstock.training.compute import Compute, choose_compute, possible_ways
from rootstock.training.export import export_onnx
from rootstock.training.network import TransferNet

GPU_BATCH_IMAGES, CPU_BATCH_IMAGES = 32, 8
"""Batch for measurements: on a processor an image costs nearly the same in a small batch."""
FAR_OFF_FACTOR = 1.5
"""A machine that is faster or slower by this factor is measured again."""


class Throughput(Record):
    """Images per second, forward and in a full training step; milliseconds per image."""

    machine: str
    forward_per_second: float
    """At the card's input size."""
    tuning_forward_per_second: float
    """At the size for fine-tuning."""
    tuning_steps_per_second: float
    """Images trained per second at that size, with nothing frozen and the setting ``tuning``."""
    tuning: Compute
    """The fastest setting for a training step."""
    latency_ms: float
    """Milliseconds for one prepared image with ONNX Runtime on the processor."""

    def minutes(
        self, strategy: Strategy, *, n_train: int, n_val: int, epochs: int, n_rates: int
    ) -> float:
        """Return the minutes of features and training with ``strategy``, without decoding."""
        seconds = (n_train + n_val) / self.forward_per_second
        return seconds / 60 + self.tuning_minutes(
            strategy, n_train=n_train, n_val=n_val, epochs=epochs * n_rates
        )

    def tuning_minutes(self, strategy: Strategy, *, n_train: int, n_val: int, epochs: int) -> float:
        """Return the minutes of ``epochs`` of fine-tuning at all rates; 0 for a head."""
        if not rules.is_finetune(strategy):
            return 0.0
        whole = 1.0 / self.tuning_steps_per_second
        forward = 1.0 / self.tuning_forward_per_second
        step = (whole + forward) / 2 if strategy in rules.HALF_BACKWARD else whole
        return epochs * (n_train * step + n_val * forward) / 60


def known_throughput(
    folder: Path, backbone: Backbone, *, tuning_size: int, check: bool = False
) -> Throughput:
    """Return an earlier measurement from ``folder`` for this machine, or measure now.

    ``check``: time a forward pass, and measure again if the load has changed since. The setting
    for a step does not change, because trained weights depend on it.
    """
    device = backbone.device
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    machine = f"{platform.machine()} {usable_cores()} cores, {gpu}"
    identity = [machine, torch.__version__, backbone.card.weights_sha256, backbone.card.name]
    identity += [*map(str, backbone.card.input_size), str(tuning_size)]
    measure = partial(measure_throughput, backbone, machine=machine, tuning_size=tuning_size)

    def renew(known: Throughput) -> Throughput:
        now = _forward_rates(_network(backbone), [tuning_size], rounds=2)[tuning_size]
        ratio = now / known.tuning_forward_per_second
        if 1 / FAR_OFF_FACTOR < ratio < FAR_OFF_FACTOR:
            return known
        return measure(tuning=known.tuning)

    return measured_once(
        folder, identity, Throughput, measure, digits=16, renew=renew if check else None
    )


def measure_throughput(
    backbone: Backbone, *, machine: str, tuning_size: int, tuning: Compute | None = None
) -> Throughput:
    """Time the backbone with a head of ten classes; this takes a few seconds.

    ``tuning`` is the setting for a training step; None: find the fastest one.
    """
    size = backbone.card.input_size[1]
    network = _network(backbone)
    rates = _forward_rates(network, {size, tuning_size})
    forward, tuning_forward = rates[size], rates[tuning_size]
    latency_ms = _latency_ms(network.cpu(), size)
    if backbone.device.type == "cpu":
        forward = max(forward, 1000 / latency_ms)  # used for the features of many images
    ways = possible_ways(backbone.device) if tuning is None else [tuning]
    training = _training_rates(network.to(backbone.device), tuning_size, ways)
    tuning = choose_compute(training)
    return Throughput(
        machine=machine,
        forward_per_second=round(forward, 2),
        tuning_forward_per_second=round(tuning_forward, 2),
        latency_ms=round(latency_ms, 3),
        tuning_steps_per_second=round(training[tuning], 2),
        tuning=tuning,
    )


def _network(backbone: Backbone) -> TransferNet:
    width = backbone.taps[-1].channels
    head = LinearHead(np.zeros((10, width), np.float32), np.zeros(10, np.float32))
    return TransferNet.build(backbone, tap=LAST, head=head)


def _forward_rates(
    network: TransferNet, sizes: Iterable[int], *, rounds: int = ROUNDS
) -> dict[int, float]:
    @torch.inference_mode()
    def forward(images: torch.Tensor) -> None:
        network(images).sum().item()

    batches = {size: _images(network, size) for size in sizes}
    ways = {size: partial(forward, batches[size]) for size in batches}
    seconds = time_in_turns(ways, rounds=rounds)
    return {size: len(batches[size]) / one for size, one in seconds.items()}


def _training_rates(
    network: TransferNet, size: int, possible: Sequence[Compute]
) -> dict[Compute, float]:
    """Return the images per second of each setting; one step is enough for a hopeless one."""
    images = _images(network, size)
    device = images.device
    # Two networks, since converting one takes longer than a step.
    layouts = {
        layout: copy.deepcopy(network).requires_grad_(True).to(memory_format=layout)
        for layout in {way.memory_format for way in possible}
    }

    def step(way: Compute) -> None:
        layout = way.memory_format
        with way.autocast():
            outputs = layouts[layout](images.contiguous(memory_format=layout))
        outputs.float().square().mean().backward()  # the kind of loss has no effect on the time
        layouts[layout].zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    ways = {way: partial(step, way) for way in possible}
    seconds = time_in_turns(ways, drop_hopeless=True)
    return {way: len(images) / one for way, one in seconds.items()}


def _latency_ms(network: TransferNet, size: int) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        image = np.zeros((1, 3, size, size), np.float32)
        export_onnx(network, path, image)
        run = partial(onnx_session(path).run, ["logits"])
        return 1000 * time_in_turns({"onnx": partial(run, {"images": image})})["onnx"]


def _images(network: TransferNet, size: int) -> torch.Tensor:
    device = next(network.parameters()).device
    count = CPU_BATCH_IMAGES if device.type == "cpu" else GPU_BATCH_IMAGES
    return torch.zeros(count, 3, size, size, device=device)
