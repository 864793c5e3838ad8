"""Shared by the models of one process: decoders, lanes, counters, and the journal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from rootstock.evaluate.feedback import FeedbackLog
from rootstock.model.predictor import Predictor
from rootstock.service.inference.batcher import Batch, Batcher
from rootstock.service.inference.decoder import DecodePool
from rootstock.service.settings import Settings
from rootstock.service.watch.journal import Journal
from rootstock.service.watch.telemetry import Telemetry


class Resources:
    """One object per app. Use it inside `running`. ``models`` are the names of its models."""

    def __init__(self, settings: Settings, models: Sequence[str]) -> None:
        self.telemetry = Telemetry(models)
        self.draining = False
        """Whether the service is about to end."""
        self.closing = asyncio.Event()
        """Set when no new request is accepted any more."""
        self.decoders = DecodePool(
            settings.decoders,
            seconds=settings.decode_seconds,
            memory=settings.decode_memory_bytes,
            on_event=self._count_event,
        )
        self.batcher = Batcher(
            lanes=settings.lanes,
            max_batch=settings.max_batch,
            max_delay=settings.max_delay_ms / 1000,
            on_batch=self._count_batch,
        )
        self.journal = (
            Journal(
                settings.journal,
                images=settings.journal_images,
                on_loss=self.telemetry.dropped_rows.inc,
            )
            if settings.journal
            else None
        )
        self.feedback = FeedbackLog(settings.journal) if settings.journal else None

    @property
    def ready(self) -> bool:
        """Whether everything except a model is ready to answer."""
        return self.decoders.alive and not self.batcher.stuck and not self.draining

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the decoders, the lanes, and the journal inside this context."""
        await self.decoders.start()
        self.batcher.start()
        writer = asyncio.ensure_future(self.journal.keep_writing()) if self.journal else None
        try:
            yield
        finally:
            if writer is not None:
                writer.cancel()
            self.batcher.stop()
            self.decoders.stop()
            if self.journal is not None:
                self.journal.write()

    def _count_event(self, event: str, seconds: float, predictor: Predictor | None) -> None:
        if predictor is None:
            self.telemetry.lost_decoders.inc()
        else:
            self.telemetry.time_stage(predictor.info["name"], event, seconds)

    def _count_batch(self, batch: Batch) -> None:
        model = batch.predictor.info["name"]
        self.telemetry.count_batch(model, batch.size)
        self.telemetry.time_stage(model, "queue", batch.wait_seconds)
        self.telemetry.time_stage(model, "infer", batch.engine_seconds)
