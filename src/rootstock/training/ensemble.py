"""EnsembleNet: several networks in one, whose answers are averaged.

Networks trained from the same start in another order make partly different mistakes
(Lakshminarayanan et al. 2017, "Simple and scalable predictive uncertainty estimation using deep
ensembles", arXiv:1612.01474). The average is calibrated afterwards, like a single network (Rahaman
and Thiery 2021, arXiv:2007.08792).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rootstock.tasks.task import Task
from rootstock.training.network import TransferNet


class EnsembleNet(TransferNet):
    """Prepared images float32[N,3,S,S] -> outputs [N,K], averaged by the task.

    Features, tap and head are those of the first network. An output cannot be read from maps,
    because it is not a sum over positions.
    """

    def __init__(self, networks: Sequence[TransferNet], task: Task) -> None:
        first, *others = networks
        super().__init__(first.extractor, first.head, tap=first.tap)
        self.others = nn.ModuleList(others)
        self.task = task

    @classmethod
    def of_equals(cls, network: TransferNet, count: int, task: Task) -> EnsembleNet:
        """Return an ensemble of ``count`` copies of a network, to load weights into."""
        return cls([copy.deepcopy(network) for _ in range(count)], task)

    @property
    def n_networks(self) -> int:
        """See `TransferNet`."""
        return 1 + len(self.others)

    @property
    def adds_up_maps(self) -> bool:
        """See `TransferNet`."""
        return False

    def measure(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `TransferNet`; a size is the largest of any network and output, as they are mixed."""
        own = super().measure(images)
        every = [own, *(one.measure(images) for one in self._others)]
        outputs = self.task.average(torch.stack([one[0] for one in every]))
        largest = torch.stack([one[2] for one in every]).amax(dim=0)
        return outputs, own[1], largest.amax(dim=1, keepdim=True).expand_as(largest)

    def read(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """See `TransferNet`."""
        outputs, features, maps = super().read(images)
        of_each = torch.stack([outputs, *(one(images) for one in self._others)])
        return self.task.average(of_each), features, maps

    def forward(self, images: Tensor) -> Tensor:
        """Return the averaged outputs [N,K]."""
        return self.read(images)[0]

    @property
    def _others(self) -> list[TransferNet]:
        return list(self.others)  # type: ignore[arg-type]
