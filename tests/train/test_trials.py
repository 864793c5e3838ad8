"""What a trial is called, and what a plan makes of the settings of one."""

import dataclasses

import pytest

from rootstock.config.schema import TrainConfig
from rootstock.plan.transfer_plan import FinetuneRecipe
from rootstock.train.compute import Compute
from rootstock.train.optim import FinetuneSettings
from rootstock.train.trials import FinetunedTrial, HeadTrial, trained_strategy

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


def test_settings_of_fine_tuning_are_the_plans_and_the_users():
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
        "weighting": "balanced_sampling",
        "recompute": True,
        "compute": compute,
    }
