"""Tasks: each defines a kind of label and everything that depends on it.

A task is one implementation of `rootstock.tasks.task.Task`. It is registered here by name, with the
modules of the task and of its answer type. Neither is imported before it is needed, so that a
client without numpy can read answers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from rootstock.errors import ConfigError

if TYPE_CHECKING:
    from rootstock.tasks.answer import Answer
    from rootstock.tasks.task import Task


class Place(NamedTuple):
    """The module and the name of a class."""

    module: str
    attribute: str


class Registration(NamedTuple):
    """The places of a task and of its answer type."""

    task: Place
    answer: Place


AUTO = "auto"
"""The value of `task.name` with which the data decides."""
DEFAULT_TASK = "single_label"

# In the order in which they are tried on data: special tasks come first.
_TASKS = {
    "localisation": Registration(
        Place("rootstock.tasks.localisation.task", "Localisation"),
        Place("rootstock.tasks.localisation.answer", "BoxAnswer"),
    ),
    "segmentation": Registration(
        Place("rootstock.tasks.segmentation.task", "Segmentation"),
        Place("rootstock.tasks.segmentation.answer", "MaskAnswer"),
    ),
    "single_label": Registration(
        Place("rootstock.tasks.single_label.task", "SingleLabel"),
        Place("rootstock.tasks.single_label.answer", "ClassAnswer"),
    ),
    "multi_label": Registration(
        Place("rootstock.tasks.multi_label.task", "MultiLabel"),
        Place("rootstock.tasks.multi_label.answer", "LabelsAnswer"),
    ),
    "regression": Registration(
        Place("rootstock.tasks.regression.task", "Regression"),
        Place("rootstock.tasks.regression.answer", "NumbersAnswer"),
    ),
}


def register_task(name: str, *, task: Place, answer: Place) -> None:
    """Register a task under ``name``."""
    _TASKS[name] = Registration(task, answer)


def task_names() -> list[str]:
    """Return the names of all tasks, sorted."""
    return sorted(_TASKS)


def listed_tasks() -> list[str]:
    """Return the names of all tasks, in the order in which they are tried on data."""
    return list(_TASKS)


def get_task(name: str) -> Task:
    """Return the task with this name.

    Raises:
        ConfigError: there is no such task.
    """
    task: Task = _load(find_registration(name).task)()
    return task


def answer_type(name: str) -> type[Answer]:
    """Return the type of the answers of a task.

    Raises:
        ConfigError: there is no such task.
    """
    kind: type[Answer] = _load(find_registration(name).answer)
    return kind


def find_registration(name: str) -> Registration:
    """Return the places of a task, so that another process can register it.

    Raises:
        ConfigError: there is no such task.
    """
    try:
        return _TASKS[name]
    except KeyError:
        raise ConfigError(
            f"there is no task {name!r}",
            hint=f"task.name may be: {', '.join([AUTO, *task_names()])}",
        ) from None


def _load(place: Place) -> Any:
    return getattr(import_module(place.module), place.attribute)
