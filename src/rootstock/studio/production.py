"""What the inference service has done: counters over HTTP, its journal, and feedback."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from rootstock.data.manifest import ImageRow
from rootstock.errors import RootstockError
from rootstock.evaluate.feedback import Feedback, FeedbackLog, LiveScore
from rootstock.evaluate.journal import read_journal
from rootstock.review.queue import Item, list_requests
from rootstock.studio.pool import make_row
from rootstock.studio.project import Stamp, stamp_of
from rootstock.tasks import get_task
from rootstock.tasks.task import Task

SECONDS = 3.0
"""Time limit for an answer of the service."""
MAX_ROWS = 10_000
"""How many of the journal's newest answers are read."""
SHOWN_IMAGES, MAX_LABELS = 24, 12
BUCKETS = 48
MAX_REQUESTS = 200
"""Images of the journal in the queue of labels."""


class ServiceDownError(RootstockError):
    """The inference service does not answer."""

    code = "service-down"


class Production:
    """A service at ``address`` and its journal in ``folder``; either may be missing."""

    def __init__(self, address: str, key: str, folder: Path | None) -> None:
        self.address, self._key = address.rstrip("/"), key
        self.folder = folder
        self._feedback = FeedbackLog(folder) if folder else None
        self._lock = threading.Lock()
        self._journal: tuple[Stamp, list[dict[str, Any]]] | None = None

    @property
    def is_known(self) -> bool:
        """Whether a service or a journal is configured."""
        return bool(self.address or self.folder)

    def ask_service(self) -> dict[str, Any] | None:
        """Return the counters of the service; None if no address is set.

        Raises:
            ServiceDownError: The service does not answer.
        """
        if not self.address:
            return None
        headers = {"X-API-Key": self._key} if self._key else {}
        try:
            with httpx.Client(
                base_url=self.address, timeout=SECONDS, headers=headers, trust_env=False
            ) as client:
                metrics = client.get("/metrics")
                metrics.raise_for_status()
                drift = client.get("/v1/drift")
                report = drift.json() if drift.status_code == 200 else None
                counters = read_counters(metrics.text)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            # The second line of an error of httpx is a link.
            why = str(error).partition("\n")[0] or type(error).__name__
            raise ServiceDownError(
                f"the service at {self.address} does not answer: {why}",
                hint="start it with `rootstock serve`, or set its address with --service",
            ) from None
        return counters | {"drift": report, "address": self.address}

    def read_journal(self) -> list[dict[str, Any]]:
        """Return the newest answers, newest first."""
        folder = self.folder
        if folder is None:
            return []
        with self._lock:
            stamp = stamp_of(folder)
            if self._journal is None or self._journal[0] != stamp:
                self._journal = (stamp, list(islice(read_journal(folder), MAX_ROWS)))
            return self._journal[1]

    def describe_journal(self) -> dict[str, Any] | None:
        """Return a summary of the newest answers; None without a journal."""
        if self.folder is None:
            return None
        rows = self.read_journal()
        return {
            "answers": len(rows),
            "since": min((row["time_ms"] for row in rows), default=None),
            "unknown": _share(rows),
            "timeline": draw_timeline(rows),
            "labels": count_labels(rows),
            "foreign": list_foreign(rows),
            "measured": self._measure(rows),
        }

    def find_image(self, digest: str) -> tuple[ImageRow, Path] | None:
        """Return an image that the service kept, and its folder; None if it did not."""
        if self.folder is None or digest not in {row["sha256"] for row in self.read_journal()}:
            return None
        path = f"images/{digest[:2]}/{digest}"
        try:
            facts = (self.folder / path).stat()
        except OSError:
            return None
        return make_row(path, digest, facts.st_size), self.folder

    def list_requests(self, task: Task) -> list[Item]:
        """Return kept images that a person should label, the most pressing first."""
        folder = self.folder
        if folder is None or self._feedback is None:
            return []
        wrong = {one.sha256: one.label for one in self._feedback.rows() if _is_wrong(one)}
        items = list_requests(task, self.read_journal(), wrong)
        kept = (item for item in items if (folder / item.path).is_file())
        return list(islice(kept, MAX_REQUESTS))

    def _measure(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        if self._feedback is None or not rows:
            return None
        newest = rows[0]
        score: LiveScore | None = self._feedback.score(
            str(newest["model"]), str(newest["version"]), window=MAX_ROWS
        )
        return None if score is None else score._asdict()


def read_counters(text: str) -> dict[str, Any]:
    """Return requests, latencies, and the model from the text of /metrics."""
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]

    def total(name: str, **labels: str) -> float:
        return sum(
            one.value
            for one in samples
            if one.name == name and labels.items() <= one.labels.items()
        )

    buckets: dict[float, float] = {}
    for one in samples:
        is_predict = one.labels.get("route") == "/v1/predict"
        if one.name == "rootstock_http_request_duration_seconds_bucket" and is_predict:
            bound = float(one.labels["le"])
            buckets[bound] = buckets.get(bound, 0.0) + one.value
    requests = total("rootstock_http_requests_total", route="/v1/predict")
    failed = sum(
        one.value
        for one in samples
        if one.name == "rootstock_http_requests_total" and one.labels["status"].startswith("5")
    )
    models = [dict(one.labels) for one in samples if one.name == "rootstock_model_info"]
    return {
        "ready": bool(total("rootstock_ready")),
        "requests": requests,
        "failed": failed,
        "images": total("rootstock_images_total", outcome="ok"),
        "unknown": total("rootstock_unknown_images_total"),
        "latency": {f"p{q}": find_quantile(buckets, q / 100) for q in (50, 95, 99)},
        "model": models[0] if models else None,
        "models": models,
        "queue": total("rootstock_queue_images"),
    }


