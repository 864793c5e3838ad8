"""How a training step computes: the memory layout of images, and how exact its numbers are.

Which way is the fastest differs between machines and networks (on one processor channels_last was
1.27 times as fast for MobileNetV3 and .96 for ResNet-18), so
`rootstock.training.throughput` measures it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from rootstock.runtimes.choose import CLEAR_LEAD, ROUNDING_LEAD, choose_fastest
from rootstock.system.artifacts import Record


class Compute(Record):
    """A way to compute a step, measured on devices of the type ``device``."""

    device: str
    channels_last: bool
    bfloat16: bool

    @property
    def memory_format(self) -> torch.memory_format:
        """Of the images and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.bfloat16)


def usual_compute(device: torch.device) -> Compute:
    """What is taken where nothing was measured: tensor cores want both, processors neither."""
    accelerated = device.type == "cuda"
    return Compute(device=device.type, channels_last=accelerated, bfloat16=accelerated)


def fitting_compute(device: torch.device, measured: Compute | None) -> Compute:
    """``measured``, unless it comes from another kind of device: a worker may have a GPU alone."""
    if measured is not None and measured.device == device.type:
        return measured
    return usual_compute(device)


def possible_ways(device: torch.device) -> list[Compute]:
    """The ways worth measuring on this device, the plainest first."""
    exact = [
        Compute(device=device.type, channels_last=last, bfloat16=False) for last in (False, True)
    ]
    rounded = [way.model_copy(update={"bfloat16": True}) for way in exact]
    return exact + rounded if _has_bfloat16(device) else exact


def choose_compute(rates: Mapping[Compute, float]) -> Compute:
    """Return the way to take by the images per second of each; rounding has to lead by more."""

    def lead(best: Compute, way: Compute) -> float:
        return ROUNDING_LEAD if way.bfloat16 and not best.bfloat16 else CLEAR_LEAD

    return choose_fastest(rates, lead)


def _has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware knows the format: emulated, a step takes ten times as long."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(known is True for name, known in capabilities.items() if name.endswith("bf16"))
