"""Feedback: true labels of images that a service answered, and the resulting model quality.

`feedback.csv` in the journal's folder has one row per label, with the answer that it judges. Rows
are only added; the last row for an image of a request counts.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from rootstock.errors import DataError
from rootstock.metrics import wilson_interval
from rootstock.system.append import append_text
from rootstock.tasks import get_task
from rootstock.tasks.task import Task

FILE_NAME = "feedback.csv"
Z_95 = 1.96


class UnknownRequestError(DataError):
    """The journal has no answer with this request id."""

    code = "unknown-request"


class AmbiguousRequestError(DataError):
    """It is unclear which answer is meant, or which task it has."""

    code = "ambiguous-request"


@dataclass(frozen=True)
class Feedback:
    """One row: the true ``label`` of an image, and the ``answer`` to its request.

    ``score`` is the result of `Task.judge` for the answer.
    """

    request_id: str
    sha256: str
    label: str
    who: str
    when: str
    model: str
    version: str
    task: str
    answer: str
    score: float


class LiveScore(NamedTuple):
    """A mean of scores with its 95 % interval and number of images."""

    metric: str
    value: float
    low: float
    high: float
    images: int


COLUMNS = tuple(one.name for one in fields(Feedback))


def judge_answer(
    answers: Sequence[Mapping[str, Any]], label: str, *, sha256: str = "", who: str = ""
) -> Feedback:
    """Return the feedback on one of the ``answers`` of a request, as the journal has them.

    ``sha256`` selects one of several images.
    Raises:
        UnknownRequestError: There is no such answer.
        AmbiguousRequestError: The request has several images, and ``sha256`` is empty.
        DataError: The label is not valid for the task.
    """
    if not label.isprintable():
        raise DataError("the label contains a line break or another control character")
    some = [row for row in answers if not sha256 or row["sha256"] == sha256]
    if not some:
        what = "image with this SHA-256" if answers else "request with this id"
        raise UnknownRequestError(
            f"the journal has no {what}",
            hint="the id is in the answer's header X-Request-ID; answers that are missing from "
            "the journal cannot be judged",
        )
    if len({row["sha256"] for row in some}) > 1:
        raise AmbiguousRequestError(
            f"the request has {len(some)} images",
            hint="choose one by the SHA-256 of its file (sha256)",
        )
    row = some[-1]
    name = row.get("task")
    if not name:
        raise AmbiguousRequestError(
            "an older Rootstock wrote this answer to the journal, without its task",
            hint="send feedback on newer answers",
        )
    task = get_task(str(name))
    return Feedback(
        request_id=str(row["request_id"]),
        sha256=str(row["sha256"]),
        label=label,
        who=" ".join(who.split()),
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        model=str(row["model"]),
        version=str(row["version"]),
        task=task.name,
        answer=task.answer_text(row),
        score=round(task.judge(row, label), 6),
    )


def append_feedback(folder: Path, rows: Sequence[Feedback]) -> None:
    """Add rows to the file in a journal's folder: all of them or none.

    Raises:
        ArtifactError: The file cannot be written.
    """
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(map(astuple, rows))
    if rows:
        append_text(folder / FILE_NAME, buffer.getvalue(), header=",".join(COLUMNS))


@dataclass
class FeedbackLog:
    """The feedback in a journal's folder; each read continues where the last one ended.

    An unreadable row, such as a truncated one, is skipped.
    """

    folder: Path
    _rows: dict[tuple[str, str], Feedback] = field(default_factory=dict)
    _read: int = 0

    def rows(self) -> list[Feedback]:
        """Return the rows that count, in the order in which they were added."""
        try:
            with (self.folder / FILE_NAME).open("rb") as file:
                if file.seek(0, 2) < self._read:  # the file was replaced
                    self._rows, self._read = {}, 0
                file.seek(self._read)
                content = file.read()
        except OSError:
            self._rows, self._read = {}, 0
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode("utf-8", "replace").split("\n"):
            if row := _read_row(line):
                key = (row.request_id, row.sha256)
                self._rows.pop(key, None)
                self._rows[key] = row
        return list(self._rows.values())

    def score(self, model: str, version: str, *, window: int) -> LiveScore | None:
        """Return the mean score of a model's last ``window`` judged answers.

        None if there are none.
        """
        some = [one for one in self.rows() if (one.model, one.version) == (model, version)]
        return measure_feedback(some[-window:])


def measure_feedback(rows: Sequence[Feedback]) -> LiveScore | None:
    """Return the mean score with its interval: Wilson's for shares, the normal one for errors."""
    if not rows:
        return None
    metric = get_task(rows[-1].task).feedback_metric
    scores = [row.score for row in rows]
    count, mean = len(scores), math.fsum(scores) / len(scores)
    if metric == Task.feedback_metric:
        low, high = wilson_interval(math.fsum(scores), count)
    else:
        variance = math.fsum((one - mean) ** 2 for one in scores) / max(count - 1, 1)
        margin = Z_95 * math.sqrt(variance / count)
        low, high = max(0.0, mean - margin), mean + margin
    return LiveScore(metric, mean, low, high, count)


def _read_row(line: str) -> Feedback | None:
    try:
        ((*texts, score),) = csv.reader([line], strict=True)
        values: list[Any] = [*texts, float(score)]
        return Feedback(*values) if math.isfinite(values[-1]) else None
    except (TypeError, ValueError, csv.Error):
        return None
