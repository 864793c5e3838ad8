"""Work that may wait for ever for somebody else, and must not hold up the end of the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def start_daemon(work: Callable[[], T]) -> Future[T]:
    """The answer to come of ``work``, in a thread of its own.

    A pool's threads are waited for when Python ends; a daemon goes with it.
    """
    answer: Future[T] = Future()
    answer.set_running_or_notify_cancel()  # who no longer waits leaves the work to itself

    def run() -> None:
        try:
            answer.set_result(work())
        except Exception as error:  # noqa: BLE001 - it is raised where it is awaited
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer


async def in_daemon(work: Callable[[], T]) -> T:
    """What ``work`` returns, or raises, in a thread as of `start_daemon`."""
    return await asyncio.wrap_future(start_daemon(work))
