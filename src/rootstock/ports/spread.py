"""Run pieces of work, one after another or on many machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

Part = TypeVar("Part")


Result = TypeVar("Result")


class Spreader(Protocol):
    """Runs pieces of work one after another, or many at once on many machines."""

    def spread(
        self, work: Callable[[Part], Result], parts: Sequence[Part]
    ) -> AbstractContextManager[Iterator[Result]]:
        """Yield results as they are done, in any order.

        Work whose process dies is repeated elsewhere; an exception of the work is raised here.
        """
        ...


class InProcess:
    """Does all work in this process."""

    def spread(
        self, work: Callable[[Part], Result], parts: Sequence[Part]
    ) -> AbstractContextManager[Iterator[Result]]:
        return nullcontext(map(work, parts))
