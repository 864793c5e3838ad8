"""The race of two strategies: short trainings on a part of the images, before the plan."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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
    FURTHER_SPLITS,
    RATE_EPOCHS,
    decide,
    is_in_doubt,
    is_settled,
    is_whole,
    needs_splits,
    round_sizes,
)
from rootstock.plan.transfer_plan import Heat, Race, TransferPlan
from rootstock.ports.search import Searcher
from rootstock.system.digest import digest_json
from rootstock.system.progress import say, show_seconds
from rootstock.training.throughput import Throughput
from rootstock.training.training_job import TrainingJob
from rootstock.workflow.race_heat import RunHeat, further_splits, pool_heats, run_heat

log = logging.getLogger(__name__)

VERSION = 7
"""Increased whenever the same race would be judged differently."""
VAL_IMAGES = 1000
"""Maximum number of validation images in a heat: their noise is then below a point."""


class JobOpener(Protocol):
    """Opens the training job of a plan; by default on all images and in its own folder."""

    def __call__(
        self, plan: TransferPlan, *, manifest: Manifest | None = None, directory: Path | None = None
    ) -> TrainingJob: ...


@dataclass(frozen=True, kw_only=True)
class StrategyRace:
    """A short training of the two strategies of ``contest``, the preferred one first.

    On few images it is the full training, whose trials the winner reuses. The result is kept in
    ``folder``, so that the same race runs once; it runs in ``scratch``.
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
    """Throughput of this machine, for the announced minutes."""
    budget_minutes: float | None = None
    """Limit on the minutes; further splits are trained only within it."""

    def run(self, searcher: Searcher) -> Race:
        """Return the result after one round of training, or two if the first leaves a doubt.

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
        last: dict[Strategy, RunHeat] = {}
        sizes = round_sizes(self.profile.n_train)
        plans = {(n, one): self._plan(one, n) for n in sizes for one in self.contest}
        minutes = self.expected_minutes
        about = f" (at most about {show_seconds(60 * minutes)})" if minutes else ""
        say(f"race: training {' and '.join(self.contest)} briefly to choose the better one{about}")
        for n_train in sizes:
            for strategy in self.contest:
                say(f"race: {strategy} on {n_train:,} training images")
                job = self._open(plans[n_train, strategy], n_train)
                folders[strategy] = job.directory
                last[strategy] = run_heat(
                    job, searcher, free_rates=self.pins.learning_rates == AUTO
                )
                heats.append(last[strategy].heat)
            if is_settled(*heats[-2:]):
                break
        if is_in_doubt(heats):
            last = self._repeat(last, {one: plans[sizes[-1], one] for one in last}, searcher)
            heats += [one.heat for one in last.values() if one.heat.splits > 1]
        _, noise = lead(*(last[strategy].losses for strategy in self.contest))
        race = decide(heats, noise=noise, score_name=self.profile.score_name)
        race.write(self.outcome)
        shutil.rmtree(self.scratch / self.name, ignore_errors=True)
        if not rules.is_finetune(race.winner):  # the losing head is compared again after training
            for strategy, folder in folders.items():
                if strategy != race.winner:
                    shutil.rmtree(folder, ignore_errors=True)
        return race

    def _repeat(
        self,
        first: Mapping[Strategy, RunHeat],
        plans: Mapping[Strategy, TransferPlan],
        searcher: Searcher,
    ) -> dict[Strategy, RunHeat]:
        """Return the pooled heats of more splits; ``first`` itself if there is no time.

        Fine-tuning is trained at the winning rates of its first heat.
        """
        splits = further_splits(
            self.manifest, n_val=self.profile.n_val, count=FURTHER_SPLITS, seed=self.seed
        )
        if not splits or not self._has_time(first):
            return dict(first)
        heats = {strategy: [heat] for strategy, heat in first.items()}
        for number, manifest in enumerate(splits, start=2):
            say(f"race: {' and '.join(first)} on another split, {number} of {len(splits) + 1}")
            for strategy, (heat, *_) in heats.items():
                job = self.open_job(
                    plans[strategy],
                    manifest=_sample(manifest, heat.heat.n_train),
                    directory=self.scratch / self.name / f"{strategy}-split-{number}",
                )
                again = run_heat(job, searcher, free_rates=False, rates=heat.won_rates)
                heats[strategy].append(again)
        return {strategy: pool_heats(several) for strategy, several in heats.items()}

    def _has_time(self, first: Mapping[Strategy, RunHeat]) -> bool:
        """Return whether the further splits, with the race so far, fit into the budget."""
        if self.budget_minutes is None or self.throughput is None:
            return True
        once = sum(
            self.throughput.tuning_minutes(
                strategy,
                n_train=one.heat.n_train,
                n_val=one.heat.n_val,
                epochs=one.heat.epochs * len(one.won_rates),
            )
            for strategy, one in first.items()
        )
        return self._rounds_minutes + FURTHER_SPLITS * once <= self.budget_minutes

    @property
    def outcome(self) -> Path:
        """The file with the result."""
        return self.folder / f"{self.name}.json"

    @property
    def expected_minutes(self) -> float:
        """The maximum minutes of all rounds on this machine; 0 if it was not measured.

        The further splits count if the validation images are too few to be certain without them.
        """
        minutes = self._rounds_minutes
        if needs_splits(min(VAL_IMAGES, self.profile.n_val)):
            largest = round_sizes(self.profile.n_train)[-1]
            plans = [self._plan(one, largest) for one in self.contest]
            split = sum(self._minutes(plan, largest, one_rate=True) for plan in plans)
            splits = FURTHER_SPLITS * split
            if self.budget_minutes is None or minutes + splits <= self.budget_minutes:
                minutes += splits
        return minutes

    @property
    def _rounds_minutes(self) -> float:
        sizes = round_sizes(self.profile.n_train)
        return sum(self._minutes(self._plan(one, n), n) for n in sizes for one in self.contest)

    @property
    def name(self) -> str:
        """A name that is equal for races with the same result."""
        parts = [
            VERSION,
            self.profile.model_dump(mode="json"),
            list(self.contest),
            dataclasses.asdict(self.pins),
            self.options.model_dump(mode="json", exclude={"ensemble"}),
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

    def _minutes(self, plan: TransferPlan, n_train: int, *, one_rate: bool = False) -> float:
        """Return the minutes of a heat; 0 if this machine was not measured.

        ``one_rate``: fine-tuning is trained only at the winning rate of another heat.
        """
        if self.throughput is None:
            return 0.0
        epochs, rates = plan.finetune.epochs if plan.finetune else 0, len(plan.finetune_candidates)
        if one_rate:
            rates = min(rates, 1)
        elif self.pins.learning_rates == AUTO and n_train > ALL_RATES_MAX_IMAGES and rates > 1:
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


def _sample(manifest: Manifest, n_train: int) -> Manifest:
    rows = sample_rows(manifest.rows("train"), n_train)
    rows += sample_rows(manifest.rows("val"), VAL_IMAGES)
    return dataclasses.replace(manifest, images=tuple(rows))
