"""Find the task for data: from the settings, or from the data itself."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rootstock.data.coco import COCO_ENDING
from rootstock.data.columns import ColumnRoles, Columns
from rootstock.data.entry import TABLE_ENDINGS
from rootstock.errors import DataError
from rootstock.tasks import AUTO, DEFAULT_TASK, get_task, listed_tasks
from rootstock.tasks.task import Task


class FoundTask(NamedTuple):
    """A task; ``reason`` says how it was recognised, empty if the settings name it."""

    task: Task
    reason: str


def find_task(name: str, root: Path, roles: ColumnRoles) -> FoundTask:
    """Return the task ``name``; `auto`: the first one that matches the data.

    Data that matches no task is left to the default task, whose error says what is missing.
    Raises:
        ConfigError: there is no such task.
        DataError: the table cannot be read.
    """
    if name != AUTO:
        return FoundTask(get_task(name), "")
    columns = None
    if root.is_file() and root.suffix.lower() in (*TABLE_ENDINGS, COCO_ENDING):
        columns = Columns.read(root, roles)
        if not columns.find("path"):
            return FoundTask(get_task(DEFAULT_TASK), "")
    for task in map(get_task, listed_tasks()):
        if reason := task.recognise(root, columns):
            return FoundTask(task, reason)
    if columns is not None:
        raise DataError(
            f"{root} has no columns with labels; its columns are {columns.describe_names()}",
            hint="add a column `label` (one class), `labels` (several) or `target` (a number), "
            "name yours with data.columns, such as {label: species}, or set task.name",
        )
    return FoundTask(get_task(DEFAULT_TASK), "")
