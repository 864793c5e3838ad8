"""Request bodies: too long, too slow, and too many at once."""

import asyncio

import pytest

from rootstock.service.http.body_limit import BodyLimit
from rootstock.service.http.problems import Problem


def drained(limit, messages, method="POST"):
    """Return the messages that a body's reader gets through a BodyLimit."""

    async def app(scope, receive, send):
        while (await receive()).get("more_body"):
            pass

    async def run():
        waiting = list(messages)

        async def receive():
            if not waiting:
                await asyncio.sleep(60)
            return waiting.pop(0)

        limit.app = app
        scope = {"type": "http", "method": method, "headers": []}
        await limit(scope, receive, None)

    asyncio.run(run())


def part(size, *, more=True):
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


def test_a_body_that_dribbles_is_given_up():
    limit = BodyLimit(None, max_bytes=1_000, max_buffered=10_000, seconds=0.1)
    with pytest.raises(Problem) as caught:
        drained(limit, [part(10)])
    assert caught.value.kind == "too-slow"
    assert limit.buffered == 0


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_a_body_is_bounded_whatever_the_method(method):
    limit = BodyLimit(None, max_bytes=1_000, max_buffered=10_000, seconds=5)
    with pytest.raises(Problem) as caught:
        drained(limit, [part(900), part(900)], method)
    assert caught.value.kind == "too-large"


def test_bodies_together_have_a_limit_too():
    limit = BodyLimit(None, max_bytes=1_000, max_buffered=1_500, seconds=5)
    limit.buffered = 1_000  # of other requests
    with pytest.raises(Problem) as caught:
        drained(limit, [part(400), part(400, more=False)])
    assert caught.value.kind == "overloaded"
    assert limit.buffered == 1_000
