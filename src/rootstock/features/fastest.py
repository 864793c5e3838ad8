"""Find the engine that computes features fastest on this machine, measured once.

Each candidate has already shown the same features within its tolerance
(`rootstock.features.forward`), so the stored features do not depend on the engine.
"""

from __future__ import annotations

import importlib
import logging
from functools import partial
from pathlib import Path

import numpy as np

from rootstock.features.forward import ForwardPass, ForwardPasses
from rootstock.runtimes.choose import SECONDS_PER_WAY, choose_fastest, time_in_turns
from rootstock.runtimes.engines import PACKAGES, Engine
from rootstock.system.artifacts import Record, measured_once
from rootstock.system.cpu import processor_name, usable_cores
from rootstock.system.threads import spread

_log = logging.getLogger(__name__)
MEASURE_FROM_IMAGES = 1_000
"""Measuring takes about as long as 80 images, and happens once."""
TASK_IMAGES = 4
"""A processor gains nothing from larger batches, because of its caches."""


class EngineRates(Record):
    """Images per second of each variant by name, with all cores in use."""

    machine: str
    rates: dict[str, float]


def choose_pass(
    passes: ForwardPasses, *, probe: np.ndarray, folder: Path, batch_size: int
) -> ForwardPass:
    """Return the fastest of ``passes``, measured if that can matter.

    On a processor without OpenVINO nothing is measured: ONNX Runtime is always several times as
    fast as PyTorch. ``folder`` keeps the measurements. ``probe`` are prepared images
    uint8[N,S,S,3]; ``batch_size`` is for a GPU.
    """
    if not passes.measurable:
        return passes.variants[0]
    variants = {variant.name: variant for variant in passes.variants}
    machine = f"{processor_name()}, {usable_cores()} cores"
    versions = [f"{name} {_version(variant.engine)}" for name, variant in variants.items()]
    rates = measured_once(
        folder,
        [passes.name, machine, batch_size, *versions],
        EngineRates,
        lambda: EngineRates(machine=machine, rates=_measure_rates(passes, probe, batch_size)),
    ).rates
    fastest = choose_fastest(rates)
    text = ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())
    _log.info("features are computed by %s (images/s on this machine: %s)", fastest, text)
    return variants[fastest]


def _measure_rates(passes: ForwardPasses, probe: np.ndarray, batch_size: int) -> dict[str, float]:
    concurrent = any(variant.concurrent for variant in passes.variants)
    count = TASK_IMAGES * usable_cores() if concurrent else batch_size
    images = np.resize(probe, (count, *probe.shape[1:]))
    tasks = [images[start : start + TASK_IMAGES] for start in range(0, count, TASK_IMAGES)]

    def run(variant: ForwardPass) -> None:
        for _ in spread(variant.run, tasks) if variant.concurrent else [variant.run(images)]:
            pass

    seconds = time_in_turns(
        {variant.name: partial(run, variant) for variant in passes.variants},
        seconds_per_way=SECONDS_PER_WAY,
        drop_hopeless=True,
    )
    return {name: round(count / lap, 2) for name, lap in seconds.items()}


def _version(engine: Engine) -> str:
    return str(importlib.import_module(PACKAGES[engine]).__version__)
