"""Optimization: settings, parameter groups by depth, optimizer and schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rootstock.backbones.tap_features import average_width
from rootstock.backbones.taps import module_stages
from rootstock.config.choices import Augmentation
from rootstock.config.schema import TrainConfig
from rootstock.plan.transfer_plan import FinetuneRecipe
from rootstock.training.compute import Compute
from rootstock.training.mix import choose_mixup
from rootstock.training.network import TransferNet

WARMUP = 0.1
NORM = "norm"
HEAD = "head"


@dataclass(frozen=True)
class FinetuneSettings:
    """How to fine-tune; ``learning_rate`` is the peak for the last layers of the backbone.

    Earlier layers get it times ``layer_decay`` per tap between, the head gets it times
    ``head_multiplier``. ``batchnorm="eval"`` keeps the pretrained statistics everywhere, "train"
    updates them in the part that is not frozen.
    """

    learning_rate: float
    epochs: int
    batch_size: int
    freeze_through: str | None
    batchnorm: Literal["eval", "train"]
    layer_decay: float
    head_multiplier: float
    weight_decay: float
    label_smoothing: float
    patience: int
    augmentation: Augmentation
    flip: bool
    seed: int
    optimizer: Literal["adamw", "sgd"] = "adamw"
    norm_only: bool = False
    """Train only normalisation layers and the head."""
    ema_decay: float = 0.0
    micro_batch: int | None = None
    """Images per forward pass; None: the whole batch."""
    local_warp: float = 0.0
    channel_shift: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    weighting: str = "none"
    """How the loss or the sampling treats rare targets; see `Task.weightings`."""
    recompute: bool = False
    """Recompute activations in the backward pass instead of storing them."""
    compute: Compute | None = None
    """The measured setting; None: the usual one for the device."""

    @classmethod
    def from_plan(
        cls,
        recipe: FinetuneRecipe,
        options: TrainConfig,
        *,
        n_train: int,
        seed: int,
        compute: Compute | None,
    ) -> FinetuneSettings:
        """Return the plan's recipe, with the user's options in place of fields that they name.

        The learning rate is 0: each trial sets its own.
        """
        names = {field.name for field in fields(cls)}
        values: dict[str, Any] = {**dict(options), **dict(recipe)}
        chosen = {
            "learning_rate": 0.0,
            "mixup": choose_mixup(options.mixup, n_train=n_train),
            "weighting": options.class_weight,
            "seed": seed,
            "compute": compute,
        }
        return cls(**{key: value for key, value in values.items() if key in names} | chosen)


def make_optimizer(
    groups: list[dict[str, Any]], settings: FinetuneSettings
) -> torch.optim.Optimizer:
    """Return AdamW, or SGD with Nesterov momentum; the rate is set at every step."""
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=0.0, momentum=0.9, nesterov=True, weight_decay=settings.weight_decay
        )
    return torch.optim.AdamW(groups, lr=0.0, weight_decay=settings.weight_decay)


def rate_factor(done: float) -> float:
    """Return the factor at ``done`` in [0, 1]: warm-up over a tenth, then a cosine to zero."""
    if done < WARMUP:
        return (done + 1e-3) / WARMUP
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (done - WARMUP) / (1.0 - WARMUP))))


def parameter_groups(network: TransferNet, settings: FinetuneSettings) -> list[dict[str, Any]]:
    """Return the optimizer's groups with ``peak`` rate and ``stage``, without frozen parameters.

    A head that reads whole maps learns more slowly by the factor by which they are wider than their
    averages, because a step moves an output by the sum over its features (Yang et al. 2021,
    arXiv:2203.03466). A head that reads each position does not.
    Biases and normalisation have no weight decay. Frozen parameters stop requiring gradients.
    """
    stages = _stages(network)
    depth = _depths(network)
    frozen = _frozen(settings, depth)
    share = average_width(network.parts) / sum(part.width for part in network.parts)
    share *= network.features_per_weight
    norms = norm_layers(network)
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        module = name.rpartition(".")[0]
        stage = stages[module]
        is_fixed = settings.norm_only and stage != HEAD and module not in norms
        parameter.requires_grad_(not is_fixed and stage not in frozen)
        if not parameter.requires_grad:
            continue
        plain = parameter.ndim <= 1
        group = groups.setdefault(
            (stage, plain),
            {
                "params": [],
                "stage": stage,
                "peak": _peak_rate(stage, depth, settings) * (share if stage == HEAD else 1.0),
                **({"weight_decay": 0.0} if plain else {}),
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def norm_layers(network: nn.Module) -> set[str]:
    """Return the names of the normalisation layers, whose scales and offsets can be trained.

    Libraries such as timm have their own classes for them (`RmsNorm`), so the class name counts.
    """
    return {
        name for name, module in network.named_modules() if NORM in type(module).__name__.lower()
    }


def set_training_mode(network: TransferNet, settings: FinetuneSettings) -> None:
    """Set training mode, but evaluation mode for frozen parts: their BatchNorm must not drift."""
    stages = _stages(network)
    frozen = _frozen(settings, _depths(network))
    network.train()
    for name, module in network.named_modules():
        keeps_statistics = isinstance(module, _BatchNorm) and settings.batchnorm == "eval"
        if keeps_statistics or stages[name] in frozen:
            # Not .eval(): that would reach into children, which may belong to deeper stages.
            module.training = False


def _stages(network: TransferNet) -> dict[str, str]:
    """Return the tap of each module name, or ``head``."""
    inner = module_stages(_timm_module(network))
    stages = {f"extractor.module.{name}".rstrip("."): tap for name, tap in inner.items()}
    heads = {f"head.{name}".rstrip("."): HEAD for name, _ in network.head.named_modules()}
    return stages | heads | {"": HEAD, "extractor": HEAD}


def _depths(network: TransferNet) -> dict[str, int]:
    """Return the number of taps between each tap and the output; 0 for head and last tap."""
    module = _timm_module(network)
    inner = module_stages(module)
    names = [f"block{n + 1}" for n in range(len(module.feature_info))]
    names = [*names, "last"] if "last" in inner.values() else names
    return {name: len(names) - 1 - position for position, name in enumerate(names)}


def _timm_module(network: TransferNet) -> Any:
    return network.extractor.module


def _frozen(settings: FinetuneSettings, depth: dict[str, int]) -> set[str]:
    if settings.freeze_through is None:
        return set()
    # A network may have nothing between its last block and the pooling
    border = depth.get(settings.freeze_through, 0)
    return {name for name, distance in depth.items() if distance >= border}


def _peak_rate(stage: str, depth: dict[str, int], settings: FinetuneSettings) -> float:
    if stage == HEAD:
        return settings.learning_rate * settings.head_multiplier
    return settings.learning_rate * settings.layer_decay ** depth[stage]
