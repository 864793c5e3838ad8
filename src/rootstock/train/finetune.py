"""Fine-tuning: one loop, read from top to bottom."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rootstock.backbones.stages import module_stages
from rootstock.data.files import write_atomic, write_json
from rootstock.errors import TrainingError
from rootstock.metrics import accuracy, balanced_accuracy, log_loss, softmax
from rootstock.ports import Report
from rootstock.train.augment import Level, augment, draw_changes
from rootstock.train.checkpoint import drop_checkpoint, read_checkpoint, write_checkpoint
from rootstock.train.images import ImageSet
from rootstock.train.network import TransferNet

BEST = "best.safetensors"
HISTORY = "history.json"
WARMUP = 0.1
CLIP_NORM = 1.0
EVAL_BATCH = 128
HEAD = "head"


@dataclass(frozen=True)
class FinetuneSettings:
    """How to fine-tune; ``learning_rate`` is the peak for the last layers of the backbone.

    Layers further down get it times ``layer_decay`` for each tap between, the head gets it times
    ``head_multiplier``. ``batchnorm="eval"`` keeps the pretrained statistics everywhere, "train"
    renews them in the part that is not frozen.
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
    augmentation: Level
    flip: bool
    balanced: bool
    seed: int


def finetune(
    network: TransferNet,
    train: ImageSet,
    val: ImageSet,
    *,
    settings: FinetuneSettings,
    directory: Path,
    report: Report,
) -> dict[str, float]:
    """Train ``network`` in place; returns the validation metrics of its best epoch.

    ``directory`` gets the weights of the best epoch (`BEST`), the metrics of every epoch
    (`HISTORY`) and a checkpoint after each; started again with the same directory, training
    goes on from there, on a CPU bit for bit. A directory belongs to one network and one
    ``settings``.
    Raises:
        TrainingError: the loss is not finite, in training or in validation.
    """
    # What is frozen, and how fast the rest moves
    device = next(network.parameters()).device
    # Tensor cores of GPUs read this layout without rearranging
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    network.to(memory_format=layout)
    groups = parameter_groups(network, settings)
    optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=settings.weight_decay)
    schedule = [group["peak"] for group in groups]
    weights = _class_weights(train.labels, network.head.out_features, settings.balanced, device)
    steps = math.ceil(len(train) / settings.batch_size)
    progress = read_checkpoint(directory, network, optimizer) or {
        "epoch": 0,
        "best": {"val_log_loss": math.inf},
        "waited": 0,
        "history": [],
    }
    best, waited, history = progress["best"], progress["waited"], progress["history"]

    for epoch in range(progress["epoch"], settings.epochs):
        if waited >= settings.patience:
            break
        # One epoch draws its randomness from (seed, epoch), so a resumed run repeats it
        torch.manual_seed(settings.seed * 1_000_003 + epoch)
        order = torch.randperm(len(train))
        changes = draw_changes(
            len(train),
            level=settings.augmentation,
            flip=settings.flip,
            seed=settings.seed,
            epoch=epoch,
        )
        set_training_mode(network, settings)
        losses = []
        for step, batch in enumerate(_batches(order, settings.batch_size)):
            # Warm-up over the first tenth, then a cosine down to zero
            factor = _schedule((epoch * steps + step) / (settings.epochs * steps))
            for group, peak in zip(optimizer.param_groups, schedule, strict=True):
                group["lr"] = peak * factor
            # Images: decoded once, changed anew each epoch
            raw = torch.from_numpy(train.pixels(batch.numpy())).to(device)
            images = _normalise(
                augment(raw, changes[batch], output_size=val.preprocess.input_size), val
            ).contiguous(memory_format=layout)
            labels = torch.from_numpy(train.labels[batch.numpy()]).to(device)
            # Forward, backward, step
            with _autocast(device):
                logits = network(images)
            loss = F.cross_entropy(
                logits.float(), labels, weight=weights, label_smoothing=settings.label_smoothing
            )
            _require_finite("loss", loss.item(), epoch, settings)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
            optimizer.step()
            losses.append(loss.item())
        # Validation: the best epoch is kept, and too many worse ones end the training
        metrics = validate(network, val)
        # The last step of all has no later loss that would show what it broke
        _require_finite("validation loss", metrics["val_log_loss"], epoch, settings)
        if metrics["val_log_loss"] < best["val_log_loss"]:
            best, waited = metrics | {"best_epoch": epoch + 1.0}, 0
            write_weights(network, directory / BEST)
        else:
            waited += 1
        metrics |= {"train_loss": float(np.mean(losses))}
        history.append(metrics)
        write_json(directory / HISTORY, {"epochs": history})
        progress = {"epoch": epoch + 1, "best": best, "waited": waited, "history": history}
        write_checkpoint(directory, network, optimizer, progress)
        report(epoch + 1, metrics)

    drop_checkpoint(directory)
    return best


