"""What the trials of a search came to: the best, whether the head stays, and why, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rootstock.data.files import read_json
from rootstock.errors import TrainingError
from rootstock.ports import Trial
from rootstock.train.finetune import HISTORY

METRIC = "val_log_loss"
"""What trials are chosen by: it moves where accuracy, on few validation images, cannot."""
CALIBRATED = "val_calibrated_log_loss"
"""The same with the temperature fitted, as a model is served. A head and a fine-tuned network are
compared by it: a strong penalty leaves a head less sure than it could be, and no less right."""


def by_best_epoch(trial: Trial) -> Trial:
    """A trial that was ended early counts with the epoch whose weights it kept."""
    history = trial.directory / HISTORY
    if trial.error or "best_epoch" in trial.metrics or not history.exists():
        return trial
    epochs = read_json(history, made_by="train")["epochs"]
    best = min(range(len(epochs)), key=lambda number: epochs[number][METRIC])
    return replace(trial, metrics=epochs[best] | {"best_epoch": best + 1.0})


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The trial with the lowest validation log-loss.

    Raises:
        TrainingError: every trial failed; the message holds their errors.
    """
    done = [trial for trial in trials if not trial.error]
    if not done:
        errors = "\n".join(f"  {dict(trial.params)}: {trial.error}" for trial in trials)
        raise TrainingError(f"all {len(trials)} trials failed:\n{errors}")
    return min(done, key=lambda trial: trial.metrics[METRIC])


def keep_head_if_better(head: Trial, tuned: Trial) -> Trial:
    """The fine-tuned trial, but the head it started from where that is better by both measures.

    Fine-tuning can spoil good features when images are few; accuracy alone would decide by chance.
    """
    worse = tuned.metrics["val_accuracy"] <= head.metrics["val_accuracy"]
    less_sure = tuned.metrics[CALIBRATED] > head.metrics[CALIBRATED]
    return head if worse and less_sure else tuned


def which_won(best: Trial, head: Trial, single: Trial | None) -> str:
    """One line for people: what was kept, and what it was compared with.

    ``single`` is the best fine-tuned trial, if there was one. All have their `CALIBRATED` loss.
    """
    measured = f"calibrated validation loss {best.metrics[CALIBRATED]:.4f}"
    if single is None:
        return f"the head at `{best.params['tap']}`, {measured}"
    rivals = [f"the head's {head.metrics[CALIBRATED]:.4f}"]
    if "average_of" in best.params or "tap" in best.params:
        rivals.append(f"the best single trial's {single.metrics[CALIBRATED]:.4f}")
    kind = "one fine-tuned trial"
    if "average_of" in best.params:
        kind = f"the average of {best.params['average_of']} fine-tuned trials"
    if "tap" in best.params:
        kind, rivals = "the head, which fine-tuning did not improve", rivals[1:]
    return f"{kind}, {measured} against {' and '.join(rivals)}"


def as_records(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Trials as JSON holds them."""
    return [
        {"params": dict(t.params), "metrics": dict(t.metrics), "error": t.error} for t in trials
    ]