def find_quantile(buckets: dict[float, float], share: float) -> float | None:
    """Return the time within which a share of requests were answered, in seconds.

    ``buckets`` are counts up to each bound. The result is interpolated within a bucket; it is None
    if there were no requests.
    """
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    wanted, below, at = share * buckets[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= wanted:
            if math.isinf(bound):
                return at
            return at + (bound - at) * (wanted - below) / max(buckets[bound] - below, 1e-9)
        below, at = buckets[bound], bound
    return None


def draw_timeline(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return answers and unknown images per equal part of the time that the rows cover."""
    if len(rows) < 2:
        return []
    times = [row["time_ms"] for row in rows]
    first, last = min(times), max(times)
    width = max(1, (last - first + BUCKETS) // BUCKETS)
    parts = [{"time_ms": first + n * width, "answers": 0, "unknown": 0} for n in range(BUCKETS)]
    for row in rows:
        part = parts[min(BUCKETS - 1, (row["time_ms"] - first) // width)]
        part["answers"] += 1
        part["unknown"] += bool(row.get("unknown"))
    return parts


def count_labels(rows: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    """Return the most frequent labels and how often they were answered."""
    return Counter(str(row["label"]) for row in rows if row.get("label")).most_common(MAX_LABELS)


def list_foreign(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the images that are most unlike the training images, each once."""
    seen: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.get("novelty") is not None:
            seen.setdefault(row["sha256"], row)
    worst = sorted(seen.values(), key=lambda row: -row["novelty"])[:SHOWN_IMAGES]
    return [
        {
            "id": row["sha256"],
            "novelty": row["novelty"],
            "unknown": bool(row.get("unknown")),
            "answer": str(row.get("label") or row.get("labels") or row.get("values") or ""),
            "time_ms": row["time_ms"],
        }
        for row in worst
    ]


def _is_wrong(feedback: Feedback) -> bool:
    is_share = get_task(feedback.task).feedback_metric == Task.feedback_metric
    return feedback.score < 1 if is_share else feedback.score > 0


def _share(rows: Sequence[dict[str, Any]]) -> float:
    return sum(bool(row.get("unknown")) for row in rows) / max(1, len(rows))
