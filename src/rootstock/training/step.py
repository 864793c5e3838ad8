"""One optimizer step whose batch can be processed in parts, so that it fits into memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rootstock.errors import TrainingError

log = logging.getLogger(__name__)

# PyTorch has an exception for this only on GPUs; on a CPU it is a RuntimeError with this text.
_CPU_WORDS = ("not enough memory", "can't allocate memory")

PartLoss = Callable[[Tensor], Tensor]
"""Maps positions [M] in the batch to the sum of their weighted losses."""


@dataclass
class MicroBatches:
    """The number of images per forward pass; it falls permanently when memory runs out."""

    size: int

    def backward(
        self,
        loss_of: PartLoss,
        count: int,
        *,
        total_weight: Tensor,
        zero_grad: Callable[[], None],
    ) -> float:
        """Compute gradients of the mean loss over ``count`` images in parts; return the loss.

        ``total_weight``: the sum of the loss weights over the batch. When memory runs out, the
        gradients are dropped and the same batch is started again in halves.
        Raises:
            TrainingError: a single image does not fit.
        """
        while True:
            zero_grad()
            try:
                return self._backward(loss_of, torch.arange(count), total_weight)
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                self._halve(min(self.size, count), error)

    def _backward(self, loss_of: PartLoss, positions: Tensor, total_weight: Tensor) -> float:
        total = 0.0
        for part in positions.split(self.size):
            share = loss_of(part) / total_weight
            share.backward()
            total += share.item()
        return total

    def _halve(self, size: int, error: RuntimeError) -> None:
        if size <= 1:
            raise TrainingError(
                f"a single image does not fit into memory: {str(error).splitlines()[0]}",
                hint="use a smaller plan.input_size or backbone, or a machine with more memory",
            ) from None
        self.size = (size + 1) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log.warning("out of memory: %d images at once from here on", self.size)


def _out_of_memory(error: RuntimeError) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return any(word in str(error) for word in _CPU_WORDS)
