"""One heat of a race: a contender is trained, and measured on the validation images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from rootstock.data.manifest import Manifest
from rootstock.heads.linear import split_folds
from rootstock.metrics import lead
from rootstock.plan.race_rules import ALL_RATES_MAX_IMAGES, RATE_EPOCHS, lower_rate
from rootstock.plan.transfer_plan import Heat
from rootstock.ports.runs import NullRunLogger
from rootstock.ports.search import Searcher
from rootstock.system.progress import say
from rootstock.tasks.dataset import Dataset
from rootstock.training.tracked import Tracking
from rootstock.training.training_job import TrainingJob
from rootstock.training.trials import FinetunedTrial, HeadTrial, best_head


@dataclass(frozen=True)
class RunHeat:
    """A heat, the calibrated loss float[V] of each validation image, and the winning rates."""

    heat: Heat
    losses: np.ndarray
    won_rates: tuple[float, ...] = ()


def run_heat(
    job: TrainingJob,
    searcher: Searcher,
    *,
    free_rates: bool,
    rates: Sequence[float] | None = None,
) -> RunHeat:
    """Train a contender; fine-tuning uses ``rates``, by default those of the job's plan.

    ``free_rates``: the learning rate is part of the race. Except on few images, each rate is tried
    briefly and the better one is fully trained. If that ends below the head that it started from,
    the next lower rate is trained too.
    """
    tracking = Tracking(NullRunLogger(), "", {})
    best: HeadTrial | FinetunedTrial
    task, valid = job.data.task, True
    trained: tuple[float, ...] = ()
    with searcher.session():
        best = head = best_head(job.search_heads(searcher, tracking), task.selection)
        losses = job.calibrated_losses(head)
        if job.plan.finetune:
            planned = tuple(one["learning_rate"] for one in job.plan.finetune_candidates)
            start, tune = losses, partial(_tune, job, searcher, tracking, head)
            trained = planned if rates is None else tuple(rates)
            if free_rates and len(job.data.rows("train")) > ALL_RATES_MAX_IMAGES:
                trained = (_best_rate(job, searcher, tracking, head, trained),)
            best, losses = tune(trained)
            valid = not _is_below(losses, start)
            if not valid and free_rates:
                trained = (lower_rate(min(trained), planned),)
                say(f"race: fine-tuning ended below its head; trying the rate {trained[0]:g}")
                best, losses = tune(trained)
                valid = not _is_below(losses, start)
    heat = Heat(
        strategy=job.plan.strategy,
        n_train=len(job.data.rows("train")),
        n_val=len(job.data.rows("val")),
        epochs=job.plan.finetune.epochs if job.plan.finetune else 0,
        accuracy=round(best.metrics[task.val_score], 4),
        log_loss=round(float(losses.mean()), 4),
        rates=trained,
        valid=valid,
    )
    rate = best.params.get("learning_rate")
    return RunHeat(heat, losses, trained if rate is None else (float(rate),))


def pool_heats(heats: Sequence[RunHeat]) -> RunHeat:
    """Return the heats of one contender on several splits as one, based on the first split.

    The splits share no validation image, so their losses are one sample.
    """
    first, losses = heats[0], np.concatenate([one.losses for one in heats])
    n_val = [one.heat.n_val for one in heats]
    accuracy = np.average([one.heat.accuracy for one in heats], weights=n_val)
    pooled = {
        "n_val": sum(n_val),
        "accuracy": round(float(accuracy), 4),
        "log_loss": round(float(losses.mean()), 4),
        "valid": any(one.heat.valid for one in heats),
        "splits": len(heats),
    }
    return RunHeat(first.heat.model_copy(update=pooled), losses, first.won_rates)


def further_splits(manifest: Manifest, *, n_val: int, count: int, seed: int) -> list[Manifest]:
    """Return ``count`` manifests with other validation images; no two share one.

    About ``n_val`` of the training images are exchanged with those of validation. Groups stay
    whole. Strata with too few groups to divide stay in training; if this leaves only one of several
    strata, there are no further splits.
    """
    rows = manifest.rows("train")
    targets = Dataset.of(manifest).targets_of(rows)
    n_folds = max(count + 1, round(len(rows) / n_val))
    groups = np.arange(len(rows)) if targets.groups is None else targets.groups
    pairs = np.unique(np.stack([targets.strata, groups]), axis=1)
    strata, sizes = np.unique(pairs[0], return_counts=True)
    several = strata[sizes >= n_folds]
    if len(several) < min(2, len(strata)):
        return []
    divided = np.flatnonzero(np.isin(targets.strata, several))
    folds = split_folds(targets.strata[divided], n_folds, seed, groups[divided])
    return [_swap(manifest, {rows[i].path for i in divided[fold]}) for fold in folds[:count]]


def _swap(manifest: Manifest, chosen: set[str]) -> Manifest:
    """Return the manifest with the ``chosen`` images for validation, the others for training."""
    train = {"val": "train", "train": "train"}
    images = [
        row._replace(split="val" if row.path in chosen else train.get(row.split, row.split))
        for row in manifest.images
    ]
    return dataclasses.replace(manifest, images=tuple(images))


def _tune(
    job: TrainingJob,
    searcher: Searcher,
    tracking: Tracking,
    head: HeadTrial,
    rates: Sequence[float],
) -> tuple[FinetunedTrial, np.ndarray]:
    """Return the best of the trainings at ``rates`` and of their averages, with its losses."""
    candidates = [{"learning_rate": rate} for rate in rates]
    trials = job.search_finetuning(searcher, tracking, head, candidates=candidates)
    return job.best_tuned(head, trials)


def _best_rate(
    job: TrainingJob,
    searcher: Searcher,
    tracking: Tracking,
    head: HeadTrial,
    rates: Sequence[float],
) -> float:
    """Return the best rate after `RATE_EPOCHS`, the lowest of equally good ones."""
    if len(rates) == 1:
        return rates[0]
    candidates = [{"learning_rate": rate, "epochs": RATE_EPOCHS} for rate in rates]
    trials = job.search_finetuning(searcher, tracking, head, candidates=candidates)
    return float(job.choose_tuned(trials)[0].params["learning_rate"])


def _is_below(losses: np.ndarray, start: np.ndarray) -> bool:
    """Return whether ``losses`` are higher than those of ``start`` beyond the noise."""
    ahead, noise = lead(start, losses)
    return ahead > noise
