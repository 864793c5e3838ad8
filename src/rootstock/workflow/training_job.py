"""One training job: the data, backbone and plan at hand, and its searches."""

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

from rootstock.backbones.load import LAST, Backbone
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.data.layout import base_folder
from rootstock.data.manifest import Manifest
from rootstock.data.preprocess import Preprocess
from rootstock.data.views import Views, average_views, cut_views
from rootstock.features.loading import read_pixels
from rootstock.features.reader import FeatureReader
from rootstock.features.store.store import FeatureStore
from rootstock.heads.linear import read_head
from rootstock.metrics import fit_temperature, log_losses, softmax
from rootstock.model.novelty import Reference
from rootstock.plan.pins import AUTO
from rootstock.plan.plan import TransferPlan
from rootstock.ports.search import OUT_OF_TIME, SILENT, Searcher, Trial
from rootstock.ports.search_space import Exploration
from rootstock.system.digest import digest_json
from rootstock.system.files import write_atomic
from rootstock.train.average import average_weights
from rootstock.train.compute import Compute
from rootstock.train.finetune import (
    BEST,
    predict_features,
    predict_logits,
    validate,
    write_weights,
)
from rootstock.train.images import ImageSet, prepare_images, training_preprocess
from rootstock.train.mix import choose_mixup
from rootstock.train.network import TransferNet
from rootstock.train.objectives import HEAD_FILE, FinetuneObjective, HeadObjective, Tracking
from rootstock.train.optim import FinetuneSettings
from rootstock.train.throughput import known_throughput
from rootstock.workflow.features import SPLITS, load_planned_backbone
from rootstock.workflow.trials import METRIC, best_trial, by_best_epoch

log = logging.getLogger(__name__)


TUNED_REFERENCE = 500
"""Training images whose features are computed once more after a fine-tuning, for the reference."""
MLP_STRIDE = 3
"""Heads with a hidden layer are tried at every third strength: each is trained from nothing."""


