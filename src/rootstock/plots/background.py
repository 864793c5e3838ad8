"""Draw pictures in a second process while other work continues."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rootstock.plots.style import canvas
from rootstock.system.failure import hush_interrupts


class BackgroundPlots:
    """Pictures that a second process draws early, or that this one draws in `finish`."""

    def __init__(self, process: Executor | None) -> None:
        self._process = process
        self._works: list[tuple[Callable[[], None], Future[None] | None]] = []

    def draw(self, plot: Callable[..., None], *what: object, **how: object) -> None:
        """Draw ``plot(*what, **how)``; without a process it waits for `finish`."""
        work = partial(plot, *what, **how)
        drawing: Future[None] | None = None
        with suppress(BrokenProcessPool):
            drawing = self._process.submit(work) if self._process else None
        self._works.append((work, drawing))

    def finish(self) -> None:
        """Wait for every picture; raise the error of any that failed."""
        for work, drawing in self._works:
            try:
                drawing.result() if drawing else work()
            except BrokenProcessPool:  # it was killed, perhaps for using too much memory
                work()
        if self._process:
            self._process.shutdown(wait=False)  # shutting down takes a tenth of a second


@contextmanager
def background_plots(*, in_process: bool) -> Iterator[BackgroundPlots]:
    """Yield pictures to draw: in a process during other work, or all of them at the end."""
    if not in_process:
        yield BackgroundPlots(None)
        return
    # As with the decoding processes, forking could hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=hush_interrupts) as process:
        process.submit(_warm_up)
        try:
            yield BackgroundPlots(process)
        except BaseException:
            process.shutdown(wait=False, cancel_futures=True)
            raise


def _warm_up() -> None:
    """The first picture waits for imports and fonts, half of its second."""
    with TemporaryDirectory() as folder, canvas(Path(folder) / "a.png", width=1, height=1) as blank:
        blank.subplots().set_title("nothing yet")
