"""The batcher: every image gets the right answer in any batch."""

import asyncio
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from rootstock.model.predictor import Inferred
from rootstock.service.inference.batcher import Batcher

POISON = -1.0


@dataclass
class Doubler:
    """A substitute for a Predictor: doubles numbers, records its batches, and fails on POISON."""

    seconds: float = 0.0
    sizes: list = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def infer(self, prepared):
        with self.lock:
            self.sizes.append(len(prepared))
        time.sleep(self.seconds)
        values = np.array(prepared)
        if (values == POISON).any():
            raise ValueError("poison")
        return Inferred(2 * values[:, None], values[:, None])


def answers(model, values, **settings):
    """Return a batcher's results for concurrent numbers, with exceptions in their places."""

    async def ask():
        batcher = Batcher(**{"lanes": 1, "max_batch": 4} | settings)
        batcher.start()
        found = await asyncio.gather(
            *(batcher.submit(model, np.float64(value)) for value in values), return_exceptions=True
        )
        batcher.stop()
        return [f if isinstance(f, Exception) else float(f.decision[0]) for f in found]

    return asyncio.run(ask())


def test_each_image_has_its_own_answer():
    assert answers(Doubler(), range(23)) == [2.0 * value for value in range(23)]


def test_what_waits_goes_together_up_to_the_limit():
    model = Doubler(seconds=0.02)
    answers(model, range(9))
    assert max(model.sizes) == 4
    assert len(model.sizes) <= 4


def test_idle_lanes_share_what_waits():
    model = Doubler(seconds=0.05)
    answers(model, range(4), lanes=2)
    assert model.sizes == [2, 2]


@pytest.mark.parametrize("place", [0, 3, 7])
def test_only_the_poisoned_image_fails(place):
    values = [float(number) for number in range(8)]
    values[place] = POISON
    found = answers(Doubler(), values, max_batch=8)
    assert isinstance(found.pop(place), ValueError)
    del values[place]
    assert found == [2 * value for value in values]


def test_idle_engine_never_waits_for_fuller_batch():
    started = time.perf_counter()
    answers(Doubler(), [1.0], lanes=2, max_delay=5.0)
    assert time.perf_counter() - started < 2


def test_busy_engine_gathers_until_delay_is_over():
    model = Doubler(seconds=0.4)

    async def ask():
        batcher = Batcher(lanes=2, max_batch=8, max_delay=0.2)
        batcher.start()
        tasks = []
        for value in range(4):
            tasks.append(asyncio.ensure_future(batcher.submit(model, np.float64(value))))
            await asyncio.sleep(0.03)
        await asyncio.gather(*tasks)
        batcher.stop()

    asyncio.run(ask())
    assert model.sizes == [1, 3]


def test_images_of_two_models_never_share_a_batch():
    one, other = Doubler(), Doubler()

    async def ask():
        batcher = Batcher(lanes=1, max_batch=8)
        tasks = [
            asyncio.ensure_future(batcher.submit(model, np.float64(1)))
            for model in (one, one, other, one)
        ]
        batcher.start()
        await asyncio.gather(*tasks)
        batcher.stop()

    asyncio.run(ask())
    assert (one.sizes, other.sizes) == ([2, 1], [1])


def test_a_caller_who_left_costs_no_work():
    model = Doubler()

    async def ask():
        batcher = Batcher(lanes=1, max_batch=1)
        gone = asyncio.ensure_future(batcher.submit(model, np.float64(1)))
        await asyncio.sleep(0)
        gone.cancel()
        batcher.start()
        await batcher.submit(model, np.float64(2))
        batcher.stop()

    asyncio.run(ask())
    assert model.sizes == [1]


def test_busy_event_loop_does_not_keep_engine_idle():
    model = Doubler(seconds=0.02)

    async def ask():
        batcher = Batcher(lanes=1, max_batch=1)
        batcher.start()
        tasks = [asyncio.ensure_future(batcher.submit(model, np.float64(1))) for _ in range(4)]
        await asyncio.sleep(0.01)
        time.sleep(0.5)  # the loop is busy
        meanwhile = list(model.sizes)
        await asyncio.gather(*tasks)
        batcher.stop()
        return meanwhile

    assert asyncio.run(ask()) == [1, 1, 1, 1]


def test_without_limit_models_own_best_is_taken():
    model = Doubler(seconds=0.02)
    model.best_batch = 3
    answers(model, range(9), max_batch=None)
    assert max(model.sizes) == 3


def test_other_work_has_its_turn_while_images_wait():
    model = Doubler(seconds=0.05)

    async def ask():
        batcher = Batcher(lanes=1, max_batch=1)
        batcher.start()
        tasks = [asyncio.ensure_future(batcher.submit(model, np.float64(1))) for _ in range(8)]
        await asyncio.sleep(0.01)
        await batcher.run(lambda: None)
        left = sum(not task.done() for task in tasks)
        await asyncio.gather(*tasks)
        batcher.stop()
        return left

    assert asyncio.run(ask()) >= 5