def parameter_groups(network: TransferNet, settings: FinetuneSettings) -> list[dict[str, Any]]:
    """Groups for the optimizer with their ``peak`` rate and ``stage``; frozen ones are left out.

    Biases and normalisation have no weight decay. Frozen parameters stop requiring gradients.
    """
    stages = _stages(network)
    depth = _depths(network)
    frozen = _frozen(settings, depth)
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        stage = stages[name.rpartition(".")[0]]
        parameter.requires_grad_(stage not in frozen)
        if stage in frozen:
            continue
        plain = parameter.ndim <= 1
        group = groups.setdefault(
            (stage, plain),
            {
                "params": [],
                "stage": stage,
                "peak": _peak_rate(stage, depth, settings),
                **({"weight_decay": 0.0} if plain else {}),
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def set_training_mode(network: TransferNet, settings: FinetuneSettings) -> None:
    """Training mode, but evaluation mode for what is frozen: its BatchNorm must not drift."""
    stages = _stages(network)
    frozen = _frozen(settings, _depths(network))
    network.train()
    for name, module in network.named_modules():
        keeps_statistics = isinstance(module, _BatchNorm) and settings.batchnorm == "eval"
        if keeps_statistics or stages[name] in frozen:
            # Not .eval(): that would reach into children, which may belong to deeper stages.
            module.training = False


@torch.inference_mode()
def predict_logits(network: TransferNet, images: ImageSet) -> np.ndarray:
    """Logits float32[N,K] of images at their evaluation geometry."""
    network.eval()
    device = next(network.parameters()).device
    rows = []
    for start in range(0, len(images), EVAL_BATCH):
        pixels = images.pixels(range(start, min(start + EVAL_BATCH, len(images))))
        batch = torch.from_numpy(images.preprocess.normalise(pixels)).to(device)
        rows.append(network(batch).float().cpu().numpy())
    return np.concatenate(rows)


def validate(network: TransferNet, images: ImageSet) -> dict[str, float]:
    """Log-loss, accuracy and balanced accuracy, with the prefix ``val_``."""
    logits = predict_logits(network, images)
    predicted = logits.argmax(axis=1)
    return {
        "val_log_loss": log_loss(softmax(logits), images.labels),
        "val_accuracy": accuracy(predicted, images.labels),
        "val_balanced_accuracy": balanced_accuracy(predicted, images.labels, logits.shape[1]),
    }


def write_weights(network: nn.Module, path: Path) -> None:
    """Write a state dict as safetensors."""
    state = {
        name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()
    }
    with write_atomic(path) as temporary:
        save_file(state, temporary)


def _stages(network: TransferNet) -> dict[str, str]:
    """Module name -> tap, or ``head``."""
    inner = module_stages(_timm_module(network))
    stages = {f"extractor.module.{name}".rstrip("."): tap for name, tap in inner.items()}
    return stages | {"": HEAD, "head": HEAD, "extractor": HEAD}


def _depths(network: TransferNet) -> dict[str, int]:
    """Tap -> number of taps between it and the output; the head is 0 deep like the last tap."""
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
    border = depth[settings.freeze_through]
    return {name for name, distance in depth.items() if distance >= border}


def _peak_rate(stage: str, depth: dict[str, int], settings: FinetuneSettings) -> float:
    if stage == HEAD:
        return settings.learning_rate * settings.head_multiplier
    return settings.learning_rate * settings.layer_decay ** depth[stage]


def _require_finite(what: str, value: float, epoch: int, settings: FinetuneSettings) -> None:
    if not math.isfinite(value):
        raise TrainingError(
            f"the {what} is {value} in epoch {epoch + 1} at learning rate "
            f"{settings.learning_rate:g}",
            hint="try smaller train.learning_rates",
        )


def _batches(order: Tensor, size: int) -> Iterator[Tensor]:
    """Batches of one epoch; BatchNorm cannot learn from one image, so a lone last one is left."""
    for batch in order.split(size):
        if len(batch) > 1:
            yield batch


def _schedule(done: float) -> float:
    if done < WARMUP:
        return (done + 1e-3) / WARMUP
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (done - WARMUP) / (1.0 - WARMUP))))


def _normalise(images: Tensor, val: ImageSet) -> Tensor:
    mean = torch.tensor(val.preprocess.mean, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(val.preprocess.std, device=images.device).view(1, 3, 1, 1)
    return (images / 255.0 - mean) / std


def _class_weights(
    labels: np.ndarray, n_classes: int, balanced: bool, device: torch.device
) -> Tensor | None:
    if not balanced:
        return None
    counts = np.maximum(np.bincount(labels, minlength=n_classes), 1)
    return torch.tensor(counts.mean() / counts, dtype=torch.float32, device=device)


def _autocast(device: torch.device) -> torch.autocast:
    # On CPUs bf16 was measured no faster for these networks.
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
