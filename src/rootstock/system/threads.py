"""Run many tasks in parallel threads and in order, a bounded number ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from rootstock.system.cpu import usable_cores

TASKS_AHEAD = 3
"""Tasks ahead per worker."""
T = TypeVar("T")
R = TypeVar("R")


def spread(work: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R]:
    """Run ``work`` for each task in one thread per core; yield the results in order.

    Pillow and ONNX Runtime release the interpreter's lock while they work.
    """
    workers = usable_cores()
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(work, task))
                if len(waiting) > workers * TASKS_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
