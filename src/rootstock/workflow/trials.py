"""What the trials of a search came to: the best, whether the head stays, and why, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rootstock.errors import TrainingError
from rootstock.metrics import lead
from rootstock.ports.search import Trial
from rootstock.system.files import read_json
from rootstock.train.finetune import HISTORY

METRIC = "val_log_loss"
"""What trials are chosen by: it moves where accuracy, on few validation images, cannot."""


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


def is_spoilt(
    head: Trial, tuned: Trial, *, head_losses: np.ndarray, tuned_losses: np.ndarray
) -> bool:
    """Whether the head is better than the network that was fine-tuned from it, beyond the noise.

    Fine-tuning can spoil good features when images are few; accuracy alone would decide by chance.
    Losses are the calibrated ones float[V] of the validation images.
    """
    ahead, noise = lead(head_losses, tuned_losses)
    return tuned.metrics["val_accuracy"] <= head.metrics["val_accuracy"] and ahead > noise


def which_won(best: Trial, head: Trial, tuned: Sequence[Trial], losses: Sequence[float]) -> str:
    """One line for people: what was kept, and what it was compared with.

    ``losses`` are the calibrated ones of the head and, if there was one, its rival.
    """
    if not tuned:
        return f"the head at `{head.params['tap']}`, calibrated validation loss {losses[0]:.4f}"
    if "tap" in best.params:
        return (
            f"the head, which fine-tuning did not improve, calibrated validation loss "
            f"{losses[0]:.4f} against {losses[1]:.4f}"
        )
    kind, averaged = "one fine-tuned trial", best.params.get("average_of", 0)
    if averaged:
        trials = f"{averaged} fine-tuned trials" if averaged > 1 else "one fine-tuned trial"
        start = " and the network before fine-tuning" if "with_start" in best.params else ""
        kind = f"the average of {trials}{start}"
    line = f"{kind}, calibrated validation loss {losses[1]:.4f} against the head's {losses[0]:.4f}"
    if averaged:
        single = best_trial(tuned).metrics[METRIC]
        line += f"; uncalibrated {best.metrics[METRIC]:.4f}, the best single trial {single:.4f}"
    return line


def as_records(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Trials as JSON holds them."""
    return [
        {"params": dict(t.params), "metrics": dict(t.metrics), "error": t.error} for t in trials
    ]
