"""Fine-tuning: one loop, to read from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rootstock.errors import TrainingError
from rootstock.ports.progress import TrialReporter
from rootstock.ports.search import Report
from rootstock.system.files import write_atomic, write_json
from rootstock.tasks.learning import TargetLoss
from rootstock.tasks.task import Task
from rootstock.training.augment import augment, draw_changes
from rootstock.training.checkpoint import drop_checkpoint, read_checkpoint, write_checkpoint
from rootstock.training.compute import Compute, fitting_compute
from rootstock.training.distributed import ProcessGroup
from rootstock.training.ema import WeightAverage
from rootstock.training.images import ImageSet
from rootstock.training.mix import balanced_order, mix_batch
from rootstock.training.network import TransferNet
from rootstock.training.optim import (
    FinetuneSettings,
    make_optimizer,
    parameter_groups,
    rate_factor,
    set_training_mode,
)
from rootstock.training.predict import validate
from rootstock.training.step import MicroBatches

BEST = "best.safetensors"
HISTORY = "history.json"
CLIP_NORM = 1.0


def finetune(
    network: TransferNet,
    train: ImageSet,
    val: ImageSet,
    *,
    task: Task,
    settings: FinetuneSettings,
    directory: Path,
    report: Report,
    until: float | None = None,
) -> dict[str, float]:
    """Train ``network`` in place; return the validation metrics of its best epoch.

    After ``until`` (seconds since 1970) the epoch is cut short and validated, and is the last one.
    In a group every process calls this with the same arguments, and each works on a part of every
    batch.

    ``directory`` gets the weights of the best epoch (`BEST`), the metrics of every epoch
    (`HISTORY`) and a checkpoint after each epoch. Started again with the same directory, training
    continues from there, bit for bit on a CPU. A directory belongs to one network and one
    ``settings``. Raises:
        TrainingError: the loss is not finite, in training or in validation.
    """
    # Frozen parts, and the rates of the others
    device = next(network.parameters()).device
    compute = fitting_compute(device, settings.compute)
    network.to(memory_format=compute.memory_format)
    processes = ProcessGroup.current()
    groups = parameter_groups(network, settings)
    optimizer = make_optimizer(groups, settings)
    average = WeightAverage(network, decay=settings.ema_decay) if settings.ema_decay else None
    micro = MicroBatches(settings.micro_batch or settings.batch_size)
    if settings.recompute:
        recompute_activations(network)
    schedule = [group["peak"] for group in groups]
    loss_function = task.loss(
        train.targets,
        weighting=settings.weighting,
        label_smoothing=settings.label_smoothing,
        device=device,
    )
    level = settings.augmentation
    if task.spatial and level == "strong":
        level = "medium"  # the target cannot follow TrivialAugment's turns and shifts
    mixup, cutmix = (0.0, 0.0) if task.spatial else (settings.mixup, settings.cutmix)
    steps = math.ceil(len(train) / settings.batch_size)
    averaged = average.network if average else None
    progress = read_checkpoint(directory, network, optimizer, average=averaged) or {
        "epoch": 0,
        "best": {task.selection: math.inf},
        "waited": 0,
        "history": [],
        "micro_batch": micro.size,
        "averaged_steps": 0,
    }
    best, waited, history = progress["best"], progress["waited"], progress["history"]
    micro.size = progress["micro_batch"]
    reporter = TrialReporter(directory, settings.epochs, steps)
    if average:
        average.steps = progress["averaged_steps"]

    for epoch in range(progress["epoch"], settings.epochs):
        if waited >= settings.patience:
            break
        # One epoch draws its random numbers from (seed, epoch), so a resumed run repeats it
        torch.manual_seed(settings.seed * 1_000_003 + epoch)
        order = torch.randperm(len(train))
        if settings.weighting == "balanced_sampling":
            order = balanced_order(train.targets.strata, seed=settings.seed, epoch=epoch)
        changes = draw_changes(
            len(train),
            level=level,
            flip=settings.flip,
            seed=settings.seed,
            epoch=epoch,
            local_warp=0.0 if task.spatial else settings.local_warp,  # a box would not follow
            channel_shift=settings.channel_shift,
        )
        set_training_mode(network, settings)
        losses = []
        for step, batch in enumerate(_batches(order, settings.batch_size, processes)):
            # Warm-up over the first tenth, then a cosine down to zero
            factor = rate_factor((epoch * steps + step) / (settings.epochs * steps))
            for group, peak in zip(optimizer.param_groups, schedule, strict=True):
                group["lr"] = peak * factor
            # Images: decoded once, changed again in each epoch; in a group each process has a part
            shard = processes.shard(batch)
            raw = torch.from_numpy(train.pixels(shard.numpy())).to(device)
            images = _normalise(
                augment(raw, changes[shard], output_size=val.preprocess.input_size), val
            ).contiguous(memory_format=compute.memory_format)
            targets = loss_function.encode(train.targets.values[shard.numpy()])
            images, targets = mix_batch(
                images,
                loss_function.move(targets, changes.maps[shard]),
                mixup=mixup,
                cutmix=cutmix,
                draw=(settings.seed, epoch, step * processes.size + processes.rank),
            )
            # Forward and backward, in parts if memory requires it; then the step
            loss = micro.backward(
                partial(_part_loss, network, images, targets, loss_function, compute),
                len(shard),
                total_weight=processes.sum(loss_function.weight(targets)),
                zero_grad=optimizer.zero_grad,
            )
            processes.sum_gradients(network)
            loss = processes.sum(torch.tensor(loss, device=device)).item()
            _require_finite("loss", loss, epoch, settings)
            nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
            optimizer.step()
            if average:
                average.update(network)
            losses.append(loss)
            if processes.is_main:
                reporter.step(epoch + 1, step + 1, float(np.mean(losses)))
            if until and processes.broadcast(time.time() > until):
                break
        # Validation: the best epoch is kept, and too many worse epochs end the training
        judged = average.network if average else network
        processes.sync(judged)
        metrics = validate(judged, val, task)
        # The last step has no later training loss that would reveal a failure
        _require_finite("validation loss", metrics[task.selection], epoch, settings)
        if metrics[task.selection] < best[task.selection]:
            best, waited = metrics | {"best_epoch": epoch + 1.0}, 0
            if processes.is_main:
                write_weights(judged, directory / BEST)
        else:
            waited += 1
        metrics |= {"train_loss": float(np.mean(losses)), "micro_batch": float(micro.size)}
        history.append(metrics)
        progress = {
            "epoch": epoch + 1,
            "best": best,
            "waited": waited,
            "history": history,
            "micro_batch": micro.size,
            "averaged_steps": average.steps if average else 0,
        }
        if processes.is_main:
            write_json(directory / HISTORY, {"epochs": history})
            write_checkpoint(directory, network, optimizer, progress, average=averaged)
        processes.wait()
        report(epoch + 1, metrics)
        if until and processes.broadcast(time.time() > until):
            break

    if processes.is_main:
        drop_checkpoint(directory)
        reporter.finish(len(history), history[-1]["train_loss"] if history else math.nan)
    return best


def _part_loss(
    network: TransferNet,
    images: Tensor,
    targets: Tensor,
    loss_function: TargetLoss,
    compute: Compute,
    part: Tensor,
) -> Tensor:
    """Return the sum of the weighted losses of a part of a batch."""
    with compute.autocast():
        outputs = network(images[part])
    return loss_function.total(outputs.float(), targets[part])


def write_weights(network: nn.Module, path: Path) -> None:
    """Write a state dict as safetensors."""
    state = {
        name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()
    }
    with write_atomic(path) as temporary:
        save_file(state, temporary)


def recompute_activations(network: TransferNet) -> bool:
    """Recompute activations instead of keeping them: a third slower, far less memory.

    Chen et al. 2016, arXiv:1604.06174. Return False if the backbone does not support it.
    """
    try:
        network.extractor.module.set_grad_checkpointing(True)
    except (AttributeError, AssertionError):
        return False
    return True


def _require_finite(what: str, value: float, epoch: int, settings: FinetuneSettings) -> None:
    if not math.isfinite(value):
        raise TrainingError(
            f"the {what} is {value} in epoch {epoch + 1} at learning rate "
            f"{settings.learning_rate:g}",
            hint="try smaller train.learning_rates",
        )


def _batches(order: Tensor, size: int, processes: ProcessGroup) -> Iterator[Tensor]:
    """Yield the batches of one epoch; a last batch of one image is dropped, for BatchNorm.

    A last batch with fewer images than processes is dropped too.
    """
    for batch in order.split(size):
        if len(batch) >= max(2, processes.size):
            yield batch


def _normalise(images: Tensor, val: ImageSet) -> Tensor:
    mean = torch.tensor(val.preprocess.mean, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(val.preprocess.std, device=images.device).view(1, 3, 1, 1)
    return (images / 255.0 - mean) / std
