"""Run pieces of work as Ray tasks on the machines of a cluster.

Each task gets the cores (and one GPU, if there are any) that the smallest machine can give, so that
multi-threaded tasks do not compete. A task whose process or machine dies is run again elsewhere,
and finds its earlier results in shared storage.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rootstock.errors import RootstockError, TrainingError
from rootstock.integrations.ray.cluster import ray_session
from rootstock.ports.spread import Part, Result
from rootstock.system.cpu import CORES_VARIABLE

MAX_PENDING_TASKS = 1_000
"""Tasks given to Ray at a time: more than a cluster has cores, but few enough to search through
whenever one is done."""


@dataclass(frozen=True)
class RaySpreader:
    """Runs on ``address``, otherwise RAY_ADDRESS; every machine must see the same files."""

    address: str = ""
    max_failures: int = 2

    @contextmanager
    def spread(
        self, work: Callable[[Part], Result], parts: Sequence[Part]
    ) -> Iterator[Iterator[Result]]:
        """Yield results as they are done, in any order.

        Raises:
            TrainingError: Ray cannot be reached, or a part's process died too often.
        """
        with ray_session(self.address or os.environ.get("RAY_ADDRESS", "")):
            yield self._results(work, parts)

    def _results(self, work: Callable[[Part], Result], parts: Sequence[Part]) -> Iterator[Result]:
        import ray

        share = _share()
        task: Any = ray.remote(_run).options(
            num_cpus=share["CPU"],
            num_gpus=share["GPU"],
            max_retries=self.max_failures,
            scheduling_strategy="SPREAD",
        )
        shared, coming = ray.put(work), iter(parts)
        waiting: list[Any] = []
        while True:
            for part in islice(coming, MAX_PENDING_TASKS - len(waiting)):
                waiting.append(task.remote(shared, part, share["CPU"], os.getcwd()))
            if not waiting:
                return
            (done,), waiting = ray.wait(waiting, num_returns=1)
            try:
                yield ray.get(done)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, RootstockError):
                    raise error.cause from None
                raise
            except ray.exceptions.RayError as error:
                raise TrainingError(
                    f"a piece of work was lost {self.max_failures + 1} times: "
                    f"{str(error).splitlines()[0]}",
                    hint="check the memory of each machine; finished work is kept",
                ) from error


def _share() -> dict[str, int]:
    """Return the cores and GPUs of one task."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    working = [node for node in nodes if node.get("CPU", 0) >= 1]
    if max(gpus) > 0:
        working = [node for node in working if node.get("GPU", 0) >= 1]
    cores = min(int(node["CPU"] // max(1, node.get("GPU", 0))) for node in working)
    return {"CPU": max(1, cores), "GPU": int(max(gpus) > 0)}


def _run(work: Callable[[Part], Result], part: Part, cores: int, folder: str) -> Result:
    """Do one part, in a worker process."""
    os.chdir(folder)
    os.environ[CORES_VARIABLE] = str(cores)
    return work(part)
