"""The journal: every answer, in Parquet files, if an operator sets a folder for it.

Images are stored under their sha256, and only if the operator asks for that too.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, NamedTuple

from rootstock.errors import ArtifactError, ConfigError
from rootstock.evaluate.journal import read_journal
from rootstock.model.predictor import Predictor
from rootstock.service.daemon import start_daemon
from rootstock.system.files import write_atomic
from rootstock.tasks.answer import Answer

MAX_ROWS = 1_000
"""Rows per file; fewer if a minute passes or the service ends."""
WRITE_SECONDS = 60.0
MAX_WAITING_ROWS = 20_000
MAX_WAITING_BYTES = 2**27
"""What may wait for a slow disk; further answers are left out of the journal."""
END_SECONDS = 5.0
"""How long shutdown waits for the disk."""

_log = logging.getLogger("rootstock.service")


class _Row(NamedTuple):
    """An answer, and its image if images are kept."""

    kind: type[Answer]
    columns: dict[str, Any]
    content: bytes


class Journal:
    """Collects rows and writes them per thousand or per minute, without delaying answers.

    Failures are only logged. A disk that hangs delays no answer: rows that no longer fit in the
    queue are dropped and counted in ``dropped``. ``on_loss`` is called with the number of rows
    that are dropped or cannot be written. A file holds the answers of one task.

    Raises:
        ConfigError: Nothing can be written to ``folder``, or pyarrow is not installed.
    """

    def __init__(
        self, folder: Path, *, images: bool, on_loss: Callable[[int], None] | None = None
    ) -> None:
        if importlib.util.find_spec("pyarrow") is None:
            raise ConfigError(
                "the journal needs pyarrow, which is not installed",
                hint="pip install 'rootstock-vision[journal]', or unset ROOTSTOCK_JOURNAL",
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise ConfigError(
                f"cannot write the journal to {folder}: {error.strerror or error}",
                hint="set ROOTSTOCK_JOURNAL to a folder that the service may write to",
            ) from None
        self.folder = folder
        self._images = images
        self._on_loss = on_loss
        self.dropped = 0
        self._rows: list[_Row] = []
        self._writing: list[_Row] = []
        self._writer: Future[None] | None = None
        self._turn = threading.Lock()

    def note(
        self,
        request_id: str,
        predictor: Predictor,
        contents: Sequence[bytes],
        answers: Sequence[Answer],
    ) -> None:
        """Note the answers of one request, without waiting for a disk."""
        rows = [
            _Row(
                type(answer),
                {
                    "time_ms": int(1000 * time.time()),
                    "request_id": request_id,
                    "model": predictor.info["name"],
                    "version": predictor.info["version"],
                    "task": predictor.task.name,
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "novelty": answer.novelty,
                    **answer.columns(),
                },
                content if self._images else b"",
            )
            for content, answer in zip(contents, answers, strict=True)
        ]
        with self._turn:
            waiting = [*self._writing, *self._rows, *rows]
            size = sum(len(row.content) for row in waiting)
            if len(waiting) > MAX_WAITING_ROWS or size > MAX_WAITING_BYTES:
                if not self.dropped:
                    _log.error("the journal's disk is too slow; answers are left out")
                self.dropped += len(rows)
                self._count_loss(len(rows))
                return
            self._rows += rows
            if len(self._rows) >= MAX_ROWS:
                self._start()

    def find(self, request_id: str) -> list[dict[str, Any]]:
        """Return the answers to a request, including those that wait for the disk."""
        with self._turn:
            waiting = [row.columns for row in (*self._writing, *self._rows)]
        found = [row for row in waiting if row["request_id"] == request_id]
        return found or list(read_journal(self.folder, request_id=request_id))

    async def keep_writing(self) -> None:
        """Write every minute, until cancelled."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            with self._turn:
                self._start()

    def write(self, seconds: float = END_SECONDS) -> None:
        """Write the rows noted so far; give up after ``seconds``."""
        end = time.monotonic() + seconds
        for _ in range(2):  # the rows being written, and those waiting behind them
            with self._turn:
                self._start()
                writer = self._writer
            if writer is not None:
                wait([writer], max(0.0, end - time.monotonic()))
        with self._turn:
            lost = self.dropped + len(self._rows) + len(self._writing)
        if lost:
            _log.error("%d answers are not in the journal", lost)

    def _start(self) -> None:
        """Let a thread write the waiting rows, unless one is doing so; call with the lock."""
        if self._rows and not self._writing:
            self._writing, self._rows = self._rows, []
            self._writer = start_daemon(self._write)

    def _write(self) -> None:
        try:
            # Models of two tasks may follow each other, and their answers have different columns.
            by_kind: dict[type[Answer], list[dict[str, Any]]] = {}
            for row in self._writing:
                by_kind.setdefault(row.kind, []).append(row.columns)
                if row.content:
                    self._store(row.columns["sha256"], row.content)
            for group in by_kind.values():
                self._write_file(group)
        finally:
            with self._turn:
                self._writing = []
                if len(self._rows) >= MAX_ROWS:
                    self._start()

    def _store(self, digest: str, content: bytes) -> None:
        path = self.folder / "images" / digest[:2] / digest
        try:
            if not path.exists():
                with write_atomic(path) as temporary:
                    temporary.write_bytes(content)
        except (ArtifactError, OSError) as error:
            _log.warning("an image was not stored: %s", error)

    def _write_file(self, rows: list[dict[str, Any]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}.parquet"
        try:
            with write_atomic(self.folder / name) as temporary:
                pq.write_table(pa.Table.from_pylist(rows), temporary)
        except (ArtifactError, OSError, pa.ArrowException) as error:
            _log.error("%d rows of the journal are lost: %s", len(rows), error)
            self._count_loss(len(rows))

    def _count_loss(self, rows: int) -> None:
        if self._on_loss is not None:
            self._on_loss(rows)
