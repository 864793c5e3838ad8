"""Work that may wait forever for another server, and must not keep the process alive."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def start_daemon(work: Callable[[], T]) -> Future[T]:
    """Run ``work`` in a new daemon thread and return its future.

    Python waits for the threads of a pool when it ends, but not for a daemon.
    """
    answer: Future[T] = Future()
    answer.set_running_or_notify_cancel()  # a caller that stops waiting does not cancel the work

    def run() -> None:
        try:
            answer.set_result(work())
        except Exception as error:  # noqa: BLE001 - the caller raises it
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer


async def run_in_daemon(work: Callable[[], T]) -> T:
    """Run ``work`` as `start_daemon` does, and wait for its result."""
    return await asyncio.wrap_future(start_daemon(work))
