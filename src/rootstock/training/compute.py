"""The settings of a training step: the memory layout of images, and the precision of numbers.

The fastest setting depends on machine and network (on one processor channels_last was 1.27 times as
fast for MobileNetV3 and .96 for ResNet-18), so `rootstock.training.throughput` measures it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from rootstock.runtimes.choose import CLEAR_LEAD, ROUNDING_LEAD, choose_fastest
from rootstock.system.artifacts import Record


class Compute(Record):
    """A setting for a step, measured on devices of the type ``device``."""

    device: str
    channels_last: bool
    bfloat16: bool

    @property
    def memory_format(self) -> torch.memory_format:
        """The memory format of images and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.bfloat16)


def usual_compute(device: torch.device) -> Compute:
    """Return the setting without a measurement: tensor cores use both options, processors none."""
    accelerated = device.type == "cuda"
    return Compute(device=device.type, channels_last=accelerated, bfloat16=accelerated)


def fitting_compute(device: torch.device, measured: Compute | None) -> Compute:
    """Return ``measured``, unless it is from another kind of device than this worker's."""
    if measured is not None and measured.device == device.type:
        return measured
    return usual_compute(device)


def possible_ways(device: torch.device) -> list[Compute]:
    """Return the settings worth measuring on this device, the simplest first."""
    exact = [
        Compute(device=device.type, channels_last=last, bfloat16=False) for last in (False, True)
    ]
    rounded = [way.model_copy(update={"bfloat16": True}) for way in exact]
    return exact + rounded if _has_bfloat16(device) else exact


def choose_compute(rates: Mapping[Compute, float]) -> Compute:
    """Return the fastest setting by images per second; rounding must win by a larger margin."""

    def lead(best: Compute, way: Compute) -> float:
        return ROUNDING_LEAD if way.bfloat16 and not best.bfloat16 else CLEAR_LEAD

    return choose_fastest(rates, lead)


def _has_bfloat16(device: torch.device) -> bool:
    """Return whether the hardware supports the format: emulation takes ten times as long."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(known is True for name, known in capabilities.items() if name.endswith("bf16"))
