"""The files of a pretraining: recipe, checkpoints, BatchNorm statistics, and card."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rootstock.system.files import write_atomic, write_json
from tools.pretrain.corpus import Corpus, centre_boxes, crop
from tools.pretrain.objectives import embed

WARMUP = 0.05
"""Share of the steps during which the learning rate rises."""

STATISTICS_IMAGES = 16_384
"""Images for measuring the BatchNorm statistics at the end."""


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the weights, except the images. It is written into the card."""

    architecture: str
    teacher: str
    input_size: int
    epochs: int
    low_size: int
    low_epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    crop_pct: float
    smallest_crop: float
    stored_size: int
    teacher_size: int
    views: int
    label_weight: float
    seed: int

    def size(self, epoch: int) -> int:
        """Return the pixels of the crops in ``epoch``."""
        return self.low_size if epoch < self.low_epochs else self.input_size

    def rate(self, progress: float) -> float:
        """Return the learning rate: a short linear rise, then half a cosine down to zero."""
        rise = min(1.0, progress / WARMUP)
        return self.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * progress))


def save_checkpoint(
    path: Path, both: nn.Module, optimizer: torch.optim.Optimizer, *, epoch: int, minutes: float
) -> None:
    tensors = {f"model.{key}": value for key, value in both.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{key}": value for key, value in state.items()}
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    with write_atomic(path) as partial:
        save_file(tensors, partial, metadata={"epoch": str(epoch), "minutes": repr(minutes)})


def resume(path: Path, both: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """Load the checkpoint if there is one; return the first epoch to run and minutes so far."""
    if not path.exists():
        return 0, 0.0
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        facts = file.metadata()
    both.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k[0] == "m"})
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".")
            state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    return int(facts["epoch"]) + 1, float(facts["minutes"])


def _evaluation_batches(corpus: Corpus, rows: Tensor, recipe: Recipe) -> Iterator[Tensor]:
    for part in rows.split(256):
        boxes = centre_boxes(len(part), crop_pct=recipe.crop_pct)
        yield crop(corpus.batch(part), boxes, size=recipe.input_size, mode="bicubic")


@torch.no_grad()
def measure_statistics(network: Any, corpus: Corpus, *, recipe: Recipe, device: str) -> None:
    """Replace every BatchNorm's running statistics by the corpus's, with evaluation's crops."""
    layers = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over the batches
    network.train()
    generator = torch.Generator().manual_seed(recipe.seed)
    rows = torch.randperm(len(corpus), generator=generator)[:STATISTICS_IMAGES]
    for images in _evaluation_batches(corpus, rows, recipe):
        if len(images) > 1:
            network(images.to(device))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.eval()


@torch.no_grad()
def embed_all(network: Any, corpus: Corpus, recipe: Recipe, device: str) -> Tensor:
    batches = _evaluation_batches(corpus, torch.arange(len(corpus)), recipe)
    return torch.cat([embed(network.eval(), images.to(device)) for images in batches])


def command_of(recipe: Recipe, function: Callable[..., Path]) -> str:
    """Return the command line of a recipe: the differences from the defaults of ``function``."""
    usual = inspect.signature(function).parameters
    given = {
        key: str(value).split()[0]  # for a teacher, its file name without the checksum
        for key, value in asdict(recipe).items()
        if value and value != usual[key].default
    }
    flags = [f"--{key.replace('_', '-')} {value}" for key, value in given.items()]
    return " ".join(["python -m tools.pretrain DATA OUT", *flags])


def card_of(
    network: Any,
    recipe: Recipe,
    *,
    facts: dict[str, Any],
    measured: dict[str, float],
    licence: str,
) -> dict[str, Any]:
    how = f"distilled from {recipe.teacher.split()[0]}" if recipe.teacher else "trained on labels"
    return {
        "architecture": recipe.architecture,
        "architecture_kwargs": {},
        "num_classes": network.get_classifier().out_features,
        "input_size": [3, recipe.input_size, recipe.input_size],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "crop_pct": recipe.crop_pct,
        "pretrained_on": f"{facts['data']} ({facts['images']} images)",
        "license": licence,
        "source": "tools.pretrain of Rootstock",
        "note": f"{how}; BatchNorm statistics were measured on the corpus with evaluation's crops",
        "measured": {key: round(value, 4) for key, value in measured.items()},
        "recipe": {**asdict(recipe), **facts, "torch": torch.__version__},
    }


def write_weights(network: Any, card: dict[str, Any], path: Path) -> Path:
    state = {
        key: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for key, value in network.state_dict().items()
    }
    with write_atomic(path) as partial:
        save_file(state, partial, metadata={"format": "pt"})
    write_json(path.with_suffix(".json"), card)
    return path
