"""What one trial does: fit a head, or fine-tune. Both travel to worker processes.

A trial writes ``result.json`` into its directory when it is done; started again with the same
params it returns that at once, so a search that was killed repeats only what was not finished.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rootstock.backbones.load import load_backbone, pick_device
from rootstock.heads.linear import (
    CPU,
    Head,
    PathScores,
    adjust_logits,
    cross_validate_path,
    read_head,
    walk_heads,
    write_head,
)
from rootstock.heads.mlp import fit_mlp_head
from rootstock.metrics import accuracy, balanced_accuracy, log_losses, softmax
from rootstock.ports.runs import NullRunLogger, Run, RunLogger
from rootstock.ports.search import Params, Report
from rootstock.system.files import write_json
from rootstock.train.distributed import ProcessGroup
from rootstock.train.finetune import finetune
from rootstock.train.images import ImageSet
from rootstock.train.network import TransferNet
from rootstock.train.optim import FinetuneSettings
from rootstock.train.resume import resumed_run

log = logging.getLogger(__name__)

HEAD_FILE = "head.safetensors"
PATH_FILE = "path.json"
CROSS_VALIDATED = 400_000
"""Up to so many training images times classes the strength is cross-validated on them too: beyond,
it would take minutes, and the validation images alone tell enough."""
FOLDS = 5
LARGEST_ERROR = 0.1
"""Share of the lowest log-loss that its standard error counts for at most."""
_RESULT, _RUN = "result.json", "run.json"


@dataclass(frozen=True)
class Tracking:
    """Where a trial logs itself: as a child of the run ``parent_id``."""

    runs: RunLogger
    parent_id: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HeadObjective:
    """Fits heads for params ``tap`` and ``strengths``, keeps the best, notes all in `PATH_FILE`.

    With a param ``hidden`` they have a hidden layer of that width, else they are linear.

    ``train_features`` and ``val_features`` map a tap to a .npy file of float16[N,C]; trials share
    its pages in memory. Labels are int64[N]. The strength is chosen by the log-loss on images the
    head did not see: those of ``val``, and those of ``train`` by cross-validation unless they are
    so many that ``val`` alone tells.
    """

    train_features: Mapping[str, Path]
    val_features: Mapping[str, Path]
    train_labels: np.ndarray
    val_labels: np.ndarray
    n_classes: int
    class_weight: str | None
    tracking: Tracking
    seed: int = 0
    logit_adjusted: bool = False
    """Adjust the chosen head to classes that are equally frequent."""
    device: str = "cpu"
    """As `pick_device` reads it, where the trial runs."""

    def __call__(self, params: Params, directory: Path, report: Report) -> Mapping[str, float]:
        return _tracked(self._fit, params, directory, report, self.tracking)

    def _fit(self, params: Params, directory: Path, report: Report) -> dict[str, float]:
        device = pick_device(self.device)
        try:
            return self._fit_on(device, params, directory, report)
        except torch.cuda.OutOfMemoryError:
            log.warning("the features do not fit into the memory of %s: fitted on the CPU", device)
        return self._fit_on(CPU, params, directory, report)

    def _fit_on(
        self, device: torch.device, params: Params, directory: Path, report: Report
    ) -> dict[str, float]:
        features = np.load(self.train_features[params["tap"]], mmap_mode="r")
        val = np.load(self.val_features[params["tap"]], mmap_mode="r")
        strengths, hidden = sorted(params["strengths"], reverse=True), params.get("hidden", 0)
        quick = len(features) * self.n_classes <= CROSS_VALIDATED and not hidden
        unseen = None
        if quick and len(strengths) > 1:
            unseen = self._cross_validated(features, strengths, device)
            strengths = list(unseen.strengths)
        heads: list[Head] = []
        path: list[dict[str, float]] = []
        losses: list[np.ndarray] = []
        for strength, head in self._walk_heads(features, strengths, hidden=hidden, device=device):
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
        head, metrics = heads[best], path[best]
        if self.logit_adjusted:
            head = adjust_logits(head, self.train_labels, n_classes=self.n_classes)
            metrics = metrics | self._measure(head, val)[0]
        write_head(head, directory / HEAD_FILE)
        write_json(directory / PATH_FILE, {"path": path})
        report(1, metrics)
        return metrics

    def _walk_heads(
        self,
        features: np.ndarray,
        strengths: Sequence[float],
        *,
        hidden: int,
        device: torch.device,
    ) -> Iterator[tuple[float, Head]]:
        """Each strength with its head, the strongest first."""
        if not hidden:
            yield from walk_heads(
                features,
                self.train_labels,
                strengths=strengths,
                n_classes=self.n_classes,
                class_weight=self.class_weight,
                device=device,
            )
            return
        for strength in strengths:
            head = fit_mlp_head(
                features,
                self.train_labels,
                hidden=hidden,
                l2=strength,
                n_classes=self.n_classes,
                class_weight=self.class_weight,
                seed=self.seed,
                device=device,
            )
            yield strength, head

    def _measure(self, head: Head, val: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
        """The metrics on val, and each image's log-loss."""
        logits = head.logits(val)
        predicted = logits.argmax(axis=1)
        losses = log_losses(softmax(logits), self.val_labels)
        metrics = {
            "val_log_loss": float(losses.mean()),
            "val_accuracy": accuracy(predicted, self.val_labels),
            "val_balanced_accuracy": balanced_accuracy(predicted, self.val_labels, self.n_classes),
        }
        return metrics, losses

    def _cross_validated(
        self, features: np.ndarray, strengths: Sequence[float], device: torch.device
    ) -> PathScores:
        # A class of one image cannot be left out and learnt at once.
        counts = np.bincount(self.train_labels)
        rows = np.flatnonzero(counts[self.train_labels] > 1)
        return cross_validate_path(
            features[rows],
            self.train_labels[rows],
            folds=FOLDS,
            strengths=strengths,
            seed=0,
            class_weight=self.class_weight,
            enough=is_past_best,
            device=device,
        )


