"""The further networks of an ensemble: trained like the chosen one, with other seeds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from safetensors.torch import load_file

from rootstock.metrics import lead
from rootstock.ports.search import Searcher
from rootstock.training.ensemble import EnsembleNet
from rootstock.training.finetune import BEST, write_weights
from rootstock.training.predict import validate
from rootstock.training.selection import is_sure_gain
from rootstock.training.tracked import Tracking
from rootstock.training.training_job import TrainingJob
from rootstock.training.trials import FinetunedTrial, HeadTrial

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ensemble:
    """The result of training an ensemble: the trainings of its networks, and the decision.

    ``trial`` is the one to keep: the ensemble, or the first network. ``networks`` is the number of
    averaged networks, and ``why`` the reason in one line. ``average`` is the ensemble, kept or
    not; None if there was only one network.
    """

    trial: HeadTrial | FinetunedTrial
    networks: int
    trainings: Sequence[FinetunedTrial]
    why: str
    average: FinetunedTrial | None = None


def train_ensemble(
    job: TrainingJob,
    searcher: Searcher,
    tracking: Tracking,
    *,
    head: HeadTrial,
    first: FinetunedTrial,
    tuned: Sequence[FinetunedTrial],
    seconds: float | None,
) -> Ensemble:
    """Train networks like ``first``, and keep their average if its gain is beyond chance.

    ``first`` is one of the trials ``tuned``, which started from ``head``, or an average of them;
    the other networks come from the same number of trainings. After ``seconds`` trainings end
    early.
    """
    parts = [trial for trial in tuned if not trial.error] if first.average_of else [first]
    seeds = range(job.seed + 1, job.seed + job.options.ensemble)
    recipes = [{**trial.params, "seed": seed} for seed in seeds for trial in parts]
    trainings = job.search_finetuning(searcher, tracking, head, candidates=recipes, seconds=seconds)
    members = [first]
    for number in range(len(seeds)):
        own = trainings[number * len(parts) : (number + 1) * len(parts)]
        failed = next((trial for trial in own if trial.error), None)
        if failed:
            log.warning("a network of the ensemble failed and is ignored: %s", failed.error)
        else:
            members.append(_like(job, first, own, head, name=f"member-{number + 2}"))
    if len(members) == 1:
        return Ensemble(first, 1, trainings, "no further network could be trained")
    joined = _join(job, members)
    of_one, of_all = (job.calibrated_losses(trial) for trial in (first, joined))
    ahead, noise = lead(of_all, of_one)
    is_kept = is_sure_gain(ahead, noise)
    why = (
        f"the average of {len(members)} networks has a calibrated validation loss of "
        f"{of_all.mean():.4f} against {of_one.mean():.4f} of one (a gain of {ahead:.4f} ± "
        f"{noise:.4f}), {'beyond' if is_kept else 'not beyond'} chance: "
    )
    if is_kept:
        why += f"it is kept, at {len(members)} forward passes per image"
        return Ensemble(joined, len(members), trainings, why, joined)
    return Ensemble(first, 1, trainings, why + "one network is kept", joined)


def _like(
    job: TrainingJob,
    first: FinetunedTrial,
    trainings: Sequence[FinetunedTrial],
    head: HeadTrial,
    *,
    name: str,
) -> FinetunedTrial:
    """Return the network from ``trainings`` in the way that ``first`` was made from others."""
    if not first.average_of:
        return trainings[0]
    states = [load_file(trial.directory / BEST) for trial in trainings]
    if first.with_start:
        states.append(job.start_weights(head))
    return job.average(states, first.params, name=name)


def _join(job: TrainingJob, members: Sequence[FinetunedTrial]) -> FinetunedTrial:
    """Return the ensemble of several networks, written as one, with its validation metrics."""
    network = EnsembleNet([job.build_network(trial) for trial in members], job.data.task)
    directory = job.directory / f"ensemble-of-{len(members)}"
    write_weights(network, directory / BEST)
    metrics = validate(network, job.data.validation_images(), job.data.task)
    params = {**members[0].params, "networks": len(members)}
    return FinetunedTrial(params, metrics, directory)
