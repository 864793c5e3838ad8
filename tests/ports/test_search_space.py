import numpy as np

from rootstock.ports.search import SequentialSearcher
from rootstock.ports.search_space import Exploration, Interval, draw

SPACE = {"rate": Interval(1e-4, 1e-2, log=True), "decay": Interval(0.5, 1.0), "kind": ("a", "b")}


def test_points_are_in_the_space_and_follow_seed():
    points = [draw(SPACE, np.random.default_rng(seed)) for seed in range(200)]
    assert all(1e-4 <= p["rate"] <= 1e-2 and 0.5 <= p["decay"] <= 1.0 for p in points)
    assert {p["kind"] for p in points} == {"a", "b"}
    # Evenly in the logarithm: half below the geometric middle
    assert 60 < sum(p["rate"] < 1e-3 for p in points) < 140
    assert draw(SPACE, np.random.default_rng(7)) == points[7]


def search(objective, tmp_path, **options):
    return SequentialSearcher().search(
        objective,
        [{"rate": 1e-3, "decay": 0.9, "kind": "a"}],
        directory=tmp_path,
        metric="loss",
        mode="min",
        early_stop=False,
        **options,
    )


def test_the_sequential_search_draws_what_is_missing(tmp_path):
    trials = search(
        lambda params, home, report: {"loss": params["rate"]},
        tmp_path,
        exploration=Exploration(SPACE, 4, seed=0),
    )
    assert len(trials) == 4
    assert trials[0].params == {"rate": 1e-3, "decay": 0.9, "kind": "a"}
    assert len({trial.metrics["loss"] for trial in trials}) == 4


def test_sequential_search_starts_nothing_after_time_limit(tmp_path):
    begun = []
    (trial,) = search(lambda *_: begun.append(1) or {"loss": 0.0}, tmp_path, seconds=-1.0)
    assert trial.error == "no time was left to start it"
    assert trial.timed_out
    assert not begun
