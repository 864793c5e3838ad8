"""Train a small backbone from scratch: on class folders, or with a teacher on any images.

This is the recipe of the project's backbone. Most epochs run on small crops, the last ones at
the card's input size. At the end, the BatchNorm statistics are measured again on the corpus with
evaluation's crops, so that they describe the pretraining domain.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rootstock.backbones.create import create_module
from rootstock.errors import BackboneError
from tools.pretrain.corpus import Corpus, augment, crop, natural_size, read_corpus
from tools.pretrain.objectives import Distilled, Labelled, Objective
from tools.pretrain.outcome import (
    Recipe,
    card_of,
    command_of,
    embed_all,
    measure_statistics,
    resume,
    save_checkpoint,
    write_weights,
)
from tools.pretrain.teacher import Teacher, view_corpus

log = logging.getLogger(__name__)

LOW_SHARE = 0.85
"""Share of the epochs at the low size: small crops train faster per second."""


def pretrain(
    data: Path,
    out: Path,
    *,
    architecture: str = "mobilenetv3_small_100",
    teacher: Path | None = None,
    input_size: int = 96,
    epochs: int = 33,
    low_size: int = 64,
    low_epochs: int | None = None,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
    weight_decay: float = 0.05,
    crop_pct: float = 0.95,
    smallest_crop: float = 0.25,
    stored_size: int | None = None,
    teacher_size: int | None = None,
    views: int = 3,
    label_weight: float = 0.0,
    seed: int = 0,
    licence: str = "the terms of the corpus apply",
    device: str = "cpu",
    work: Path | None = None,
) -> Path:
    """Train ``architecture`` on ``data`` and write its weights and card into ``out``.

    Without a teacher, the class folders of ``data`` (or of ``data/train``) are the labels. With
    one, they count only if ``label_weight``, the weight of their cross-entropy relative to the
    teacher's two losses, is above 0. ``data/val`` is only measured. Sizes are in pixels: the
    last epochs run at ``input_size``, the first ``low_epochs`` (default: 85 %) at ``low_size``.
    Images are decoded once to squares of ``stored_size`` (default: their size, at most a quarter
    more than ``input_size``) and shown to the teacher as ``views`` fixed crops of
    ``teacher_size`` (default: its card's).

    Slow results are stored in ``work`` (default: a folder in ``out``): the same call continues
    there after an interruption and loses at most one epoch. Remove that folder when done.

    Returns:
        The path of ``ARCHITECTURE.CORPUS.safetensors`` (float16); its card is next to it.

    Raises:
        DataError: There is no readable image, or there are fewer than two classes and no teacher.
        BackboneError: The architecture is unknown, or the teacher does not fit its card.
    """
    data, out = Path(data), Path(out)
    name = f"{architecture.replace('/', '-')}.{data.resolve().name}"
    work = Path(work) if work else out / f"{name}.work"
    master = Teacher(Path(teacher)) if teacher else None
    recipe = Recipe(
        architecture=architecture,
        teacher=f"{master.file} sha256:{master.card.weights_sha256}" if master else "",
        input_size=input_size,
        epochs=epochs,
        low_size=low_size,
        low_epochs=round(LOW_SHARE * epochs) if low_epochs is None else low_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        crop_pct=crop_pct,
        smallest_crop=smallest_crop,
        stored_size=stored_size or natural_size(data, at_most=round(1.25 * input_size)),
        teacher_size=(teacher_size or master.card.input_size[1]) if master else 0,
        views=views,
        label_weight=label_weight if master else 0.0,
        seed=seed,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network, facts, measured = _run(recipe, data, master, work=work, device=device)
    facts["command"] = command_of(recipe, pretrain)
    card = card_of(network, recipe, facts=facts, measured=measured, licence=licence)
    return write_weights(network, card, out / f"{name}.safetensors")


def _run(
    recipe: Recipe, data: Path, master: Teacher | None, *, work: Path, device: str
) -> tuple[Any, dict[str, Any], dict[str, float]]:
    """Return the trained network in eval mode, facts for its card, and metrics on data/val."""
    train, validation = _read_splits(data, recipe, work)
    objective: Objective
    if master:
        objective, network = _prepare_distilled(
            master, train, validation, recipe=recipe, work=work, device=device
        )
    else:
        objective = Labelled(train, validation, smallest_crop=recipe.smallest_crop)
        network = _create(recipe.architecture, classes=len(train.classes))
    minutes = _train(network, objective, train, recipe=recipe, work=work, device=device)
    objective.finish(network)
    measure_statistics(network, train, recipe=recipe, device=device)
    measured = {}
    if validation is not None:
        measured = objective.measure(network, embed_all(network, validation, recipe, device))
    facts = {"data": data.resolve().name, "images": len(train), "minutes": round(minutes, 1)}
    return network, facts, measured


def _read_splits(data: Path, recipe: Recipe, work: Path) -> tuple[Corpus, Corpus | None]:
    root = data / "train" if (data / "train").is_dir() else data
    train = read_corpus(root, stored_size=recipe.stored_size, work=work)
    if root == data or not (data / "val").is_dir():
        return train, None
    return train, read_corpus(data / "val", stored_size=recipe.stored_size, work=work)


def _create(architecture: str, *, classes: int) -> Any:
    network = create_module(architecture, num_classes=classes)
    if not isinstance(network.get_classifier(), nn.Linear):
        raise BackboneError(
            f"{architecture} cannot be pretrained here: its classifier is not a linear layer",
            hint="choose another architecture",
        )
    return network.to(memory_format=torch.channels_last)


def _prepare_distilled(
    master: Teacher,
    train: Corpus,
    validation: Corpus | None,
    *,
    recipe: Recipe,
    work: Path,
    device: str,
) -> tuple[Objective, Any]:
    show = partial(
        view_corpus,
        master,
        size=recipe.teacher_size,
        smallest_crop=recipe.smallest_crop,
        seed=recipe.seed,
        work=work,
        device=torch.device(device),
    )
    views = show(train, views=recipe.views)
    whole = show(validation, views=1) if validation else []
    network = _create(recipe.architecture, classes=master.classifier.out_features)
    width = network.get_classifier().in_features
    objective = Distilled(
        master, views, whole, width=width, train=train, label_weight=recipe.label_weight
    )
    return objective, network


def _train(
    network: Any,
    objective: Objective,
    corpus: Corpus,
    *,
    recipe: Recipe,
    work: Path,
    device: str,
) -> float:
    """Run the epochs that are still missing in ``work``; return the minutes of all epochs."""
    network.to(device)
    objective.to(device)
    both = nn.ModuleDict({"network": network, "objective": objective})
    trained = [p for p in both.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim > 1]
    vectors = [p for p in trained if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)

    # continue after the last finished epoch of the same recipe on the same images
    key = hashlib.sha256(json.dumps([asdict(recipe), corpus.key]).encode()).hexdigest()[:12]
    checkpoint = work / f"checkpoint-{key}.safetensors"
    first, minutes = resume(checkpoint, both, optimizer)
    batch_size = min(recipe.batch_size, len(corpus))
    steps = len(corpus) // batch_size

    for epoch in range(first, recipe.epochs):
        # an epoch's randomness depends only on the seed and its number, so resuming changes nothing
        start, total = time.monotonic(), 0.0
        torch.manual_seed(recipe.seed * 100_003 + epoch)
        generator = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
        order = torch.randperm(len(corpus), generator=generator)
        network.train()
        for step in range(steps):
            # the batch: rows in file order, their crops, their targets
            rows = order[step * batch_size : (step + 1) * batch_size].sort().values
            boxes, targets = objective.pick(rows, generator)
            images = crop(corpus.batch(rows).to(device), boxes, size=recipe.size(epoch))
            images = augment(images, generator=generator)
            images = images.contiguous(memory_format=torch.channels_last)

            # the step
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate((epoch * steps + step + 1) / (recipe.epochs * steps))
            loss = objective.loss(network, images, targets.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()

        minutes += (time.monotonic() - start) / 60
        save_checkpoint(checkpoint, both, optimizer, epoch=epoch, minutes=minutes)
        log.info(
            "epoch %d of %d at %d px: loss %.3f, %.1f minutes so far",
            *(epoch + 1, recipe.epochs, recipe.size(epoch), total / steps, minutes),
        )
    return minutes
