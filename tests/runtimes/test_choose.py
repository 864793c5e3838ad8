"""The stopwatch: turns, best rounds, hopeless ways, clear leads; and plans without it."""

import ast
from functools import partial
from pathlib import Path
from statistics import median

import pytest

from rootstock.runtimes import choose
from rootstock.runtimes.choose import choose_fastest, time_in_turns

SRC = Path(choose.__file__).parents[1]


class Clock:
    """A clock that only the ways advance."""

    def __init__(self, monkeypatch):
        self.now, self.calls = 0.0, []
        monkeypatch.setattr(choose, "perf_counter", lambda: self.now)

    def way(self, name, *seconds):
        """Return a way that takes these seconds, one per run; the last value repeats."""
        laps = list(seconds)

        def run():
            self.calls.append(name)
            self.now += laps.pop(0) if len(laps) > 1 else laps[0]

        return run


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_ways_take_turns_and_the_best_round_counts(clock):
    ways = {"a": clock.way("a", 9.0, 3.0, 2.0, 4.0), "b": clock.way("b", 9.0, 5.0)}
    assert time_in_turns(ways) == pytest.approx({"a": 2.0, "b": 5.0})
    assert "".join(clock.calls) == "ab" + "ab" * 3  # the first runs warm up


def test_the_median_may_be_asked_for(clock):
    ways = {"a": clock.way("a", 9.0, 9.0, 3.0, 2.0, 4.0)}
    seconds = time_in_turns(ways, warm_ups=2, summary=median)
    assert seconds == pytest.approx({"a": 3.0})


def test_a_slow_machine_is_not_timed_for_minutes(clock):
    ways = {name: clock.way(name, 30.0) for name in "ab"}
    assert time_in_turns(ways) == pytest.approx({"a": 30.0, "b": 30.0})
    assert "".join(clock.calls) == "ab" + "ab"


def test_a_hopeless_way_is_timed_once(clock):
    ways = {"a": clock.way("a", 1.0), "b": clock.way("b", 2.1), "c": clock.way("c", 1.9)}
    assert time_in_turns(ways, drop_hopeless=True) == pytest.approx({"a": 1.0, "b": 2.1, "c": 1.9})
    assert [clock.calls.count(name) - 1 for name in "abc"] == [3, 1, 3]


def test_a_first_way_may_be_hopeless_too(clock):
    ways = {"a": clock.way("a", 5.0), "b": clock.way("b", 1.0)}
    time_in_turns(ways, drop_hopeless=True)
    assert [clock.calls.count(name) - 1 for name in "ab"] == [1, 3]


def test_short_runs_are_repeated_for_some_time(clock):
    ways = {name: clock.way(name, 0.25) for name in "ab"}
    time_in_turns(ways, seconds_per_way=2.0)
    assert [clock.calls.count(name) - 1 for name in "ab"] == [8, 8]


@pytest.mark.parametrize(
    ("rates", "fastest"),
    [
        ({"onnx": 100.0, "openvino": 104.0, "torch": 20.0}, "onnx"),
        ({"onnx": 100.0, "openvino": 106.0, "torch": 20.0}, "openvino"),
        ({"onnx": 10.0, "openvino": 12.0, "torch": 20.0}, "torch"),
    ],
)
def test_another_way_has_to_be_clearly_faster(rates, fastest):
    assert choose_fastest(rates) == fastest


def test_real_work_is_timed():
    seconds = time_in_turns({n: partial(sum, range(n)) for n in (10, 1_000_000)})
    assert 0 < seconds[10] < seconds[1_000_000] < 10


@pytest.mark.parametrize("part", ["assess", "plan", "review", "heads"])
def test_what_plan_is_made_from_uses_no_stopwatch(part):
    stopwatches = {"time", "rootstock.runtimes.choose", "rootstock.features.fastest"}
    stopwatches |= {"rootstock.training.throughput", "timeit"}
    for path in (SRC / part).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not stopwatches & {alias.name for alias in node.names}, path
            if isinstance(node, ast.ImportFrom):
                assert node.module not in stopwatches, path
