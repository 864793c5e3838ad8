"""The race of two strategies: small training jobs on a part of the images, before the plan."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rootstock.assess.build import sample_rows
from rootstock.assess.profile import DatasetProfile
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.data.layout import base_folder
from rootstock.data.manifest import Manifest
from rootstock.errors import ArtifactError
from rootstock.features.store.store import FeatureStore
from rootstock.metrics import lead
from rootstock.plan import rules
from rootstock.plan.pins import AUTO, Pins
from rootstock.plan.plan import Heat, Race, TransferPlan
from rootstock.plan.planner import make_transfer_plan
from rootstock.plan.race import EPOCHS, decide, is_settled, is_whole, race_rates, round_sizes
from rootstock.plan.rules import Strategy
from rootstock.ports.runs import NullRunLogger
from rootstock.ports.search import Searcher
from rootstock.system.digest import digest_json
from rootstock.train.objectives import Tracking
from rootstock.workflow.features import load_planned_backbone
from rootstock.workflow.training_job import TrainingJob, job_name, planned_compute
from rootstock.workflow.trials import best_trial

log = logging.getLogger(__name__)

VERSION = 3
"""Raised whenever the same contest would be judged another way."""
VAL_IMAGES = 1000
"""At most so many validation images judge a heat: their noise is below a point then."""


def run_race(
    config: Config,
    paths: Paths,
    *,
    profile: DatasetProfile,
    contest: Sequence[Strategy],
    pins: Pins,
    searcher: Searcher,
) -> Race:
    """Train the two strategies of ``contest``, the preferred one first; a round, or two in doubt.

    On few images it is the training itself, which then finds the winner's trials done. The outcome
    is kept in .rootstock/races, so that the same race is run once.
    Raises:
        TrainingError: a contender could not be trained.
    """
    name = _identity(config, profile, contest, pins)
    memory = paths.races / f"{name}.json"
    if memory.exists():
        try:
            return Race.read(memory)
        except ArtifactError as error:
            log.warning("%s; the race is run again", error)
    manifest = Manifest.read(paths.manifest)
    heats: list[Heat] = []
    homes: dict[Strategy, Path] = {}
    losses: dict[Strategy, np.ndarray] = {}
    for n_train in round_sizes(profile.n_train):
        whole = is_whole(profile.n_train)
        part = manifest if whole else _part_of(manifest, n_train)
        for strategy in contest:
            log.info("race: %s on %d training images", strategy, n_train)
            plan = make_transfer_plan(
                profile,
                pins=_short(pins, strategy, n_train=n_train, whole=whole),
                l2_grid=config.train.l2_grid,
            )
            home = paths.races / name / f"{strategy}-{n_train}"
            if whole:
                home = paths.trials / job_name(config, manifest, plan)
            heat, losses[strategy] = _run_heat(config, paths, part, plan, home, searcher)
            heats.append(heat)
            homes[strategy] = home
        if is_settled(*heats[-2:]):
            break
    _, noise = lead(*(losses[strategy] for strategy in contest))
    race = decide(heats, noise=noise, similar=profile.similarity.similar)
    race.write(memory)
    shutil.rmtree(paths.races / name, ignore_errors=True)
    for strategy, home in homes.items():
        if strategy != race.winner:
            shutil.rmtree(home, ignore_errors=True)
    return race


def _identity(
    config: Config, profile: DatasetProfile, contest: Sequence[Strategy], pins: Pins
) -> str:
    parts = [
        VERSION,
        profile.model_dump(mode="json"),
        list(contest),
        dataclasses.asdict(pins),
        config.train.model_dump(mode="json"),
        [_rates(strategy, profile.n_train) for strategy in contest],
        config.seed,
    ]
    return digest_json(parts, digits=16)


def _rates(strategy: Strategy, n_train: int) -> tuple[float, ...]:
    return race_rates(strategy, rules.learning_rates(strategy, n_train), n_train)


def _part_of(manifest: Manifest, n_train: int) -> Manifest:
    rows = sample_rows(manifest.rows("train"), n_train)
    rows += sample_rows(manifest.rows("val"), VAL_IMAGES)
    return dataclasses.replace(manifest, images=tuple(rows))


def _short(pins: Pins, strategy: Strategy, *, n_train: int, whole: bool) -> Pins:
    """The rates of a race, and few epochs unless it is the ``whole`` training."""
    pins = dataclasses.replace(pins, strategy=strategy)
    if not rules.is_finetune(strategy):
        return pins
    if pins.learning_rates == AUTO:
        pins = dataclasses.replace(pins, learning_rates=_rates(strategy, n_train))
    return pins if whole else dataclasses.replace(pins, epochs=EPOCHS)


def _run_heat(
    config: Config,
    paths: Paths,
    part: Manifest,
    plan: TransferPlan,
    home: Path,
    searcher: Searcher,
) -> tuple[Heat, np.ndarray]:
    """The heat, and the calibrated log-loss float[V] of each validation image."""
    backbone = load_planned_backbone(plan, device=config.train.device)
    job = TrainingJob(
        config=config,
        manifest=part,
        plan=plan,
        root=base_folder(paths.below(config.data.root)),
        store=FeatureStore(paths.below(config.features.store)),
        backbone=backbone,
        preprocess=backbone.card.preprocess(plan.input_size),
        directory=home,
        compute=planned_compute(paths, plan, backbone),
    )
    tracking = Tracking(NullRunLogger(), "", {})
    with searcher.session():
        best = best_trial(job.search_heads(searcher, tracking))
        if plan.finetune:
            tuned = job.search_finetuning(searcher, tracking, best)
            best = job.best_tuned(best, tuned)
    losses = job.calibrated_losses(best)
    heat = Heat(
        strategy=plan.strategy,
        n_train=len(part.rows("train")),
        n_val=len(part.rows("val")),
        epochs=plan.finetune.epochs if plan.finetune else 0,
        accuracy=round(best.metrics["val_accuracy"], 4),
        log_loss=round(float(losses.mean()), 4),
    )
    return heat, losses
