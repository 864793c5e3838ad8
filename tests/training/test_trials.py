"""Names of trials, and the settings that a plan gives them."""

import dataclasses

import numpy as np
import pytest

from rootstock.config.schema import TrainConfig
from rootstock.plan.transfer_plan import FinetuneRecipe
from rootstock.training.compute import Compute
from rootstock.training.optim import FinetuneSettings
from rootstock.training.trials import FinetunedTrial, HeadTrial, best_head, trained_strategy

LAST, EARLIER = (HeadTrial({"tap": tap}, {}, None) for tap in ("last", "block2"))
TUNED = FinetunedTrial({"learning_rate": 1e-3}, {}, None)


@pytest.mark.parametrize(
    ("trial", "planned", "strategy"),
    [
        (TUNED, "partial_finetune", "partial_finetune"),
        (LAST, "partial_finetune", "linear_probe"),
        (EARLIER, "full_finetune", "early_features"),
        (LAST, "linear_probe", "linear_probe"),
        (EARLIER, "early_features", "early_features"),
        (EARLIER, "linear_probe", "early_features"),
        (LAST, "early_features", "linear_probe"),
    ],
)
def test_a_kept_head_is_not_called_fine_tuned(trial, planned, strategy):
    assert trained_strategy(trial, planned) == strategy


RECIPE = FinetuneRecipe(
    freeze_through="block2",
    batchnorm="train",
    layer_decay=0.7,
    head_multiplier=2.0,
    epochs=11,
    augmentation="strong",
    flip=True,
)


def test_settings_of_fine_tuning_are_plans_and_users():
    options = TrainConfig(
        epochs=3,
        batch_size=5,
        weight_decay=0.3,
        label_smoothing=0.2,
        patience=9,
        optimizer="sgd",
        ema_decay=0.8,
        micro_batch=4,
        mixup=0.6,
        cutmix=0.4,
        local_warp=0.03,
        channel_shift=0.1,
        recompute=True,
        class_weight="balanced_sampling",
    )
    compute = Compute(device="cpu", channels_last=True, bfloat16=True)
    settings = FinetuneSettings.from_plan(RECIPE, options, n_train=10, seed=6, compute=compute)
    assert dataclasses.asdict(settings) == {
        "learning_rate": 0.0,
        "epochs": 11,
        "batch_size": 5,
        "freeze_through": "block2",
        "batchnorm": "train",
        "layer_decay": 0.7,
        "head_multiplier": 2.0,
        "weight_decay": 0.3,
        "label_smoothing": 0.2,
        "patience": 9,
        "augmentation": "strong",
        "flip": True,
        "seed": 6,
        "optimizer": "sgd",
        "ema_decay": 0.8,
        "micro_batch": 4,
        "mixup": 0.6,
        "cutmix": 0.4,
        "local_warp": 0.03,
        "channel_shift": 0.1,
        "norm_only": False,
        "weighting": "balanced_sampling",
        "recompute": True,
        "compute": compute,
    }


def a_head(folder, tap, losses, **params):
    directory = folder / f"{tap}-{len(params)}"
    directory.mkdir()
    if not params:
        np.save(directory / "unseen.npy", np.array(losses))
    return HeadTrial({"tap": tap} | params, {"unseen_loss": float(np.mean(losses))}, directory)


@pytest.mark.parametrize(
    ("joined", "taken"),
    [([0.1, 0.2, 0.3, 0.25], "block1+last"), ([0.1, 0.9, 0.3, 0.4], "last")],
)
def test_preferred_of_equally_good_heads_is_used(tmp_path, joined, taken):
    heads = [
        a_head(tmp_path, "last", [0.4, 0.6, 0.5, 0.5]),
        a_head(tmp_path, "block1+last", joined),
    ]
    assert best_head(heads, "val_loss").tap == taken


def test_class_means_that_are_best_are_taken(tmp_path):
    linear = a_head(tmp_path, "last", [0.4, 0.6, 0.5, 0.5])
    means = a_head(tmp_path, "last", [0.4, 0.6, 0.5, 0.4], prototypes=True)
    assert best_head([linear, means], "val_loss") is means


def test_head_without_image_losses_uses_mean(tmp_path):
    heads = [a_head(tmp_path, tap, [loss]) for tap, loss in (("last", 0.5), ("block1", 0.4))]
    for head in heads:
        (head.directory / "unseen.npy").unlink()
    assert best_head(heads, "val_loss").tap == "block1"
