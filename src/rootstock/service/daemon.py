"""Run work that may wait forever for another server, without keeping the process alive."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def start_daemon(work: Callable[[], T]) -> Future[T]:
    """Run ``work`` in a new daemon thread and return its future.

    At exit, Python waits for the threads of a pool, but not for daemon threads.
    """
    answer: Future[T] = Future()
    answer.set_running_or_notify_cancel()  # the work continues if its caller stops waiting

    def run() -> None:
        try:
            answer.set_result(work())
        except Exception as error:  # noqa: BLE001 - the caller raises it
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer


async def run_in_daemon(work: Callable[[], T]) -> T:
    """Run ``work`` as in `start_daemon`, and wait for its result."""
    return await asyncio.wrap_future(start_daemon(work))