def strongest_of_equals(strengths: Sequence[float], losses: np.ndarray) -> int:
    """Position of the strongest penalty whose mean log-loss is within an error of the lowest.

    As good for all that can be told, better calibrated, and a gentler start for fine-tuning: a
    head with huge weights sends huge gradients into the backbone. This is the one-standard-error
    rule of Breiman et al. 1984; the error is at most a tenth of the lowest loss, for few images
    would allow any penalty. ``losses`` [S,N] are of images that the heads did not see.
    """
    as_good = np.flatnonzero(losses.mean(axis=1) <= _as_good(losses))
    return int(as_good[np.argmax(np.asarray(strengths)[as_good])])


def is_past_best(losses: np.ndarray) -> bool:
    """Whether the last of ``losses`` [S,N] is no longer as good as the best before it.

    Along a path the loss falls and then rises; the weak strengths on the far side take most of the
    time, and none of them would be taken.
    """
    return bool(losses[-1].mean() > _as_good(losses))


def _as_good(losses: np.ndarray) -> float:
    """The mean loss up to which one is as good as the best for all that can be told."""
    means = losses.mean(axis=1)
    best = int(means.argmin())
    error = losses[best].std() / np.sqrt(losses.shape[1])
    return float(means[best] + min(error, LARGEST_ERROR * means[best]))


@dataclass(frozen=True)
class FinetuneObjective:
    """Fine-tunes from a probed head; params are fields of `FinetuneSettings`.

    ``workers`` processes share a trial where the searcher can start them; past ``until`` (seconds
    since 1970) it ends with what it has.
    """

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
        return _tracked(self._train, params, directory, report, self.tracking)

    def _train(self, params: Params, directory: Path, report: Report) -> dict[str, float]:
        backbone = load_backbone(self.weights, self.backbone, device=self.device)
        network = TransferNet.build(backbone, tap=self.tap, head=read_head(self.head))
        return finetune(
            network,
            self.train,
            self.val,
            settings=dataclasses.replace(self.settings, **params),
            directory=directory,
            report=report,
            until=self.until,
        )


def _tracked(
    body: Callable[[Params, Path, Report], dict[str, float]],
    params: Params,
    directory: Path,
    report: Report,
    tracking: Tracking,
) -> Mapping[str, float]:
    """Run ``body`` inside a child run, or return the result that is there already.

    Of a group only the first process logs and writes.
    """
    result = directory / _RESULT
    name = " ".join(f"{k}={v}" for k, v in params.items() if not isinstance(v, list | tuple))
    if result.exists():
        found = json.loads(result.read_text(encoding="utf-8"))
        metrics: dict[str, float] = found["metrics"]
        if not found["run"]:  # trained in a race, before there was a run to log to
            with tracking.runs.run(name, parent_id=tracking.parent_id, tags=tracking.tags) as run:
                _log_finished(run, params, metrics)
                write_json(result, {"metrics": metrics, "run": run.id})
        report(1, metrics)
        return metrics
    started = time.monotonic()
    is_main = ProcessGroup.current().is_main
    runs = tracking.runs if is_main else NullRunLogger()
    begun = directory / _RUN
    with resumed_run(runs, begun, name, parent_id=tracking.parent_id, tags=tracking.tags) as (
        run,
        _,
    ):
        run.log_params(params)
        metrics = body(params, directory, _both(report, run))
        metrics |= {"seconds": round(time.monotonic() - started, 3)}
        _log_finished(run, {}, metrics)
        run_id = run.id
    if is_main:
        write_json(result, {"metrics": metrics, "run": run_id})
    return metrics


def _log_finished(run: Run, params: Params, metrics: Mapping[str, float]) -> None:
    if params:
        run.log_params(params)
    run.log_metrics({f"final_{key}": value for key, value in metrics.items()})


def _both(report: Report, run: Run) -> Report:
    def tell(step: int, metrics: Mapping[str, Any]) -> None:
        run.log_metrics(metrics, step=step)
        report(step, metrics)

    return tell
