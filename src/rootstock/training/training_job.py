"""One training job: the searches of a plan on its data, and the resulting networks."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from rootstock.backbones.card import pool_tap
from rootstock.backbones.load import LAST
from rootstock.backbones.tap_features import average_grids
from rootstock.config.schema import TrainConfig
from rootstock.data.views import Views, average_views
from rootstock.heads.linear import read_head, to_tune
from rootstock.plan.costs import head_seconds
from rootstock.plan.pins import AUTO
from rootstock.plan.transfer_plan import TransferPlan
from rootstock.ports.search import Params, Searcher
from rootstock.ports.search_space import Exploration
from rootstock.tasks.targets import Targets
from rootstock.training.average import average_weights
from rootstock.training.compute import Compute
from rootstock.training.ensemble import EnsembleNet
from rootstock.training.final_head import FinalHead, can_judge_all, fit_final_head
from rootstock.training.finetune import BEST, write_weights
from rootstock.training.network import TransferNet
from rootstock.training.objectives import HEAD_FILE, FinetuneObjective, HeadObjective
from rootstock.training.optim import FinetuneSettings
from rootstock.training.predict import predict_features, predict_outputs, validate
from rootstock.training.selection import choose_tuned
from rootstock.training.tracked import Tracking
from rootstock.training.training_data import TrainingData
from rootstock.training.trials import FinetunedTrial, HeadTrial, best_trial

log = logging.getLogger(__name__)

WORKER_SECONDS = 15.0
"""Seconds to start workers that load torch: measured with two on two cores."""
PROTOTYPE_IMAGES = 5
"""Up to this many training images in the median class, class means are tried as a head too. Chosen
on ants_bees and flowers12; checked on sign_digits, brain_mri, cifar10 and tiny_imagenet: with more
images a linear head was as good or better (with 10 per class, class means won once in six draws of
ants_bees and brain_mri, and the mean accuracy was the same or .9 points lower)."""
CALIBRATED_TRIALS = 6
"""Maximum number of trials compared by calibrated losses; each costs a pass over the images."""
MLP_STRIDE = 3
"""Heads with a hidden layer are tried at every third strength, because each starts from nothing."""


@dataclass(frozen=True)
class TrainingJob:
    """A plan, its data and the user's options; results of trials are in the data's directory.

    ``workers`` processes share a fine-tuning trial; ``compute`` is the fastest setting here.
    """

    plan: TransferPlan
    data: TrainingData
    options: TrainConfig
    seed: int
    workers: int = 1
    compute: Compute | None = None

    @property
    def directory(self) -> Path:
        """The folder of the trials, named by all inputs, so that a killed job can continue."""
        return self.data.directory

    @property
    def taps(self) -> list[str]:
        """The taps that heads read at the depths of the plan."""
        return [self._read_tap(depth) for depth in self.plan.taps]

    def _read_tap(self, depth: str) -> str:
        tap = self.data.task.read_tap(depth, self.data.reader.backbone.tap_names)
        return pool_tap(tap, self.plan.pooling)

    def search_heads(self, searcher: Searcher, tracking: Tracking) -> list[HeadTrial]:
        """Fit heads on the cached features, one trial per tap and kind of head."""
        backbone = self.data.reader.backbone
        objective = HeadObjective(
            parts={tap: backbone.parts(tap) for tap in self.taps},
            train_features={tap: self.data.feature_file("train", tap) for tap in self.taps},
            val_features={tap: self.data.feature_file("val", tap) for tap in self.taps},
            task=self.data.task,
            train_targets=self.data.targets("train"),
            val_targets=self.data.targets("val"),
            weighting=self.options.class_weight,
            tracking=tracking,
            seed=self.seed,
            device=self.options.device,
        )
        trials = searcher.search(
            objective,
            self.head_candidates,
            directory=self.directory / "heads",
            metric=self.data.task.selection,
            mode="min",
            early_stop=False,
            quick=self._heads_are_quick(),
        )
        return [HeadTrial.of(trial) for trial in trials]

    def _heads_are_quick(self) -> bool:
        candidates = self.head_candidates
        # Nobody has measured how long a head with a hidden layer takes.
        if any(one.get("hidden") for one in candidates):
            return False
        n_train, n_outputs = len(self.data.rows("train")), len(self.data.targets("train").names)
        widths = (self.data.reader.backbone.width(one["tap"]) for one in candidates)
        return sum(head_seconds(n_train, width, n_outputs) for width in widths) < WORKER_SECONDS

    @property
    def head_candidates(self) -> list[dict[str, Any]]:
        """The heads that `search_heads` tries."""
        # Some tasks read the same tap at several depths
        by_tap = {self._read_tap(one["tap"]): one for one in self.plan.head_candidates}
        linear = [one | {"tap": tap} for tap, one in by_tap.items()]
        with_penalty = list(linear)
        _, counts = np.unique(self.data.targets("train").strata, return_counts=True)
        if np.median(counts) <= PROTOTYPE_IMAGES and self.data.task.head().has_prototypes:
            linear += [{"tap": one["tap"], "prototypes": True} for one in linear]
        if not self.options.mlp_hidden or self.plan.finetune:
            return linear
        hidden = [
            {
                "tap": candidate["tap"],
                "hidden": self.options.mlp_hidden,
                "strengths": candidate["strengths"][::MLP_STRIDE],
            }
            for candidate in with_penalty
        ]
        return linear + hidden

    def search_finetuning(
        self,
        searcher: Searcher,
        tracking: Tracking,
        head: HeadTrial,
        *,
        candidates: Sequence[dict[str, Any]] | None = None,
        seconds: float | None = None,
    ) -> list[FinetunedTrial]:
        """Fine-tune from the probed head: the plan's trials, and more if the user wants them.

        ``candidates`` replace the plan's trials. After ``seconds`` the trials end early; without
        any time there are no trials.
        """
        settings = self._finetune_settings()
        planned, exploration = self._exploration(settings)
        if candidates is not None:
            planned, exploration = list(candidates), None
        objective = FinetuneObjective(
            task=self.data.task,
            weights=self.plan.weights,
            backbone=self.plan.backbone,
            device=self.options.device,
            tap=head.tap,
            head=head.directory / HEAD_FILE,
            train=self.data.training_images(),
            val=self.data.validation_images(),
            settings=settings,
            tracking=tracking,
            workers=self.workers,
            until=None if seconds is None else time.time() + seconds,
        )
        trials = searcher.search(
            objective,
            planned,
            directory=self.directory / "finetune",
            metric=self.data.task.selection,
            mode="min",
            # The plan's few trials run to their end: which of two is behind at an early epoch
            # depends on which started first, and then the outcome would too.
            early_stop=exploration is not None,
            exploration=exploration,
            seconds=seconds,
        )
        if candidates is None and seconds is not None and all(trial.timed_out for trial in trials):
            log.warning("plan.budget.minutes leaves no time to fine-tune, so the head is kept")
            return []
        return [FinetunedTrial.of(trial, self.data.task.selection) for trial in trials]

    def _finetune_settings(self) -> FinetuneSettings:
        assert self.plan.finetune is not None
        return FinetuneSettings.from_plan(
            self.plan.finetune,
            self.options,
            n_train=len(self.data.rows("train")),
            seed=self.seed,
            compute=self.compute,
        )

    def _exploration(
        self, settings: FinetuneSettings
    ) -> tuple[list[dict[str, Any]], Exploration | None]:
        """Return the plan's trials, and the space for further ones."""
        planned, count = list(self.plan.finetune_candidates), self.options.trials
        space = self.plan.finetune_space
        if count == AUTO or count <= len(planned) or not space:
            return planned[: None if count == AUTO else count], None
        # The searcher learns from planned trials too, so these set every parameter of the space.
        start = {name: getattr(settings, name) for name in space}
        planned = [start | {k: v for k, v in trial.items() if k in space} for trial in planned]
        return planned, Exploration(space, count, self.seed)

    def best_tuned(
        self, head: HeadTrial, tuned: Sequence[FinetunedTrial]
    ) -> tuple[FinetunedTrial, np.ndarray]:
        """Return the best of the fine-tuned trials and their `averages`, with its losses.

        Raises:
            TrainingError: every trial failed.
        """
        return self.choose_tuned([*tuned, *self.averages(head, tuned)])

    def choose_tuned(self, trials: Sequence[FinetunedTrial]) -> tuple[FinetunedTrial, np.ndarray]:
        """Return the best trial by calibrated losses float[V], with its losses; see `choose_tuned`.

        Raises:
            TrainingError: every trial failed.
        """
        metric = self.data.task.selection
        first = best_trial(trials, metric)
        others = [trial for trial in trials if not trial.error and trial is not first]
        others.sort(key=lambda trial: trial.metrics[metric])
        near = [first, *others[: CALIBRATED_TRIALS - 1]]
        losses = [self.calibrated_losses(trial) for trial in near]
        chosen = choose_tuned(near, losses)
        return near[chosen], losses[chosen]

    def averages(self, head: HeadTrial, tuned: Sequence[FinetunedTrial]) -> list[FinetunedTrial]:
        """Return averages of the fine-tuned trials: their mean, and the mean with the start.

        The mean of a single trial is left out; ``head`` is the start.
        """
        done = [trial for trial in tuned if not trial.error]
        if not done:
            return []
        states = [load_file(trial.directory / BEST) for trial in done]
        params = {"average_of": len(done)}
        plain = [self.average(states, params)] if len(done) > 1 else []
        start = self.start_weights(head)
        return [*plain, self.average([*states, start], params | {"with_start": True})]

    def average(
        self, states: Sequence[dict[str, Tensor]], params: Params, *, name: str = ""
    ) -> FinetunedTrial:
        """Return the mean of weights as a trial in the folder ``name``."""
        directory = self.directory / (name or f"average-of-{len(states)}")
        network = self._tuned_network(average_weights(states))
        write_weights(network, directory / BEST)
        metrics = validate(network, self.data.validation_images(), self.data.task)
        return FinetunedTrial(params, metrics, directory)

    def build_network(self, trial: HeadTrial | FinetunedTrial) -> TransferNet:
        """Return the network of a trial: a head on the frozen backbone, or fine-tuned weights."""
        if isinstance(trial, HeadTrial):
            head = read_head(trial.directory / HEAD_FILE)
            return TransferNet.build(self.data.reader.backbone, tap=trial.tap, head=head)
        return self._tuned_network(load_file(trial.directory / BEST), trial.networks)

    def start_weights(self, trial: HeadTrial) -> dict[str, Tensor]:
        """Return the weights from which fine-tuning started."""
        head = to_tune(read_head(trial.directory / HEAD_FILE))
        network = TransferNet.build(self.data.reader.backbone, tap=trial.tap, head=head)
        return {name: value.cpu() for name, value in network.state_dict().items()}

    def _tuned_network(self, state: dict[str, Tensor], networks: int = 1) -> TransferNet:
        head = to_tune(read_head(next((self.directory / "heads").rglob(HEAD_FILE))))
        network = TransferNet.build(self.data.reader.backbone, tap=self._read_tap(LAST), head=head)
        if networks > 1:
            network = EnsembleNet.of_equals(network, networks, self.data.task)
        network.load_state_dict(state)
        return network.eval()

    def val_outputs(self, trial: HeadTrial | FinetunedTrial, views: Views = "one") -> np.ndarray:
        """Return the outputs float32[V,K] of the validation images.

        For a head with one view they come from cached features.
        """
        if views == "one" and isinstance(trial, HeadTrial):
            features = self.data.features("val", trial.tap)
            return read_head(trial.directory / HEAD_FILE).outputs(features)
        network = self.build_network(trial)
        if views == "one":
            return predict_outputs(network, self.data.validation_images())
        device = next(network.parameters()).device
        rows = []
        for row in self.data.rows("val"):
            inputs = torch.from_numpy(self.data.view_inputs(row, views)).to(device)
            with torch.inference_mode():
                rows.append(average_views(network(inputs).float().cpu().numpy(), views))
        return np.concatenate(rows)

    def calibrated_losses(self, trial: HeadTrial | FinetunedTrial) -> np.ndarray:
        """Return the loss float[V] of each validation image, with the best calibration.

        The trial would be served with it. A strong penalty makes a head less confident, but not
        less right: without calibration it would lose to any fine-tuned network.
        """
        task, outputs, targets = self.data.task, self.val_outputs(trial), self.data.targets("val")
        return task.losses(outputs, targets, task.calibrate(outputs, targets))

    def fit_final_head(self, trial: HeadTrial | FinetunedTrial) -> FinalHead | None:
        """Return the head of ``trial`` fitted to training and validation images."""
        if isinstance(trial, FinetunedTrial):
            return None
        features = [self.data.features(split, trial.tap) for split in ("train", "val")]
        parts = self.data.reader.backbone.parts(trial.tap)
        return fit_final_head(
            trial,
            self.data.task.head(self.options.class_weight).reading(parts),
            np.concatenate(features),
            self._all_targets(),
            device=self.options.device,
        )

    def can_judge_final_head(self) -> bool:
        """Return whether `fit_final_head` gives an output for each labelled image."""
        return can_judge_all(self._all_targets())

    def _all_targets(self) -> Targets:
        """Return the targets of training and validation images, in this order."""
        rows = [row for split in ("train", "val") for row in self.data.rows(split)]
        return self.data.dataset.targets_of(rows)

    def head_features(
        self, trial: HeadTrial | FinetunedTrial, network: TransferNet, numbers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the features [N,D] of some training and all validation images, with maps averaged.

        ``numbers`` int[N] are the positions of the training images.
        """
        if isinstance(trial, HeadTrial):
            parts = self.data.reader.backbone.parts(trial.tap)
            train, val = (self.data.features(split, trial.tap) for split in ("train", "val"))
            return average_grids(train[numbers], parts), average_grids(val, parts)
        train = predict_features(network, self.data.reference_images(numbers))
        return train, predict_features(network, self.data.validation_images())
