"""The loops that benchmarks/peers.py runs in its environment: LOOP IMAGES WEIGHTS EPOCHS.

Each prints a line of JSON at the start and one per epoch: the seconds of training so far, and the
accuracy on the test images. The loops follow their documentation, with its defaults.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision import transforms
from torchvision.datasets import ImageFolder

BATCH = 32
SIZE = 224


class Clock:
    """Seconds of training; paused while the test accuracy is measured."""

    def __init__(self) -> None:
        print(json.dumps({"begun": time.time()}), flush=True)
        self.started = time.perf_counter()
        self.paused = 0.0

    def tell(self, network: nn.Module, test: Any) -> None:
        """Print the seconds and the test accuracy."""
        seconds = time.perf_counter() - self.started - self.paused
        at = time.perf_counter()
        training = network.training
        network.eval()
        with torch.inference_mode():
            hits = [(network(x).argmax(1) == y).float() for x, y in test]
        network.train(training)
        self.paused += time.perf_counter() - at
        accuracy = torch.cat(hits).mean().item()
        print(json.dumps({"seconds": seconds, "accuracy": accuracy}), flush=True)


def network_of(weights: Path, n_classes: int) -> nn.Module:
    """Return the card's network with a new classifier."""
    card = json.loads(weights.with_suffix(".json").read_text())
    network = timm.create_model(
        card["architecture"], **card["architecture_kwargs"], num_classes=n_classes
    )
    missing = network.load_state_dict(backbone_state(weights), strict=False).missing_keys
    assert all("classifier" in k or "num_batches" in k for k in missing), missing
    return network


def backbone_state(weights: Path) -> dict[str, torch.Tensor]:
    """Return the weights without the classifier's."""
    return {k: v for k, v in load_file(weights).items() if not k.startswith("classifier.")}


def loaders_of(images: Path, weights: Path) -> tuple[Any, Any, int]:
    """Return training and test batches, and the number of classes."""
    card = json.loads(weights.with_suffix(".json").read_text())
    ending = [transforms.ToTensor(), transforms.Normalize(card["mean"], card["std"])]
    train = transforms.Compose(
        [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), *ending]
    )
    test = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(SIZE), *ending])
    workers = os.cpu_count() or 1
    parts = [ImageFolder(str(images / "train"), train), ImageFolder(str(images / "test"), test)]
    loaders = [
        torch.utils.data.DataLoader(part, BATCH, shuffle=shuffle, num_workers=workers)
        for part, shuffle in zip(parts, (True, False), strict=True)
    ]
    return loaders[0], loaders[1], len(parts[0].classes)


def plain(images: Path, weights: Path, epochs: int) -> None:
    """Train a new layer on a frozen backbone inside the graph, by Adam."""
    train, test, n_classes = loaders_of(images, weights)
    network = network_of(weights, n_classes)
    clock = Clock()
    network.requires_grad_(False)
    head: Any = network.get_classifier()  # type: ignore[operator]
    head.requires_grad_(True)
    # At 1e-3 a new layer on few images has not converged after eight epochs (.673 on ants_bees).
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(epochs):
        network.eval()  # also freezes BatchNorm
        for x, y in train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()
        clock.tell(network, test)


def fastai(images: Path, weights: Path, epochs: int) -> None:
    """Run `vision_learner` with its default head; `fine_tune`: one epoch of it, then all layers."""
    # These two add no_bar and fine_tune to the learner.
    import fastai.callback.progress
    import fastai.callback.schedule  # noqa: F401
    from fastai.callback.core import Callback
    from fastai.vision.augment import Normalize, Resize, aug_transforms
    from fastai.vision.data import ImageDataLoaders
    from fastai.vision.learner import default_split, vision_learner

    _, test, _ = loaders_of(images, weights)
    card = json.loads(weights.with_suffix(".json").read_text())
    data = ImageDataLoaders.from_folder(
        images, train="train", valid="val", bs=BATCH, item_tfms=Resize(256),
        batch_tfms=[*aug_transforms(size=SIZE), Normalize.from_stats(card["mean"], card["std"])],
        device=torch.device("cpu"),
    )  # fmt: skip
    clock = Clock()

    class Tell(Callback):
        def after_epoch(self) -> None:
            clock.tell(self.learn.model, test)

    learner = vision_learner(
        data, card["architecture"], pretrained=False, splitter=default_split, cbs=[Tell()],
        loss_func=nn.CrossEntropyLoss(), **card["architecture_kwargs"],
    )  # fmt: skip
    learner.model[0].model.load_state_dict(backbone_state(weights))
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(epochs)


def lightning(images: Path, weights: Path, epochs: int) -> None:
    """Fine-tune all layers by Adam in a LightningModule."""
    import lightning as pl

    train, test, n_classes = loaders_of(images, weights)

    class Classifier(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network_of(weights, n_classes)

        def training_step(self, batch: Any, index: int) -> Any:  # noqa: ARG002
            x, y = batch
            return nn.functional.cross_entropy(self.network(x), y)

        def on_train_epoch_end(self) -> None:
            clock.tell(self.network, test)

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=3e-4)

    model = Classifier()
    clock = Clock()
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, train)


LOOPS: dict[str, Callable[[Path, Path, int], None]] = {
    "plain": plain,
    "fastai": fastai,
    "lightning": lightning,
}

if __name__ == "__main__":
    torch.manual_seed(0)
    LOOPS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
