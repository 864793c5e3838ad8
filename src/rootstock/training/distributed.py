"""ProcessGroup: processes that share one fine-tuning, each with a shard of every batch.

Gradients are summed after the backward pass, in one message. So a process that ran out of memory
can repeat its shard, and the sum equals that of one process, up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class ProcessGroup:
    """Process ``rank`` of ``size``; a single one needs no torch.distributed."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> ProcessGroup:
        """Return the group that torch.distributed was set up for, or a single process."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def shard(self, items: Tensor) -> Tensor:
        """Return this process' part of ``items`` [N]; it may be empty."""
        return items[self.rank :: self.size]

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum over the group."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def sum_gradients(self, network: nn.Module) -> None:
        """Give every process the summed gradients of all."""
        if self.size == 1:
            return
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        flat = torch.cat(
            [
                (torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1).float()
                for p in trained
            ]
        )
        dist.all_reduce(flat)
        parts = flat.split([parameter.numel() for parameter in trained])
        for parameter, part in zip(trained, parts, strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)

    def sync(self, network: nn.Module) -> None:
        """Give every process the weights and statistics of the first."""
        if self.size > 1:
            for value in network.state_dict().values():
                dist.broadcast(value, src=0)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Return all rows [N,...], from the `shard` of each process."""
        if self.size == 1:
            return rows
        parts: list[np.ndarray] = [rows] * self.size
        dist.all_gather_object(parts, rows)
        whole = np.empty((sum(map(len, parts)), *rows.shape[1:]), rows.dtype)
        for rank, part in enumerate(parts):
            whole[rank :: self.size] = part
        return whole

    def broadcast(self, value: bool) -> bool:
        """Return the first process's value: clocks differ, but all must stop or none."""
        values: list[bool] = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()
