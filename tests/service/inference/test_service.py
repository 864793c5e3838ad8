"""The limits that all routes share."""

import asyncio

from tests.bundles import jpeg
from tests.service.conftest import make_client
from tests.service.requests import check_problem, post_files


def test_answer_that_comes_too_late_is_given_up(monkeypatch):
    async def slow(self, predictor, content):
        await asyncio.sleep(30)

    monkeypatch.setattr("rootstock.service.inference.decoder.DecodePool.prepare", slow)
    with make_client(deadline_seconds=0.2) as client:
        response = post_files(client, ("a", jpeg(0)))
        assert client.app.state.service.in_flight == 0
    check_problem(response, 503, "too-late")
    assert int(response.headers["retry-after"]) >= 1
