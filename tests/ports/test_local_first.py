from contextlib import contextmanager

import pytest

from rootstock.ports.search import LocalFirst, SequentialSearcher
from rootstock.ports.search_space import Exploration, Interval


class Workers(SequentialSearcher):
    """Counts its sessions and searches."""

    def __init__(self):
        self.sessions = self.open = self.searches = 0

    @contextmanager
    def session(self):
        self.sessions += 1
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1

    def search(self, *arguments, **options):
        self.searches += 1
        return super().search(*arguments, **options)


class SharedObjective:
    workers = 2

    def __call__(self, params, home, report):
        return {"loss": params["rate"]}


def search(
    searcher, folder, candidates, objective=lambda params, *_: {"loss": params["rate"]}, **options
):
    return searcher.search(
        objective,
        candidates,
        directory=folder,
        metric="loss",
        mode="min",
        early_stop=False,
        **options,
    )


ONE, TWO = [{"rate": 0.1}], [{"rate": 0.1}, {"rate": 0.2}]


@pytest.mark.parametrize(("candidates", "options"), [(TWO, {"quick": True}), (ONE, {})])
def test_what_workers_do_not_speed_up_runs_here(tmp_path, candidates, options):
    workers = Workers()
    trials = search(LocalFirst(workers), tmp_path, candidates, **options)
    assert [trial.metrics["loss"] for trial in trials] == [one["rate"] for one in candidates]
    assert workers.searches == 0


@pytest.mark.parametrize(
    ("candidates", "options", "n_trials"),
    [
        (TWO, {}, 2),
        (ONE, {"objective": SharedObjective()}, 1),
        (ONE, {"exploration": Exploration({"rate": Interval(0.1, 0.2)}, 3, seed=0)}, 3),
    ],
)
def test_other_searches_go_to_the_workers(tmp_path, candidates, options, n_trials):
    workers = Workers()
    assert len(search(LocalFirst(workers), tmp_path, candidates, **options)) == n_trials
    assert workers.searches == 1


def test_a_session_starts_workers_when_they_are_needed(tmp_path):
    workers = Workers()
    searcher = LocalFirst(workers)
    with searcher.session():
        search(searcher, tmp_path, ONE)
        assert workers.sessions == 0
        search(searcher, tmp_path, TWO)
        assert workers.open == 1
    assert workers.open == 0


def test_a_session_that_fails_ends_the_workers(tmp_path):
    workers = Workers()
    searcher = LocalFirst(workers)

    def fail():
        with searcher.session():
            search(searcher, tmp_path, TWO)
            assert workers.open == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert workers.open == 0
