"""Checkpoints of a fine-tuning: safetensors and JSON, never pickle."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rootstock.system.files import write_atomic

_FILE = "checkpoint.safetensors"


def write_checkpoint(
    directory: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: dict[str, Any],
    *,
    average: nn.Module | None = None,
) -> None:
    """Write weights, optimizer state and ``progress`` (JSON) as one file, whole or not at all."""
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{key}": value for key, value in state.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with write_atomic(directory / _FILE) as temporary:
        save_file(tensors, temporary, metadata={"progress": json.dumps(progress)})


def read_checkpoint(
    directory: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    average: nn.Module | None = None,
) -> dict[str, Any] | None:
    """Restore a checkpoint and return its progress; None if there is no checkpoint.

    A damaged checkpoint is ignored with a warning: it costs time, but never the trial.
    """
    path = directory / _FILE
    try:
        progress, modules, states = _read(path)
    except FileNotFoundError:
        return None
    except SafetensorError as error:
        warnings.warn(
            f"{path} is damaged ({error}); training starts from the beginning", stacklevel=2
        )
        return None
    network.load_state_dict(modules["network"])
    if average is not None:
        average.load_state_dict(modules["average"])
    fresh = optimizer.state_dict()
    optimizer.load_state_dict({"state": states, "param_groups": fresh["param_groups"]})
    return progress


def _read(
    path: Path,
) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]], dict[int, dict[str, Tensor]]]:
    """Return progress, weights by module and name, and optimizer state by parameter number."""
    with safe_open(path, framework="pt") as file:
        progress: dict[str, Any] = json.loads(file.metadata()["progress"])
        modules: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}}
        states: dict[int, dict[str, Tensor]] = {}
        for name in file.keys():  # noqa: SIM118 - not a mapping
            kind, _, rest = name.partition(".")
            if kind in modules:
                modules[kind][rest] = file.get_tensor(name)
            else:
                number, _, key = rest.partition(".")
                states.setdefault(int(number), {})[key] = file.get_tensor(name)
    return progress, modules, states


def drop_checkpoint(directory: Path) -> None:
    """Delete the checkpoint of a finished training."""
    (directory / _FILE).unlink(missing_ok=True)
