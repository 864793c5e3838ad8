"""Outputs of a network in training, and their quality."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from rootstock.tasks.task import Task
from rootstock.training.distributed import ProcessGroup
from rootstock.training.images import ImageSet
from rootstock.training.network import TransferNet

BATCH_IMAGES = 128


def predict_outputs(network: TransferNet, images: ImageSet) -> np.ndarray:
    """Return outputs float32[N,K] of images as in the evaluation; a group shares the work."""
    processes = ProcessGroup.current()
    indices = processes.shard(torch.arange(len(images))).numpy()
    rows = [np.empty((0, network.n_outputs), np.float32)]
    rows += [outputs for outputs, _ in _forward(network, images, indices)]
    return processes.gather(np.concatenate(rows))


def predict_features(network: TransferNet, images: ImageSet) -> np.ndarray:
    """Return the features float32[N,D] for comparing images, as in the evaluation."""
    batches = _forward(network, images, np.arange(len(images)))
    return np.concatenate([features for _, features in batches])


@torch.inference_mode()
def _forward(
    network: TransferNet, images: ImageSet, indices: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the outputs and features of each batch."""
    network.eval()
    device = next(network.parameters()).device
    for start in range(0, len(indices), BATCH_IMAGES):
        pixels = images.pixels(indices[start : start + BATCH_IMAGES])
        batch = torch.from_numpy(images.preprocess.normalise(pixels)).to(device)
        outputs, features, _ = network.read(batch)
        yield outputs.float().cpu().numpy(), features.float().cpu().numpy()


def validate(network: TransferNet, images: ImageSet, task: Task) -> dict[str, float]:
    """Return the task's metrics, with the prefix ``val_``."""
    return task.validate(predict_outputs(network, images), images.targets)
