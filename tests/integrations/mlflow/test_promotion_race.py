"""Many processes promote at once in a real registry; one of them dies during a promotion."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from rootstock.integrations.mlflow.registry import MlflowRegistry
from rootstock.integrations.mlflow.tracking import MlflowRunLogger
from rootstock.registry.champion import promote, rollback, settle
from rootstock.registry.history import read_changes

pytestmark = pytest.mark.integration

PROCESSES, ROUNDS = 3, 4


class Promoter:
    """One process of `promoter`."""

    def __init__(self, uri, name, version, *more):
        command = [
            sys.executable,
            "-m",
            "tests.integrations.mlflow.promoter",
            uri,
            name,
            version,
            *more,
        ]
        self.process = subprocess.Popen(
            command,
            cwd=Path(__file__).parents[3],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def read(self):
        return self.process.stdout.readline().strip()

    def send(self, after):
        self.process.stdin.write(f"{after}\n")

    def end(self):
        self.process.stdin.close()
        return self.process.wait(20)


@pytest.fixture(params=["sqlite", "server", pytest.param("postgres", marks=pytest.mark.slow)])
def uri(request, mlflow_uri):
    return mlflow_uri if request.param == "sqlite" else request.getfixturevalue(request.param)


@pytest.fixture
def name(uri, request, tmp_path, monkeypatch):
    """A model with as many versions as processes; version 1 is champion."""
    monkeypatch.setenv("PYTHONPATH", f"{Path('src').resolve()}:{Path.cwd()}")
    name = request.node.name.replace("[", "-").replace("]", "")
    registry = MlflowRegistry(uri)
    with MlflowRunLogger(uri, "race", (tmp_path / "runs").as_uri()).run("train") as run:
        bundle = tmp_path / "bundle"
        bundle.mkdir()
        (bundle / "bundle.json").write_text("{}")
        for _ in range(PROCESSES):
            registry.register(name, bundle, run_id=run.id, tags={}, description="")
    promote(registry, name, "1")
    return name


def test_exactly_one_of_many_promotions_at_once_wins(uri, name):
    registry = MlflowRegistry(uri)
    promoters = [Promoter(uri, name, str(number + 1)) for number in range(PROCESSES)]
    assert [promoter.read() for promoter in promoters] == ["ready"] * PROCESSES
    for _ in range(ROUNDS):
        # The current champion does not promote, because it would have nothing to do.
        last = read_changes(registry.records(name))[-1]
        others = [one for i, one in enumerate(promoters) if str(i + 1) != last.version]
        for promoter in others:
            promoter.send(last.number)
        answers = [promoter.read() for promoter in others]
        assert answers.count("won") == 1, answers
        winner = read_changes(registry.records(name))[-1]
        lost = [answer for answer in answers if answer != "won"]
        assert all(f"{winner.by} (promotion" in answer for answer in lost)
    assert [promoter.end() for promoter in promoters] == [0] * PROCESSES
    changes = read_changes(registry.records(name))
    assert len(changes) == 1 + ROUNDS
    # Linear: each builds on the previous one, and the alias is the last.
    assert [change.after for change in changes] == [0, *(one.number for one in changes[:-1])]
    assert registry.find(name, alias="champion").version == changes[-1].version
    assert changes[-1].settled


def test_promoter_killed_before_alias_has_won_all_same(uri, name):
    registry = MlflowRegistry(uri)
    promoter = Promoter(uri, name, "2", "die")
    assert promoter.read() == "ready"
    promoter.send(1)
    assert promoter.process.wait(60) == -9
    assert registry.find(name, alias="champion").version == "1"
    assert not read_changes(registry.records(name))[-1].settled
    # A reader finishes it
    assert settle(registry, name)[-1].by == "process 2"
    assert registry.find(name, alias="champion").version == "2"
    # and the next promotion builds on it.
    promote(registry, name, "3")
    assert [change.version for change in settle(registry, name)] == ["1", "2", "3"]


@pytest.mark.parametrize("uri", ["sqlite"], indirect=True)
def test_clock_set_back_does_not_change_the_order(uri, name, monkeypatch):
    registry = MlflowRegistry(uri)
    promote(registry, name, "2")
    behind = time.time() - 86_400
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: behind)
        promote(registry, name, "3")
    changes = settle(registry, name)
    assert [change.version for change in changes] == ["1", "2", "3"]
    assert changes[2].at < changes[1].at
    assert registry.find(name, alias="champion").version == "3"
    assert rollback(registry, name).version == "2"
