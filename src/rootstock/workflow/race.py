"""The race of two strategies: small training jobs on a part of the images, before the plan."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from rootstock.assess.build import sample_rows
from rootstock.assess.profile import DatasetProfile
from rootstock.config.choices import Strategy
from rootstock.config.schema import TrainConfig
from rootstock.data.manifest import Manifest
from rootstock.errors import ArtifactError
from rootstock.metrics import lead
from rootstock.plan import rules
from rootstock.plan.pins import AUTO, Pins
from rootstock.plan.planner import make_transfer_plan
from rootstock.plan.race_rules import (
    ALL_RATES_MAX_IMAGES,
    EPOCHS,
    RATE_EPOCHS,
    decide,
    is_settled,
    is_whole,
    lower_rate,
    round_sizes,
)
from rootstock.plan.transfer_plan import Heat, Race, TransferPlan
from rootstock.ports.runs import NullRunLogger
from rootstock.ports.search import Searcher
from rootstock.system.digest import digest_json
from rootstock.system.progress import say, show_seconds
from rootstock.train.throughput import Throughput
from rootstock.train.tracked import Tracking
from rootstock.train.training_job import TrainingJob
from rootstock.train.trials import FinetunedTrial, HeadTrial, best_head, best_trial

log = logging.getLogger(__name__)

VERSION = 4
"""Raised whenever the same contest would be judged another way."""
VAL_IMAGES = 1000
"""At most so many validation images judge a heat: their noise is below a point then."""


class JobOpener(Protocol):
    """Makes the training job of a plan; on all images and in its own folder by default."""

    def __call__(
        self, plan: TransferPlan, *, manifest: Manifest | None = None, directory: Path | None = None
    ) -> TrainingJob: ...


@dataclass(frozen=True, kw_only=True)
class StrategyRace:
    """A short training of the two strategies of ``contest``, the preferred one first.

    On few images it is the training itself, which then uses the winner's trials. The outcome is
    kept in ``folder``, so that the same race is run once; it is run in ``scratch``.
    """

    contest: Sequence[Strategy]
    profile: DatasetProfile
    pins: Pins
    manifest: Manifest
    options: TrainConfig
    seed: int
    folder: Path
    scratch: Path
    open_job: JobOpener
    throughput: Throughput | None = None
    """Of this machine, for the minutes that are announced."""

    def run(self, searcher: Searcher) -> Race:
        """Return the outcome, after one round of training, or two if the first leaves a doubt.

        Raises:
            TrainingError: a contender could not be trained.
        """
        if self.outcome.exists():
            try:
                return Race.read(self.outcome)
            except ArtifactError as error:
                log.warning("%s; the race is run again", error)
        heats: list[Heat] = []
        folders: dict[Strategy, Path] = {}
        losses: dict[Strategy, np.ndarray] = {}
        sizes = round_sizes(self.profile.n_train)
        plans = {(n, one): self._plan(one, n) for n in sizes for one in self.contest}
        minutes = self.expected_minutes
        about = f" (about {show_seconds(60 * minutes)})" if minutes else ""
        say(f"race: {' and '.join(self.contest)} are trained briefly, the better is taken{about}")
        for n_train in sizes:
            for strategy in self.contest:
                say(f"race: {strategy} on {n_train:,} training images")
                job = self._open(plans[n_train, strategy], n_train)
                folders[strategy] = job.directory
                heat, losses[strategy] = run_heat(
                    job, searcher, free_rates=self.pins.learning_rates == AUTO
                )
                heats.append(heat)
            if is_settled(*heats[-2:]):
                break
        _, noise = lead(*(losses[strategy] for strategy in self.contest))
        race = decide(heats, noise=noise)
        race.write(self.outcome)
        shutil.rmtree(self.scratch / self.name, ignore_errors=True)
        if not rules.is_finetune(race.winner):  # a head that lost is compared again after training
            for strategy, folder in folders.items():
                if strategy != race.winner:
                    shutil.rmtree(folder, ignore_errors=True)
        return race

    @property
    def outcome(self) -> Path:
        """The file that keeps the outcome."""
        return self.folder / f"{self.name}.json"

    @property
    def expected_minutes(self) -> float:
        """What all rounds take here; 0 if this machine was not measured."""
        sizes = round_sizes(self.profile.n_train)
        return sum(self._minutes(self._plan(one, n), n) for n in sizes for one in self.contest)

    @property
    def name(self) -> str:
        """The same for races whose outcome is the same."""
        parts = [
            VERSION,
            self.profile.model_dump(mode="json"),
            list(self.contest),
            dataclasses.asdict(self.pins),
            self.options.model_dump(mode="json"),
            [rules.learning_rates(strategy, self.profile.n_train) for strategy in self.contest],
            self.seed,
        ]
        return digest_json(parts, digits=16)

    def _plan(self, strategy: Strategy, n_train: int) -> TransferPlan:
        pins = self.pins
        if rules.is_finetune(strategy) and pins.learning_rates == AUTO:
            rates = rules.learning_rates(strategy, n_train)
            pins = dataclasses.replace(pins, learning_rates=rates)
        if not is_whole(self.profile.n_train):
            pins = dataclasses.replace(pins, epochs=EPOCHS)
        return make_transfer_plan(
            self.profile, pins=pins, l2_grid=self.options.l2_grid, contender=strategy
        )

    def _minutes(self, plan: TransferPlan, n_train: int) -> float:
        """Return the minutes of a heat; 0 if this machine was not measured."""
        if self.throughput is None:
            return 0.0
        epochs, rates = plan.finetune.epochs if plan.finetune else 0, len(plan.finetune_candidates)
        if self.pins.learning_rates == AUTO and n_train > ALL_RATES_MAX_IMAGES and rates > 1:
            epochs, rates = epochs + rates * RATE_EPOCHS, 1
        return self.throughput.minutes(
            plan.strategy,
            n_train=n_train,
            n_val=min(VAL_IMAGES, self.profile.n_val),
            epochs=epochs,
            n_rates=rates,
        )

    def _open(self, plan: TransferPlan, n_train: int) -> TrainingJob:
        if is_whole(self.profile.n_train):
            return self.open_job(plan)
        return self.open_job(
            plan,
            manifest=_sample(self.manifest, n_train),
            directory=self.scratch / self.name / f"{plan.strategy}-{n_train}",
        )


def run_heat(job: TrainingJob, searcher: Searcher, *, free_rates: bool) -> tuple[Heat, np.ndarray]:
    """Train a contender; return the heat and each validation image's calibrated loss float[V].

    ``free_rates``: the learning rate is part of the race. Except on few images, each rate of the
    plan is tried briefly and the better one is trained in full. If that ends below the head that it
    started from, the next lower rate is trained too.
    """
    tracking = Tracking(NullRunLogger(), "", {})
    best: HeadTrial | FinetunedTrial
    task, valid = job.data.task, True
    rates: tuple[float, ...] = ()
    with searcher.session():
        best = head = best_head(job.search_heads(searcher, tracking), task.selection)
        losses = job.calibrated_losses(head)
        if job.plan.finetune:
            planned = tuple(one["learning_rate"] for one in job.plan.finetune_candidates)
            start, tune = losses, partial(_tune, job, searcher, tracking, head)
            rates = planned
            if free_rates and len(job.data.rows("train")) > ALL_RATES_MAX_IMAGES:
                rates = (_best_rate(job, searcher, tracking, head, planned),)
            best, losses = tune(rates)
            valid = not _is_below(losses, start)
            if not valid and free_rates:
                rates = (lower_rate(min(rates), planned),)
                say(f"race: it ended below the head it started from; rate {rates[0]:g} is tried")
                best, losses = tune(rates)
                valid = not _is_below(losses, start)
    heat = Heat(
        strategy=job.plan.strategy,
        n_train=len(job.data.rows("train")),
        n_val=len(job.data.rows("val")),
        epochs=job.plan.finetune.epochs if job.plan.finetune else 0,
        accuracy=round(best.metrics[task.val_headline], 4),
        log_loss=round(float(losses.mean()), 4),
        rates=rates,
        valid=valid,
    )
    return heat, losses


def _tune(
    job: TrainingJob,
    searcher: Searcher,
    tracking: Tracking,
    head: HeadTrial,
    rates: Sequence[float],
) -> tuple[FinetunedTrial, np.ndarray]:
    """Return the best of the trainings at ``rates`` and their averages, and its losses."""
    candidates = [{"learning_rate": rate} for rate in rates]
    trials = job.search_finetuning(searcher, tracking, head, candidates=candidates)
    best = job.best_tuned(head, trials)
    return best, job.calibrated_losses(best)


def _best_rate(
    job: TrainingJob,
    searcher: Searcher,
    tracking: Tracking,
    head: HeadTrial,
    rates: Sequence[float],
) -> float:
    """Return the rate with the lowest validation loss after `RATE_EPOCHS`."""
    if len(rates) == 1:
        return rates[0]
    candidates = [{"learning_rate": rate, "epochs": RATE_EPOCHS} for rate in rates]
    trials = job.search_finetuning(searcher, tracking, head, candidates=candidates)
    return float(best_trial(trials, job.data.task.selection).params["learning_rate"])


def _is_below(losses: np.ndarray, start: np.ndarray) -> bool:
    """Return whether ``losses`` are higher than those of the ``start`` beyond the noise."""
    ahead, noise = lead(start, losses)
    return ahead > noise


def _sample(manifest: Manifest, n_train: int) -> Manifest:
    rows = sample_rows(manifest.rows("train"), n_train)
    rows += sample_rows(manifest.rows("val"), VAL_IMAGES)
    return dataclasses.replace(manifest, images=tuple(rows))
