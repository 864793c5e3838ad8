"""Decoding processes: they decode like the Predictor, and are replaced after a failure."""

import asyncio
import dataclasses
import io
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rootstock.data.limits import DecodeLimits
from rootstock.data.rendering import Rendering
from rootstock.errors import ImageError
from rootstock.model.predictor import Predictor
from rootstock.service.http.problems import Problem
from rootstock.service.inference.decode_worker import prepare, recipe_bytes
from rootstock.service.inference.decoder import DecodePool
from tests.bundles import jpeg, tiny_bundle

MEBIBYTE = 2**20


def with_pool(body, **settings):
    """Run ``body(pool)`` with a pool of one worker."""
    events = []

    async def run():
        arguments = {"seconds": 20.0, "memory": 512 * MEBIBYTE} | settings
        pool = DecodePool(1, **arguments, on_event=lambda event, *_: events.append(event))
        await pool.start()
        try:
            return await body(pool)
        finally:
            pool.stop()

    return asyncio.run(run()), events


def process_of(pool):
    (worker,) = pool._workers
    return worker.process


def large_png(side):
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(buffer, "PNG")
    return buffer.getvalue()


def test_a_worker_prepares_as_the_predictor_does(predictor):
    async def body(pool):
        return [await pool.prepare(predictor, jpeg(seed)) for seed in range(3)]

    found, events = with_pool(body)
    for seed, pixels in enumerate(found):
        np.testing.assert_array_equal(pixels.views, predictor.prepare(jpeg(seed)))
    assert events.count("decode") == 3


def test_bad_image_is_error_with_decoders_reason(predictor):
    async def body(pool):
        with pytest.raises(ImageError) as caught:
            await pool.prepare(predictor, jpeg(0)[:900])
        await pool.prepare(predictor, jpeg(0))
        return caught.value.reason

    found, events = with_pool(body)
    assert found == "truncated"
    assert "lost" not in events


def test_killed_worker_loses_one_image_and_is_replaced(predictor):
    async def body(pool):
        await pool.prepare(predictor, jpeg(0))
        process = process_of(pool)
        os.kill(process.pid, signal.SIGSTOP)
        held = asyncio.ensure_future(pool.prepare(predictor, jpeg(0)))
        await asyncio.sleep(0.1)
        process.kill()
        with pytest.raises(Problem) as caught:
            await held
        await pool.prepare(predictor, jpeg(0))
        return caught.value

    problem, events = with_pool(body)
    assert (problem.kind, problem.status) == ("lost", 503)
    assert problem.headers == {"Retry-After": "1"}
    assert events.count("lost") == 1


def test_a_worker_that_died_idle_costs_no_image(predictor):
    async def body(pool):
        process = process_of(pool)
        process.kill()
        process.wait()
        await pool.prepare(predictor, jpeg(0))

    _, events = with_pool(body)
    assert events.count("lost") == 1


def test_a_worker_that_hangs_is_killed(predictor):
    async def body(pool):
        await pool.prepare(predictor, jpeg(0))
        first = process_of(pool)
        os.kill(first.pid, signal.SIGSTOP)
        pool._seconds = 0.3
        with pytest.raises(ImageError) as caught:
            await pool.prepare(predictor, jpeg(0))
        pool._seconds = 20.0
        await pool.prepare(predictor, jpeg(0))
        return caught.value.reason, first.poll()

    (reason, status), _ = with_pool(body)
    assert reason == "too-slow"
    assert status == -signal.SIGKILL


def test_image_that_needs_too_much_memory_is_rejected(predictor):
    async def body(pool):
        with pytest.raises(ImageError) as caught:
            await pool.prepare(predictor, large_png(6_000))
        await pool.prepare(predictor, jpeg(0))
        return caught.value.reason

    found, events = with_pool(body, memory=64 * MEBIBYTE)
    assert found == "too-many-pixels"
    assert "lost" not in events


def test_caller_who_leaves_lets_next_one_in(predictor):
    async def body(pool):
        await pool.prepare(predictor, jpeg(0))
        busy = asyncio.ensure_future(pool.prepare(predictor, jpeg(1)))
        await asyncio.sleep(0)
        waiting = asyncio.ensure_future(pool.prepare(predictor, jpeg(2)))
        await asyncio.sleep(0)
        waiting.cancel()
        await busy
        return await pool.prepare(predictor, jpeg(3))

    found, _ = with_pool(body)
    np.testing.assert_array_equal(found.views, predictor.prepare(jpeg(3)))


def test_leaving_caller_does_not_lose_the_worker(predictor):
    async def body(pool):
        await pool.prepare(predictor, jpeg(0))
        first = process_of(pool).pid
        for _ in range(5):
            leaving = asyncio.ensure_future(pool.prepare(predictor, jpeg(1)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            leaving.cancel()
        found = await pool.prepare(predictor, jpeg(2))
        return first == process_of(pool).pid, found

    (same, found), events = with_pool(body)
    assert same
    assert "lost" not in events
    np.testing.assert_array_equal(found.views, predictor.prepare(jpeg(2)))


def test_limits_travel_to_the_worker():
    strict = Predictor(tiny_bundle(), threads=1)
    strict.limits = type(strict.limits)(max_side=50)

    async def body(pool):
        with pytest.raises(ImageError, match="90 x 70 pixels: a side is longer than 50"):
            await pool.prepare(strict, jpeg(0))

    with_pool(body)


def test_rendering_of_set_travels_to_worker():
    """Values of 10 bits are as bright in the service as in training."""
    values = np.linspace(0, 1_000, 64 * 64).reshape(64, 64).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    size = Predictor(tiny_bundle(), threads=1).bundle.preprocess
    deep = dataclasses.replace(size, rendering=Rendering(deep=(0.0, 1_000.0)))
    answers = [
        prepare(recipe_bytes(way, "one", DecodeLimits()), buffer.getvalue()) for way in (size, deep)
    ]
    brightest = [np.frombuffer(answer, np.uint8, offset=9).max() for answer in answers]
    assert brightest[0] < 8
    assert brightest[1] > 200


def test_worker_that_answers_more_than_fits_is_replaced(predictor):
    async def body(pool):
        (worker,) = pool._workers
        with pytest.raises(Problem, match="process that decoded the image ended"):
            await worker.submit(pool._recipe(predictor), jpeg(0), 100, 20.0)
        worker.process.wait()
        return await pool.prepare(predictor, jpeg(0))

    found, events = with_pool(body)
    np.testing.assert_array_equal(found.views, predictor.prepare(jpeg(0)))
    assert events.count("lost") == 1


def test_a_worker_sees_no_secret_and_no_network(predictor, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    async def body(pool):
        await pool.prepare(predictor, jpeg(0))
        process = Path(f"/proc/{process_of(pool).pid}")
        status = (process / "status").read_text()
        return (process / "environ").read_bytes(), status, (process / "net/dev").read_text()

    (environment, status, devices), _ = with_pool(body)
    assert b"secret" not in environment
    assert "NoNewPrivs:\t1" in status
    names = [line.partition(":")[0].strip() for line in devices.splitlines()[2:]]
    if "share the service's network" in caplog.text:
        pytest.skip("this system gives no network namespace")
    assert names == ["lo"]
