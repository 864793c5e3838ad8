"""Which engine computes features fastest on this machine: measured in seconds, once, and kept.

Each candidate has shown the same features within its tolerance before
(`rootstock.features.forward`), so what is stored does not say who computed it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import platform
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from rootstock.features.forward import Forward, Ways
from rootstock.features.loading import spread
from rootstock.runtimes.engines import PACKAGES, Engine
from rootstock.system.artifacts import Record, measured_once
from rootstock.system.cpu import usable_cores

_log = logging.getLogger(__name__)
MEASURE_FROM = 1_000
"""Images: measuring takes as long as some 80 of them, and not at all the next time."""
TASK_IMAGES = 4
"""A processor's forward pass gains nothing from larger batches, and its caches lose."""
ROUNDS, SECONDS = 3, 0.5
"""Each way is timed so often at least, and so long."""
CLEAR_LEAD = 1.05
"""A way that is not faster by a twentieth is not worth being another one."""
HOPELESS = 0.5
"""Of the best rate: below it one round has told enough."""


class EngineRates(Record):
    """Images a second of each way by its name, all cores at work."""

    machine: str
    rates: dict[str, float]


def choose_forward(ways: Ways, *, probe: np.ndarray, folder: Path, batch_size: int) -> Forward:
    """The fastest of ``ways``, measured where that is open.

    On a processor without OpenVINO nothing is measured: ONNX Runtime is several times as fast as
    PyTorch anywhere. ``folder`` keeps what was measured. ``probe`` are prepared images
    uint8[N,S,S,3]; ``batch_size`` is a GPU's.
    """
    forwards = {forward.name: forward for forward in ways.forwards}
    if not ways.open:
        return ways.forwards[0]
    machine = f"{_processor()}, {usable_cores()} cores"
    versions = [f"{name} {_version(forward.engine)}" for name, forward in forwards.items()]
    facts = json.dumps([ways.name, machine, batch_size, *versions])
    path = folder / f"{hashlib.sha256(facts.encode()).hexdigest()[:20]}.json"
    found = measured_once(
        path,
        EngineRates,
        lambda: EngineRates(machine=machine, rates=_measure(ways, probe, batch_size)),
    )
    best = choose_engine(found.rates)
    text = ", ".join(f"{name} {rate:.0f}" for name, rate in found.rates.items())
    _log.info("features are computed by %s (images/s on this machine: %s)", best, text)
    return forwards[best]


def choose_engine(rates: dict[str, float]) -> str:
    """The fastest, or the first of those that it does not clearly lead."""
    best, *others = rates
    for name in others:
        if rates[name] >= CLEAR_LEAD * rates[best]:
            best = name
    return best


def _measure(ways: Ways, probe: np.ndarray, batch_size: int) -> dict[str, float]:
    """In turns, so that other load on the machine hits all alike; the best round counts."""
    concurrent = any(forward.concurrent for forward in ways.forwards)
    count = TASK_IMAGES * usable_cores() if concurrent else batch_size
    images = np.resize(probe, (count, *probe.shape[1:]))
    rates: dict[str, float] = {}
    for forward in ways.forwards:
        _seconds(forward, images)  # warms up
    started, rounds = time.monotonic(), 0
    while rounds < ROUNDS or time.monotonic() - started < SECONDS * len(ways.forwards):
        hopeless = HOPELESS * max(rates.values(), default=0.0)
        for forward in ways.forwards:
            if rates.get(forward.name, hopeless) >= hopeless:
                rate = len(images) / _seconds(forward, images)
                rates[forward.name] = round(max(rate, rates.get(forward.name, 0.0)), 2)
        rounds += 1
    return rates


def _seconds(forward: Forward, images: np.ndarray) -> float:
    tasks: Sequence[np.ndarray] = np.split(images, len(images) // TASK_IMAGES)
    started = time.perf_counter()
    for _ in spread(forward.run, tasks) if forward.concurrent else [forward.run(images)]:
        pass
    return max(time.perf_counter() - started, 1e-9)


def _version(engine: Engine) -> str:
    return str(importlib.import_module(PACKAGES[engine]).__version__)


@cache
def _processor() -> str:
    """Its name; machines that share a store need not be alike."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return text.partition("model name")[2].partition(":")[2].splitlines()[0].strip()
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
