"""The device that a setting names."""

from __future__ import annotations

import torch

from rootstock.errors import BackboneError


def pick_device(device: str) -> torch.device:
    """Return the device with this name; ``auto`` is the GPU if there is one, otherwise the CPU.

    Raises:
        BackboneError: The device is unknown or missing.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise BackboneError(f"unknown device {device!r}", hint="use cpu, cuda, or cuda:0") from None
    if chosen.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise BackboneError(
                f"device {device!r} was requested, but there is no GPU", hint="use auto"
            )
        if (chosen.index or 0) >= count:
            raise BackboneError(
                f"device {device!r} was requested, but the number of GPUs is {count}",
                hint=f"use auto, or cuda:0 to cuda:{count - 1}",
            )
    return chosen
