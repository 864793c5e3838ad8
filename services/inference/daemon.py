"""Work that may wait for ever for somebody else, and must not hold up the end of the process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_daemon(work: Callable[[], T]) -> T:
    """What ``work`` returns, or raises, in a thread of its own.

    A pool's threads are waited for when Python ends; a daemon goes with it. Who is cancelled
    leaves the work to itself.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def deliver(give: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(lambda: None if answer.done() else give())

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - it is raised where it is awaited
            raised = error
            deliver(lambda: answer.set_exception(raised))
        else:
            deliver(lambda: answer.set_result(result))

    threading.Thread(target=run, daemon=True).start()
    return await answer
