"""The journal: every answer, in Parquet files, if an operator names a folder for it.

Images are kept, under their sha256, only if the operator asks for them too.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rootstock.errors import ArtifactError, ConfigError
from rootstock.model.predictor import Predictor
from rootstock.system.files import write_atomic
from rootstock.tasks.answer import Answer

MAX_ROWS = 1_000
"""Rows of a file; fewer if a minute passes or the service ends."""
WRITE_SECONDS = 60.0

_log = logging.getLogger("rootstock.service")


class Journal:
    """Collects rows and writes them per thousand or per minute; a failure is only logged.

    A file holds the answers of one task.

    Raises:
        ConfigError: nothing can be written to ``folder``, or pyarrow is not installed.
    """

    def __init__(self, folder: Path, *, images: bool) -> None:
        if importlib.util.find_spec("pyarrow") is None:
            raise ConfigError(
                "the journal is written by pyarrow, which is not installed",
                hint="pip install 'rootstock-vision[journal]', or unset ROOTSTOCK_JOURNAL",
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise ConfigError(
                f"the journal cannot be written to {folder}: {error.strerror or error}",
                hint="set ROOTSTOCK_JOURNAL to a folder that the service may write to",
            ) from None
        self._folder = folder
        self._images = images
        self._rows: list[tuple[type[Answer], dict[str, Any]]] = []
        self._turn = threading.Lock()

    def note(
        self,
        request_id: str,
        predictor: Predictor,
        contents: Sequence[bytes],
        answers: Sequence[Answer],
    ) -> None:
        """Note the answers of one request; block while a file is written."""
        with self._turn:
            for content, answer in zip(contents, answers, strict=True):
                row = {
                    "time_ms": int(1000 * time.time()),
                    "request_id": request_id,
                    "model": predictor.info["name"],
                    "version": predictor.info["version"],
                    "sha256": self._store(content),
                    "novelty": answer.novelty,
                    **answer.columns(),
                }
                self._rows.append((type(answer), row))
            if len(self._rows) >= MAX_ROWS:
                self._write()

    async def keep_writing(self) -> None:
        """Write every minute, until cancelled."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await asyncio.to_thread(self.write)

    def write(self) -> None:
        """Write the rows that were noted so far."""
        with self._turn:
            self._write()

    def _store(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        path = self._folder / "images" / digest[:2] / digest
        if self._images and not path.exists():
            try:
                with write_atomic(path) as temporary:
                    temporary.write_bytes(content)
            except ArtifactError as error:
                _log.warning("an image was not stored: %s", error.message)
        return digest

    def _write(self) -> None:
        rows, self._rows = self._rows, []
        # Models of two tasks may follow each other, and their answers have other columns.
        by_kind: dict[type[Answer], list[dict[str, Any]]] = {}
        for kind, row in rows:
            by_kind.setdefault(kind, []).append(row)
        for group in by_kind.values():
            self._write_file(group)

    def _write_file(self, rows: list[dict[str, Any]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}.parquet"
        try:
            with write_atomic(self._folder / name) as temporary:
                pq.write_table(pa.Table.from_pylist(rows), temporary)
        except (ArtifactError, OSError, pa.ArrowException) as error:
            _log.error("%d rows of the journal are lost: %s", len(rows), error)
