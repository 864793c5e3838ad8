"""The loops that benchmarks/peers.py runs in its environment: LOOP IMAGES WEIGHTS EPOCHS.

Each prints a line of JSON when it begins and one per epoch, or at its end: the seconds of training
so far, the processor seconds, and the accuracy on the test images. The loops follow their
documentation, with its defaults.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
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


def processor_seconds() -> float:
    """Return those of this process and of the children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


class Clock:
    """Seconds of training; it pauses while the test accuracy is measured.

    Processor seconds include the imports.
    """

    def __init__(self) -> None:
        print(json.dumps({"begun": time.time()}), flush=True)
        self.started = time.perf_counter()
        self.paused = self.processor_paused = 0.0

    def tell(self, network: nn.Module, test: Any) -> None:
        """Print the times, and the accuracy on the batches ``test``."""
        training = network.training
        network.eval()

        def measure() -> float:
            with torch.inference_mode():
                hits = [(network(x).argmax(1) == y).float() for x, y in test]
            return torch.cat(hits).mean().item()

        self.report(measure)
        network.train(training)

    def report(self, measure: Callable[[], float]) -> None:
        """Print the times, and the test accuracy that ``measure`` returns."""
        now, used = time.perf_counter(), processor_seconds()
        line = {
            "seconds": now - self.started - self.paused,
            "processor": used - self.processor_paused,
            "accuracy": measure(),
        }
        self.paused += time.perf_counter() - now
        self.processor_paused += processor_seconds() - used
        print(json.dumps(line), flush=True)


def network_of(weights: Path, n_classes: int) -> nn.Module:
    """Return the card's network with a new classifier."""
    card = json.loads(weights.with_suffix(".json").read_text())
    network = timm.create_model(
        card["architecture"], **card.get("architecture_kwargs", {}), num_classes=n_classes
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
        loss_func=nn.CrossEntropyLoss(), **card.get("architecture_kwargs", {}),
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


def ultralytics(images: Path, weights: Path, epochs: int) -> None:
    """`ClassificationTrainer` with its defaults, on the given network in place of a YOLO."""
    scratch = tempfile.TemporaryDirectory()
    os.environ["YOLO_CONFIG_DIR"] = scratch.name
    from ultralytics import settings as integrations
    from ultralytics.models.yolo.classify import ClassificationTrainer
    from ultralytics.nn.tasks import BaseModel
    from ultralytics.utils.loss import v8ClassificationLoss

    integrations.update(mlflow=False, raytune=False)  # packages that only this environment has
    _, test, n_classes = loaders_of(images, weights)
    card = json.loads(weights.with_suffix(".json").read_text())

    class Network(BaseModel):  # type: ignore[misc]
        """The network on images in [0, 1], with what the trainer asks of a model."""

        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Sequential(network_of(weights, n_classes))
            self.yaml, self.stride, self.names = {}, torch.tensor([32]), {}
            self.register_buffer("mean", torch.tensor(card["mean"]).view(1, 3, 1, 1))
            self.register_buffer("std", torch.tensor(card["std"]).view(1, 3, 1, 1))

        def predict(self, x: Any, *_: Any, **__: Any) -> Any:
            logits = self.model((x - self.mean) / self.std)
            return logits if self.training else (logits.softmax(1), logits)

        def init_criterion(self) -> Any:
            return v8ClassificationLoss()

    class Trainer(ClassificationTrainer):  # type: ignore[misc]
        def setup_model(self) -> None:
            self.model = Network()

        def save_model(self) -> None:
            """Keep nothing: weights in memory are measured."""

        def final_eval(self) -> None:
            """Leave out the validation of the file."""

    settings = {"data": str(images), "epochs": epochs, "batch": BATCH, "imgsz": SIZE}
    settings |= {"device": "cpu", "project": scratch.name, "plots": False, "verbose": False}
    trainer = Trainer(overrides=settings | {"model": "given", "workers": os.cpu_count() or 1})
    clock = Clock()
    trainer.add_callback(
        "on_fit_epoch_end", lambda trainer: clock.tell(trainer.ema.ema.model[0], test)
    )
    trainer.train()
    scratch.cleanup()


def autogluon(images: Path, weights: Path, epochs: int) -> None:
    """`MultiModalPredictor` with the preset `medium_quality`, on the given network."""
    import pandas as pd
    from autogluon.multimodal import MultiModalPredictor

    tables = {}
    for split in ("train", "val", "test"):
        files = sorted(path.resolve() for path in (images / split).rglob("*") if path.is_file())
        rows = [(str(path), path.parent.name) for path in files]
        tables[split] = pd.DataFrame(rows, columns=["image", "label"])
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = write_checkpoint(weights, Path(scratch) / "network")
        predictor = MultiModalPredictor(
            label="label", path=str(Path(scratch) / "model"), presets="medium_quality", verbosity=0
        )
        predictor.fit(
            tables["train"],
            tuning_data=tables["val"],
            hyperparameters={
                "model.names": ["timm_image"],
                "model.timm_image.checkpoint_name": str(checkpoint),
                "optim.max_epochs": epochs,
                "env.num_gpus": 0,
            },
        )
        clock.report(lambda: float(predictor.evaluate(tables["test"], metrics="acc")["acc"]))


def write_checkpoint(weights: Path, folder: Path) -> Path:
    """Write the network in the form that AutoGluon reads from a folder."""
    card = json.loads(weights.with_suffix(".json").read_text())
    network = timm.create_model(card["architecture"], num_classes=0)
    network.load_state_dict(backbone_state(weights))
    folder.mkdir()
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    config = {
        "architecture": card["architecture"],
        "num_features": network.num_features,
        "num_classes": 0,
        "pretrained_cfg": {
            key: card[key] for key in ("input_size", "mean", "std", "interpolation", "crop_pct")
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


LOOPS: dict[str, Callable[[Path, Path, int], None]] = {
    "plain": plain,
    "fastai": fastai,
    "lightning": lightning,
    "ultralytics": ultralytics,
    "autogluon": autogluon,
}

if __name__ == "__main__":
    torch.manual_seed(0)
    LOOPS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
