"""Draw pictures of a training into the folder of the reports."""

from __future__ import annotations

from pathlib import Path

import torch

from rootstock.plots.sheet import plot_rows
from rootstock.plots.training import plot_head_search, plot_training_curves
from rootstock.training.augment import show_changes
from rootstock.training.training_job import TrainingJob
from rootstock.training.trials import FinetunedTrial, HeadTrial, best_trial
from rootstock.workflow.choice import SearchResult

TRAINING_PICTURES = "plots/training"
HEADS, EPOCHS, AUGMENTATIONS = "heads.png", "finetuning.png", "augmentations.png"
EXAMPLES = 5
"""Images on which the augmentations are shown."""


def draw_training(
    folder: Path, job: TrainingJob, result: SearchResult, chosen: HeadTrial | FinetunedTrial
) -> None:
    """Draw the search of the head and, after fine-tuning, its epochs and augmentations."""
    metric = job.data.task.selection
    scores = {
        trial.name: trial.losses_by_penalty(metric)
        for trial in result.raced or result.heads
        if not trial.error and not trial.prototypes
    }
    best = (chosen.name, chosen.l2) if isinstance(chosen, HeadTrial) and chosen.l2 else None
    plot_head_search(scores, folder / HEADS, metric=metric, best=best)
    if result.tuned:
        curves = {
            trial.name: [epoch[metric] for epoch in trial.epochs()]
            for trial in result.tuned
            if not trial.error
        }
        plot_training_curves(
            curves, folder / EPOCHS, metric=metric, best=best_trial(result.tuned, metric).name
        )
        _draw_augmentations(folder / AUGMENTATIONS, job)


def _draw_augmentations(path: Path, job: TrainingJob) -> None:
    assert job.plan.finetune
    shown = show_changes(
        torch.from_numpy(job.data.sample_pixels(EXAMPLES)),
        output_size=job.plan.input_size,
        level=job.plan.finetune.augmentation,
        flip=job.plan.finetune.flip,
        seed=job.seed,
        local_warp=0.0 if job.data.task.spatial else job.options.local_warp,
        channel_shift=job.options.channel_shift,
    )
    about = "one change at a time, then all together"
    rows = {name: list(images.numpy()) for name, images in shown.items()}
    plot_rows(rows, path, headlines=("Effect of augmentation", about))
