"""The work of one trial: fit a head, or fine-tune. Both are sent to worker processes."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from rootstock.backbones.device import pick_device
from rootstock.backbones.load import load_backbone
from rootstock.backbones.tap_features import TapPart
from rootstock.heads.linear import (
    CPU,
    Head,
    LinearHead,
    read_head,
    share_problems,
    to_tune,
    write_head,
)
from rootstock.ports.search import Params, Report
from rootstock.system.files import write_atomic, write_json
from rootstock.tasks.learning import HeadSolver, PathScores
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import Task
from rootstock.training.finetune import finetune
from rootstock.training.images import ImageSet
from rootstock.training.network import TransferNet
from rootstock.training.optim import FinetuneSettings
from rootstock.training.penalty import is_past_best, strongest_of_equals
from rootstock.training.tracked import Tracking, run_tracked

log = logging.getLogger(__name__)

HEAD_FILE = "head.safetensors"
PATH_FILE = "path.json"
UNSEEN_LOSS = "unseen_loss"
"""Metric of a head: the mean loss on validation and training images, each from a head that has not
seen
the image, at the best penalty; missing if it was not measured on training images."""
UNSEEN_FILE = "unseen.npy"
"""The losses float64[N] whose mean is `UNSEEN_LOSS`; a linear head has them with the metric."""
CROSS_VALIDATED = 400_000
"""Up to this many training images times classes the strength is also cross-validated on them; with
more,
it would take minutes, and the validation images are enough."""
FOLDS = 5
Fitted = TypeVar("Fitted")


def fit_with_memory(device: str, fit: Callable[[torch.device], Fitted]) -> Fitted:
    """Return the result of ``fit`` on the device, or on the processor if memory is too small.

    `pick_device` interprets ``device``.
    """
    place = pick_device(device)
    try:
        return fit(place)
    except torch.cuda.OutOfMemoryError:
        log.warning(
            "the features do not fit into the memory of %s: the head is fitted on the CPU", place
        )
    return fit(CPU)


@dataclass(frozen=True)
class HeadObjective:
    """Fits heads for params ``tap`` and ``strengths``, keeps the best, and records all in
    `PATH_FILE`.

    With a param ``hidden`` the heads have a hidden layer of that width, otherwise they are linear.
    With a param ``prototypes`` there are no strengths: the head compares with the mean of each
    class.
    With a param ``only`` there is one strength and no other head to choose from: none is scored by
    cross-validation.

    ``train_features`` and ``val_features`` map a tap to a .npy file of float16[N,C]; trials share
    its pages in memory. The strength is chosen by the loss on unseen images: those of ``val``, and
    those of ``train`` by cross-validation unless there are too many.
    """

    train_features: Mapping[str, Path]
    val_features: Mapping[str, Path]
    task: Task
    train_targets: Targets
    val_targets: Targets
    weighting: str
    tracking: Tracking
    seed: int = 0
    device: str = "cpu"
    """The device, as `pick_device` interprets it on the machine of the trial."""
    parts: Mapping[str, Sequence[TapPart]] = field(default_factory=dict)
    """The parts of the features of a tap, if they matter to the task."""

    def _solver(self, tap: str) -> HeadSolver:
        return self.task.head(self.weighting).reading(self.parts.get(tap, ()))

    def __call__(self, params: Params, directory: Path, report: Report) -> Mapping[str, float]:
        return run_tracked(self._fit, params, directory, report, self.tracking)

    def _fit(self, params: Params, directory: Path, report: Report) -> dict[str, float]:
        with share_problems():
            return fit_with_memory(
                self.device, lambda device: self._fit_on(device, params, directory, report)
            )

    def _fit_on(
        self, device: torch.device, params: Params, directory: Path, report: Report
    ) -> dict[str, float]:
        solver = self._solver(params["tap"])
        features = np.load(self.train_features[params["tap"]], mmap_mode="r")
        val = np.load(self.val_features[params["tap"]], mmap_mode="r")
        if params.get("prototypes"):
            return self._fit_prototypes(solver, features, val, directory, report)
        strengths, hidden = sorted(params["strengths"], reverse=True), params.get("hidden", 0)
        quick = len(features) * len(self.train_targets.names) <= CROSS_VALIDATED and not hidden
        quick = quick and not params.get("only", False)
        unseen = None
        rows = self.train_targets.foldable()
        if quick and len(rows):
            unseen = self._cross_validated(solver, features, rows, strengths, device)
            strengths = list(unseen.strengths)
        heads: list[Head] = []
        path: list[dict[str, float]] = []
        losses: list[np.ndarray] = []
        walk = self._walk_heads(solver, features, strengths, hidden=hidden, device=device)
        for strength, head in walk:
            metrics, of_each = self._measure(head, val)
            heads.append(head)
            path.append({"l2": strength, **metrics})
            losses.append(of_each)
            if unseen is None and is_past_best(np.stack(losses)):
                break
        known = np.stack(losses)
        if unseen:
            known = np.concatenate([known, unseen.losses], axis=1)
            means = unseen.losses.mean(axis=1).tolist()
            path = [{**row, "cv_log_loss": loss} for row, loss in zip(path, means, strict=True)]
        best = strongest_of_equals([row["l2"] for row in path], known)
        head, metrics = heads[best], dict(path[best])
        if unseen:
            least = known[known.mean(axis=1).argmin()]
            metrics[UNSEEN_LOSS] = float(least.mean())
            with write_atomic(directory / UNSEEN_FILE) as temporary, temporary.open("wb") as file:
                np.save(file, least)
        finished = solver.finish(head, self.train_targets)
        if finished is not head:
            head = finished
            metrics = metrics | self._measure(head, val)[0]
        write_head(head, directory / HEAD_FILE)
        write_json(directory / PATH_FILE, {"path": path})
        report(1, metrics)
        return metrics

    def _fit_prototypes(
        self,
        solver: HeadSolver,
        features: np.ndarray,
        val: np.ndarray,
        directory: Path,
        report: Report,
    ) -> dict[str, float]:
        """Fit the class means, and scale them with images that they do not include."""
        targets = self.train_targets
        head = solver.fit_prototypes(features, targets)
        outputs, known = head.outputs(val), self.val_targets
        rows = targets.foldable()
        if len(rows):
            unseen = solver.out_of_fold(features, targets, folds=FOLDS, l2=None, seed=0, rows=rows)
            outputs, known = np.concatenate([outputs, unseen]), known.joined(targets.take(rows))
        scale = solver.best_scale(outputs, known)
        head = LinearHead(head.weights * np.float32(scale), head.bias * np.float32(scale))
        metrics, _ = self._measure(head, val)
        if len(rows):
            metrics[UNSEEN_LOSS] = float(self.task.losses(outputs * scale, known).mean())
        write_head(head, directory / HEAD_FILE)
        write_json(directory / PATH_FILE, {"path": []})
        report(1, metrics)
        return metrics

    def _walk_heads(
        self,
        solver: HeadSolver,
        features: np.ndarray,
        strengths: Sequence[float],
        *,
        hidden: int,
        device: torch.device,
    ) -> Iterator[tuple[float, Head]]:
        """Yield each strength with its head, the strongest first."""
        if not hidden:
            yield from solver.walk(features, self.train_targets, strengths=strengths, device=device)
            return
        for strength in strengths:
            head = solver.fit_hidden(
                features,
                self.train_targets,
                hidden=hidden,
                l2=strength,
                seed=self.seed,
                device=device,
            )
            yield strength, head

    def _measure(self, head: Head, val: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
        """Return the metrics on the validation images, and the loss of each image."""
        outputs = head.outputs(val)
        metrics = self.task.validate(outputs, self.val_targets)
        return metrics, self.task.losses(outputs, self.val_targets)

    def _cross_validated(
        self,
        solver: HeadSolver,
        features: np.ndarray,
        rows: np.ndarray,
        strengths: Sequence[float],
        device: torch.device,
    ) -> PathScores:
        return solver.cross_validate(
            features if len(rows) == len(features) else features[rows],
            self.train_targets.take(rows),
            folds=FOLDS,
            strengths=strengths,
            seed=0,
            enough=is_past_best,
            device=device,
        )


@dataclass(frozen=True)
class FinetuneObjective:
    """Fine-tunes from a probed head; params are fields of `FinetuneSettings`.

    ``workers`` processes share a trial if the searcher can start them; after ``until`` (seconds
    since 1970) it ends early.
    """

    task: Task
    weights: str
    backbone: str
    device: str
    tap: str
    head: Path
    train: ImageSet
    val: ImageSet
    settings: FinetuneSettings
    tracking: Tracking
    workers: int = 1
    until: float | None = None

    def __call__(self, params: Params, directory: Path, report: Report) -> Mapping[str, float]:
        return run_tracked(self._train, params, directory, report, self.tracking)

    def _train(self, params: Params, directory: Path, report: Report) -> dict[str, float]:
        backbone = load_backbone(self.weights, self.backbone, device=self.device)
        network = TransferNet.build(backbone, tap=self.tap, head=to_tune(read_head(self.head)))
        return finetune(
            network,
            self.train,
            self.val,
            task=self.task,
            settings=dataclasses.replace(self.settings, **params),
            directory=directory,
            report=report,
            until=self.until,
        )