@dataclass(frozen=True)
class TrainingJob:
    """``directory`` is named by what decides its trials, so that a killed job's work is found."""

    config: Config
    manifest: Manifest
    plan: TransferPlan
    root: Path
    store: FeatureStore
    backbone: Backbone
    preprocess: Preprocess
    directory: Path
    compute: Compute | None = None

    @classmethod
    def open(cls, config: Config, paths: Paths) -> TrainingJob:
        """Load what the earlier stages made.

        Raises:
            ArtifactError: an artifact is missing, or was made for other inputs.
            DataError: there is no training or no validation image.
        """
        manifest, plan = Manifest.read(paths.manifest), TransferPlan.read(paths.plan)
        backbone = load_planned_backbone(plan, device=config.train.device)
        preprocess = backbone.card.preprocess(plan.input_size)
        rows = [row for split in SPLITS for row in manifest.rows(split)]
        root = base_folder(paths.below(config.data.root))
        store = FeatureStore(paths.below(config.features.store))
        FeatureReader(root, backbone, preprocess, store).check_index(paths.features, rows)
        return cls(
            config=config,
            manifest=manifest,
            plan=plan,
            root=root,
            store=store,
            backbone=backbone,
            preprocess=preprocess,
            directory=paths.trials / job_name(config, manifest, plan),
            compute=planned_compute(paths, plan, backbone),
        )

    def search_heads(self, searcher: Searcher, tracking: Tracking) -> list[Trial]:
        """Fit heads on the cached features, one trial for each tap and strength."""
        files = {
            split: {tap: self._matrix(split, tap) for tap in self.plan.taps} for split in SPLITS
        }
        weight = self.config.train.class_weight
        objective = HeadObjective(
            train_features=files["train"],
            val_features=files["val"],
            train_labels=self.manifest.labels("train"),
            val_labels=self.manifest.labels("val"),
            n_classes=len(self.manifest.classes),
            class_weight="balanced" if weight.startswith("balanced") else None,
            tracking=tracking,
            seed=self.config.seed,
            logit_adjusted=weight == "logit_adjusted",
            device=self.config.train.device,
        )
        candidates = list(self.plan.head_candidates)
        if self.config.train.mlp_hidden and not self.plan.finetune:
            candidates += [
                {
                    "tap": candidate["tap"],
                    "hidden": self.config.train.mlp_hidden,
                    "strengths": candidate["strengths"][::MLP_STRIDE],
                }
                for candidate in self.plan.head_candidates
            ]
        return searcher.search(
            objective,
            candidates,
            directory=self.directory / "heads",
            metric=METRIC,
            mode="min",
            early_stop=False,
        )

    def search_finetuning(
        self,
        searcher: Searcher,
        tracking: Tracking,
        head: Trial,
        *,
        seconds: float | None = None,
    ) -> list[Trial]:
        """Fine-tune from the probed head: the plan's trials, and explored ones if more are wanted.

        After ``seconds`` the trials end with what they have.
        """
        recipe, config = self.plan.finetune, self.config.train
        assert recipe is not None
        objective = FinetuneObjective(
            weights=self.plan.weights,
            backbone=self.plan.backbone,
            device=config.device,
            tap=LAST,
            head=head.directory / HEAD_FILE,
            train=self.images("train", training_preprocess(self.preprocess)),
            val=self.images("val", self.preprocess),
            settings=FinetuneSettings(
                learning_rate=0.0,
                epochs=recipe.epochs,
                batch_size=config.batch_size,
                freeze_through=recipe.freeze_through,
                batchnorm=recipe.batchnorm,
                layer_decay=recipe.layer_decay,
                head_multiplier=recipe.head_multiplier,
                weight_decay=config.weight_decay,
                label_smoothing=config.label_smoothing,
                patience=config.patience,
                augmentation=recipe.augmentation,
                flip=recipe.flip,
                balanced=config.class_weight == "balanced",
                seed=self.config.seed,
                optimizer=config.optimizer,
                ema_decay=config.ema_decay,
                micro_batch=config.micro_batch,
                mixup=choose_mixup(config.mixup, n_train=len(self.manifest.rows("train"))),
                cutmix=config.cutmix,
                balanced_sampling=config.class_weight == "balanced_sampling",
                logit_adjusted=config.class_weight == "logit_adjusted",
                recompute=config.recompute,
                compute=self.compute,
            ),
            tracking=tracking,
            workers=self.config.search.workers_per_trial,
            until=None if seconds is None else time.time() + seconds,
        )
        planned, exploration = self._exploration(objective.settings)
        trials = searcher.search(
            objective,
            planned,
            directory=self.directory / "finetune",
            metric=METRIC,
            mode="min",
            # The plan's own few trials run to their end: which of two is behind at an early epoch
            # depends on which got there first, and the outcome would with it.
            early_stop=exploration is not None,
            exploration=exploration,
            seconds=seconds,
        )
        if seconds is not None and all(trial.error in (OUT_OF_TIME, SILENT) for trial in trials):
            log.warning("no time was left to fine-tune: the head is kept (plan.budget.minutes)")
            return []
        return [by_best_epoch(trial) for trial in trials]

    def _exploration(
        self, settings: FinetuneSettings
    ) -> tuple[list[dict[str, Any]], Exploration | None]:
        """The plan's trials, and what is to be drawn beyond them."""
        planned, wanted = list(self.plan.finetune_candidates), self.config.train.trials
        space = self.plan.finetune_space
        if wanted == AUTO or wanted <= len(planned) or not space:
            return planned[: None if wanted == AUTO else wanted], None
        # The searcher learns from planned trials too, so these name every parameter of the space.
        start = {name: getattr(settings, name) for name in space}
        planned = [start | {k: v for k, v in trial.items() if k in space} for trial in planned]
        return planned, Exploration(space, wanted, self.config.seed)

    def calibrated_losses(self, trial: Trial) -> np.ndarray:
        """Log-loss float[V] of each validation image with the temperature that fits them best.

        So would the trial be served. A strong penalty leaves a head less sure than it could be, and
        no less right: without the temperature it would lose to any fine-tuned network.
        """
        logits, labels = self.val_logits(trial), self.manifest.labels("val")
        return log_losses(softmax(logits / fit_temperature(logits, labels)), labels)

    def best_tuned(self, head: Trial, tuned: Sequence[Trial]) -> Trial:
        """The best of the fine-tuned trials and their `averages`, as races and training keep it.

        Raises:
            TrainingError: every trial failed.
        """
        return best_trial([*tuned, *self.averages(head, tuned)])

    def averages(self, head: Trial, tuned: Sequence[Trial]) -> list[Trial]:
        """More trials, made of the fine-tuned ones: their mean, and that with where they began.

        The mean of one is the trial itself and left out; ``head`` is what they began from.
        """
        done = [trial for trial in tuned if not trial.error]
        if not done:
            return []
        states = [load_file(trial.directory / BEST) for trial in done]
        params = {"average_of": len(done)}
        made = [self._average(states, params)] if len(done) > 1 else []
        start = {name: value.cpu() for name, value in self.build_network(head).state_dict().items()}
        return [*made, self._average([*states, start], params | {"with_start": True})]

    def _average(self, states: Sequence[dict[str, Tensor]], params: dict[str, Any]) -> Trial:
        home = self.directory / f"average-of-{len(states)}"
        network = self._tuned_network(average_weights(states))
        write_weights(network, home / BEST)
        return Trial(params, validate(network, self.images("val", self.preprocess)), home)

    def images(self, split: str, preprocess: Preprocess) -> ImageSet:
        """The pixels of a split, kept in the job's directory."""
        return prepare_images(
            self.manifest.rows(split),
            self.manifest.labels(split),
            root=self.root,
            preprocess=preprocess,
            cache=self.directory / f"pixels-{split}.npy",
        )

    def build_network(self, best: Trial) -> TransferNet:
        """The network of a trial: a probed head on the frozen backbone, or fine-tuned weights."""
        if "tap" in best.params:
            head = read_head(best.directory / HEAD_FILE)
            return TransferNet.build(self.backbone, tap=best.params["tap"], head=head)
        return self._tuned_network(load_file(best.directory / BEST))

    def _tuned_network(self, state: dict[str, Tensor]) -> TransferNet:
        head = read_head(next((self.directory / "heads").rglob(HEAD_FILE)))
        network = TransferNet.build(self.backbone, tap=LAST, head=head)
        network.load_state_dict(state)
        return network.eval()

    def val_logits(self, trial: Trial, views: Views = "one") -> np.ndarray:
        """Logits float32[N,K] of the validation images; a head's of one view by cached features."""
        if views == "one" and "tap" in trial.params:
            features = np.load(self._matrix("val", trial.params["tap"]), mmap_mode="r")
            return read_head(trial.directory / HEAD_FILE).logits(features)
        network = self.build_network(trial)
        if views == "one":
            return predict_logits(network, self.images("val", self.preprocess))
        device = next(network.parameters()).device
        rows = []
        for row in self.manifest.rows("val"):
            pixels = read_pixels(row, self.root, short_side=self.preprocess.decoded_side)
            inputs = self.preprocess.normalise(cut_views(self.preprocess, pixels, views))
            with torch.inference_mode():
                logits = network(torch.from_numpy(inputs).to(device)).float().cpu().numpy()
            rows.append(average_views(logits, views))
        return np.concatenate(rows)

    def reference(self, network: TransferNet, best: Trial, probabilities: np.ndarray) -> Reference:
        """What the model has seen; ``probabilities`` float[V,K] of the validation images."""
        if "tap" in best.params:
            seen, val = (
                np.load(self._matrix(split, best.params["tap"]), mmap_mode="r") for split in SPLITS
            )
        else:
            rows = self.manifest.rows("train")
            some = rows[:: max(1, len(rows) // TUNED_REFERENCE)]
            labels = np.zeros(len(some), np.int64)
            seen = predict_features(
                network, ImageSet(tuple(some), labels, self.root, self.preprocess, None)
            )
            val = predict_features(network, self.images("val", self.preprocess))
        return Reference.measure(seen, val, probabilities, self.manifest.labels("val"))

    def _matrix(self, split: str, tap: str) -> Path:
        """Features of one split and tap as a .npy file that all trials map into memory."""
        path = self.directory / f"features-{split}-{tap}.npy"
        if path.exists():
            return path
        rows = self.manifest.rows(split)
        # The store is a cache that may have been cleared or damaged since the stage `features`.
        reader = FeatureReader(self.root, self.backbone, self.preprocess, self.store)
        reader.extract(rows, [tap], batch_size=self.config.features.batch_size)
        with write_atomic(path) as temporary, temporary.open("wb") as file:
            reader.save(file, rows, tap)
        return path


def planned_compute(paths: Paths, plan: TransferPlan, backbone: Backbone) -> Compute | None:
    """The fastest way to fine-tune as ``plan`` says on this machine, measured once."""
    if not plan.finetune:
        return None
    return known_throughput(paths.paces, backbone, tuning_size=plan.input_size).tuning


def job_name(config: Config, manifest: Manifest, plan: TransferPlan) -> str:
    """The same for jobs whose trials of the same params end the same.

    A race on all training images is such a job: what it has trained, training finds done.
    """
    recipe = {"weights_sha256", "backbone", "taps", "input_size", "finetune"}
    parts = [
        plan.model_dump(mode="json", include=recipe),
        manifest.content_hash,
        config.train.model_dump(mode="json", exclude={"learning_rates", "epochs", "trials"}),
        config.seed,
    ]
    return digest_json(parts, digits=16)
