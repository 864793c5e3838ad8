"""Settings that depend on the task.

The index checks them before the work starts. A stage that uses one checks it again: under DVC a
change of them does not run the index.
"""

from __future__ import annotations

from collections.abc import Sequence

from rootstock.config.schema import Config
from rootstock.errors import ConfigError
from rootstock.plan.pins import AUTO
from rootstock.plan.rules import is_finetune
from rootstock.tasks.task import Task


def gate_metric(config: Config, task: Task) -> str:
    """Return the metric that the gate compares.

    Raises:
        ConfigError: the task does not have the configured metric.
    """
    metric = config.registry.gate.metric
    _require("registry.gate.metric", metric, (AUTO, *task.gate_metrics), task)
    return task.headline if metric == AUTO else metric


def check_class_weight(config: Config, task: Task) -> None:
    """Refuse a `train.class_weight` that the task does not have.

    Raises:
        ConfigError: names the allowed values.
    """
    _require("train.class_weight", config.train.class_weight, task.weightings, task)


def check_ensemble(config: Config, task: Task) -> None:
    """Refuse a `train.ensemble` of networks that would be equal, or cannot be averaged.

    Raises:
        ConfigError: says why.
    """
    count, strategy = config.train.ensemble, config.plan.strategy
    if count == 1:
        return
    if not task.averages_networks:
        raise ConfigError(
            f"train.ensemble is {count}, but outputs of the task `{task.name}` cannot be averaged",
            hint="set train.ensemble to 1, or give the task a method `average` (docs/tasks.md)",
        )
    if strategy != AUTO and not is_finetune(strategy):
        raise ConfigError(
            f"train.ensemble is {count}, but plan.strategy is `{strategy}`: a head on frozen "
            "features is the same for every seed",
            hint="set train.ensemble to 1, or choose a strategy that fine-tunes",
        )


def check_task(config: Config, task: Task) -> None:
    """Refuse settings that have no meaning for ``task``.

    Raises:
        ConfigError: names the setting and its allowed values.
    """
    check_class_weight(config, task)
    check_ensemble(config, task)
    task.check_threshold(config.task.threshold)
    gate_metric(config, task)
    if task.spatial:
        train = config.train
        _require("data.geometry", config.data.geometry, (AUTO, "squash"), task)
        _require("train.views", train.views, ("one",), task)
        _require("train.mixup", str(train.mixup), (AUTO, "0.0"), task)
        _require("train.cutmix", str(train.cutmix), ("0.0",), task)
    if task.output_grid:
        _require("train.mlp_hidden", str(config.train.mlp_hidden or "null"), ("null",), task)


def _require(key: str, value: str, allowed: Sequence[str], task: Task) -> None:
    if value not in allowed:
        raise ConfigError(
            f"{key} is `{value}`, but the task `{task.name}` does not support it",
            hint=f"allowed values: {', '.join(allowed)}",
        )
