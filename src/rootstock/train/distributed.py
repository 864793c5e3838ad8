"""Team: the processes that share one fine-tuning, each with a part of every batch.

Gradients are summed after the backward pass, in one message. A process that ran out of memory can
so repeat its part alone, and the sum is that of one process, up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Team:
    """Process ``rank`` of ``size``; one alone needs no torch.distributed."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Team:
        """The team that torch.distributed was set up for, or one alone."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, items: Tensor) -> Tensor:
        """This process' part of ``items`` [N]; may be empty."""
        return items[self.rank :: self.size]

    def total(self, value: Tensor) -> Tensor:
        """The sum over the team."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def add_gradients(self, network: nn.Module) -> None:
        """Give every process the summed gradients of all."""
        if self.size == 1:
            return
        moving = [parameter for parameter in network.parameters() if parameter.requires_grad]
        flat = torch.cat(
            [
                (torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1).float()
                for p in moving
            ]
        )
        dist.all_reduce(flat)
        parts = flat.split([parameter.numel() for parameter in moving])
        for parameter, part in zip(moving, parts, strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)

    def align(self, network: nn.Module) -> None:
        """Give every process the weights and statistics of the first."""
        if self.size > 1:
            for value in network.state_dict().values():
                dist.broadcast(value, src=0)

    def join_rows(self, rows: np.ndarray) -> np.ndarray:
        """All rows [N,...] of which each process made the part that `share` gives it."""
        if self.size == 1:
            return rows
        parts: list[np.ndarray] = [rows] * self.size
        dist.all_gather_object(parts, rows)
        whole = np.empty((sum(map(len, parts)), *rows.shape[1:]), rows.dtype)
        for rank, part in enumerate(parts):
            whole[rank :: self.size] = part
        return whole

    def agree(self, wish: bool) -> bool:
        """What the first process wishes: clocks differ, but all must go on or none."""
        if self.size == 1:
            return wish
        told: list[bool] = [wish]
        dist.broadcast_object_list(told, src=0)
        return told[0]

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()
