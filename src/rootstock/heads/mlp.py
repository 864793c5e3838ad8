"""A small head with one hidden layer, for classes without a linear border."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rootstock.errors import TrainingError
from rootstock.heads.linear import CPU, MIN_SCALE, LinearHead, MlpHead

BATCH_ROWS = 128
N_EPOCHS = 30
MIN_STEPS, MAX_STEPS = 1_000, 5_000
PEAK_LEARNING_RATE = 3e-3


def fit_mlp_head(
    features: np.ndarray,
    targets: Tensor,
    *,
    hidden: int,
    l2: float,
    n_outputs: int,
    mean_loss: Callable[[Tensor, Tensor], Tensor],
    seed: int = 0,
    device: torch.device = CPU,
) -> MlpHead:
    """Fit a head of ``hidden`` units on features [N,D] and encoded targets [N,...].

    Adam with a cosine schedule; ``l2`` times half the squared norm of the weights is added to
    ``mean_loss`` of outputs and targets. The same seed gives the same head on a CPU.
    Raises:
        TrainingError: the loss is not finite.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    scale = features.std(axis=0, dtype=np.float64)
    scale[scale < MIN_SCALE] = 1.0
    inputs = torch.from_numpy(((features - mean) / scale).astype(np.float32)).to(device)
    targets = targets.to(device)
    chance = torch.Generator().manual_seed(seed)
    layers = [
        (torch.randn(after, before, generator=chance, device=CPU) * gain / before**0.5)
        .to(device)
        .requires_grad_()
        for before, after, gain in ((inputs.shape[1], hidden, 2**0.5), (hidden, n_outputs, 0.1))
    ]
    biases = [torch.zeros(size, requires_grad=True, device=device) for size in (hidden, n_outputs)]
    optimizer = torch.optim.Adam([*layers, *biases], lr=PEAK_LEARNING_RATE)
    steps = min(max(MIN_STEPS, N_EPOCHS * math.ceil(len(targets) / BATCH_ROWS)), MAX_STEPS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    n_rows = min(BATCH_ROWS, len(targets))
    for _ in range(steps):
        picks = torch.randint(len(targets), (n_rows,), generator=chance, device=CPU)
        rows = picks.to(device)
        inner = F.linear(inputs[rows], layers[0], biases[0]).relu()
        outputs = F.linear(inner, layers[1], biases[1])
        norm = layers[0].square().sum() + layers[1].square().sum()
        loss = mean_loss(outputs, targets[rows]) + l2 / 2 * norm
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    if not math.isfinite(loss.item()):
        raise TrainingError("the loss of the head with a hidden layer is not finite")
    first, second = (
        [part.detach().cpu() for part in pair] for pair in zip(layers, biases, strict=True)
    )
    weights = first[0].double().numpy() / scale
    bias = first[1].double().numpy() - weights @ mean
    return MlpHead(
        LinearHead(weights.astype(np.float32), bias.astype(np.float32)),
        LinearHead(second[0].numpy(), second[1].numpy()),
    )
