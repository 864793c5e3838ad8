"""Settings that depend on the task: told before the work."""

from __future__ import annotations

from rootstock.config.schema import Config
from rootstock.errors import ConfigError
from rootstock.plan.pins import AUTO
from rootstock.tasks.task import Task


def gate_metric(config: Config, task: Task) -> str:
    """Return the metric that the gate compares."""
    metric = config.registry.gate.metric
    return task.headline if metric == AUTO else metric


def check_task(config: Config, task: Task) -> None:
    """Refuse settings that have no meaning for ``task``.

    Raises:
        ConfigError: names the setting and what it may be.
    """
    settings = {
        "train.class_weight": (config.train.class_weight, task.weightings),
        "registry.gate.metric": (config.registry.gate.metric, (AUTO, *task.gate_metrics)),
    }
    for key, (value, allowed) in settings.items():
        if value not in allowed:
            raise ConfigError(
                f"{key} is `{value}`, which the task `{task.name}` does not have",
                hint=f"it may be: {', '.join(allowed)}",
            )
