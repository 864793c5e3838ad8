import math
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from rootstock.errors import TrainingError
from rootstock.integrations.ray.search import RaySearcher
from rootstock.ports.progress import TrialReporter
from rootstock.ports.search import trial_name
from rootstock.ports.search_space import Exploration, Interval

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def ray():
    """One local Ray for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with RaySearcher().session():
            import ray

            yield ray


def search(
    objective,
    candidates,
    directory,
    *,
    early_stop=False,
    exploration=None,
    seconds=None,
    **settings,
):
    return RaySearcher(**settings).search(
        objective,
        candidates,
        directory=directory,
        metric="acc",
        mode="max",
        early_stop=early_stop,
        exploration=exploration,
        seconds=seconds,
    )


def learn(params, home, report):
    """Make this module importable by the workers: it is only on the test run's path."""
    report(1, {"acc": 0.0})
    (home / "seen").write_text(os.getcwd())
    return {"acc": params["lr"], "threads": int(os.environ["OMP_NUM_THREADS"])}


def report_slowly(params, home, report):
    reporter = TrialReporter(home, epochs=4, steps=1)
    reporter.step(2, 1, 0.5)
    time.sleep(2)
    reporter.finish(2, 0.5)
    return {"acc": 1.0}


def tell_process(params, home, report):
    (home / "process").write_text(str(os.getpid()))
    return {"acc": 1.0}


def fail_when_odd(params, home, report):
    with (home / "attempts").open("a") as attempts:
        attempts.write("x")
    if params["number"] % 2:
        raise ValueError(f"odd {params['number']}")
    return {"acc": 1.0}


def die_once(params, home, report):
    """Run three epochs with a checkpoint each; the first time, die in the second one."""
    for epoch in range(len(list(home.glob("epoch-*"))), 3):
        (home / f"epoch-{epoch}").write_text(str(os.getpid()))
        report(epoch, {"acc": 0.1})
        if params["dies"] and epoch == 1 and not (home / "died").exists():
            (home / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return {"acc": 0.5}


def die_always(params, home, report):
    if params["dies"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"acc": 0.5}


def ten_epochs(params, home, report):
    try:
        for epoch in range(1, 11):
            report(epoch, {"acc": params["slope"] * epoch})
            (home / f"epoch-{epoch}").touch()
            time.sleep(0.02)
        return {"acc": params["slope"] * 10}
    finally:
        (home / "closed").touch()


def test_trial_name_ignores_order_of_params():
    assert trial_name({"a": 1, "b": 2}) == trial_name({"b": 2, "a": 1})
    assert trial_name({"a": 1}) != trial_name({"a": 2})


def test_no_candidates_need_no_ray(tmp_path):
    assert search(learn, [], tmp_path) == []


def test_trials_come_in_order_with_their_directories(ray, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    candidates = [{"lr": 0.3}, {"lr": 0.1}, {"lr": 0.3}]
    trials = search(learn, candidates, Path("trials"))
    assert [trial.metrics["acc"] for trial in trials] == [0.3, 0.1, 0.3]
    assert [trial.directory.name for trial in trials] == [trial_name(c) for c in candidates]
    assert {trial.metrics["threads"] for trial in trials} == {1}
    assert (trials[0].directory / "seen").read_text() == str(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trials"]


def test_the_progress_of_a_worker_is_printed_here(ray, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("rootstock.system.progress.LINE_SECONDS", 0.1)
    search(report_slowly, [{"lr": 0.1}], tmp_path / "finetune")
    told = capsys.readouterr().err
    assert "finetune: 0 of 1 trials; epoch 2 of 4, loss 0.500; at most " in told
    assert "\nfinetune: done in " in told


def test_one_process_runs_trial_after_trial(ray, tmp_path):
    # Starting a process and importing torch takes longer than a head.
    search(tell_process, [{"number": n} for n in range(3)], tmp_path, concurrent=1)
    assert len({path.read_text() for path in tmp_path.glob("trial-*/process")}) == 1


def test_trial_has_cores_that_it_asks_for(ray, tmp_path):
    cores = min(2, int(ray.cluster_resources()["CPU"]))
    (trial,) = search(learn, [{"lr": 0.1}], tmp_path, cpus_per_trial=cores)
    assert trial.metrics["threads"] == cores


def test_exception_ends_its_own_trial_without_retry(ray, tmp_path):
    trials = search(fail_when_odd, [{"number": n} for n in range(3)], tmp_path)
    assert [trial.error for trial in trials] == ["", "ValueError: odd 1", ""]
    assert (trials[1].directory / "attempts").read_text() == "x"
    assert "raise ValueError" in (trials[1].directory / "error.txt").read_text()


def test_all_failed_returns_all_errors(ray, tmp_path):
    trials = search(fail_when_odd, [{"number": 1}, {"number": 3}], tmp_path)
    assert [trial.error for trial in trials] == ["ValueError: odd 1", "ValueError: odd 3"]


def test_missing_metric_is_an_error(ray, tmp_path):
    (trial,) = search(lambda params, home, report: {"loss": 1.0}, [{}], tmp_path)
    assert trial.error == "KeyError: 'acc'"


def test_killed_trial_resumes_in_its_directory(ray, tmp_path, capsys):
    trials = search(die_once, [{"dies": True}, {"dies": False}], tmp_path)
    assert [trial.error for trial in trials] == ["", ""]
    home = trials[0].directory
    first, last = ((home / f"epoch-{n}").read_text() for n in (0, 2))
    assert (home / "died").exists()
    assert first != last
    assert capsys.readouterr().out == ""


def test_trial_that_always_dies_is_given_up(ray, tmp_path):
    trials = search(die_always, [{"dies": True}, {"dies": False}], tmp_path, max_failures=1)
    assert "its process died" in trials[0].error
    assert trials[0].metrics == {}
    assert trials[1].metrics == {"acc": 0.5}


def test_early_stop_ends_the_worse_trials(ray, tmp_path):
    candidates = [{"slope": slope} for slope in (1.0, 0.1, 0.2, 0.3)]
    trials = search(ten_epochs, candidates, tmp_path, early_stop=True, concurrent=1)
    epochs = [len(list(trial.directory.glob("epoch-*"))) for trial in trials]
    assert epochs[0] == 10
    assert max(epochs[1:]) < 10
    assert [trial.error for trial in trials] == [""] * 4
    assert all((trial.directory / "closed").exists() for trial in trials[:-1])


def test_too_many_gpus_is_rejected(ray, tmp_path):
    with pytest.raises(TrainingError, match="gpus_per_trial is 64, but .* more than .* GPUs"):
        search(learn, [{"lr": 1}], tmp_path, gpus_per_trial=64)


def test_local_ray_listens_on_loopback_only(ray):
    psutil = pytest.importorskip("psutil")
    listening = {
        connection.laddr.ip
        for process in psutil.Process().children(recursive=True)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert listening


SPACE = {"rate": Interval(1e-4, 1e-1, log=True), "kind": ("good", "bad")}
START = {"rate": 1e-4, "kind": "bad"}


def near_the_middle(params, home, report):
    """Best at a rate of 3e-3; the directory counts the first call of a kind."""
    with (home / "calls").open("a") as calls:
        calls.write("x")
    distance = abs(math.log10(params["rate"] / 3e-3))
    return {"acc": (1.0 if params["kind"] == "good" else 0.0) - distance}


def test_optuna_draws_more_trials_and_learns_from_them(ray, tmp_path):
    trials = search(
        near_the_middle, [START], tmp_path, exploration=Exploration(SPACE, 24, 0), concurrent=1
    )
    assert len(trials) == 24
    assert trials[0].params == START
    later = [trial.metrics["acc"] for trial in trials[12:]]
    assert sum(later) / 12 > sum(trial.metrics["acc"] for trial in trials[:12]) / 12
    assert max(later) > 0.7


def test_search_begun_again_draws_only_what_is_missing(ray, tmp_path):
    first = search(near_the_middle, [START], tmp_path, exploration=Exploration(SPACE, 4, 0))
    again = search(near_the_middle, [START], tmp_path, exploration=Exploration(SPACE, 6, 0))
    assert {trial.directory for trial in first} < {trial.directory for trial in again}
    assert len(again) == 6


def test_failed_explored_trials_do_not_end_the_search(ray, tmp_path):
    def fail_when_bad(params, home, report):
        if params["kind"] == "bad":
            raise ValueError("bad")
        return {"acc": 1.0}

    trials = search(fail_when_bad, [START], tmp_path, exploration=Exploration(SPACE, 8, 0))
    assert trials[0].error == "ValueError: bad"
    assert any(not trial.error for trial in trials)


@pytest.mark.parametrize("patience", [120.0, 0.6])
def test_search_starts_nothing_after_time_limit(ray, tmp_path, monkeypatch, patience):
    """Either the trial notices it, or Ray does before the trial has a process."""
    monkeypatch.setattr("rootstock.integrations.ray.search.PATIENCE_SECONDS", patience)
    trials = search(learn, [{"lr": 0.1}, {"lr": 0.2}], tmp_path, seconds=-0.5)
    assert [trial.error for trial in trials] == ["no time was left to start it"] * 2
    assert all(trial.timed_out for trial in trials)


@dataclass(frozen=True)
class Shared:
    """Two processes add their ranks; the first time, the second one is killed."""

    workers: int = 2

    def __call__(self, params, home, report):
        import torch
        import torch.distributed as dist

        rank, total = dist.get_rank(), torch.zeros(())
        for epoch in range(1, 4):
            part = torch.tensor(float(rank + 1))
            dist.all_reduce(part)
            total += part
            report(epoch, {"acc": total.item()})
            if rank == 1 and epoch == 2 and not (home / "died").exists():
                (home / "died").touch()
                time.sleep(3)  # Ray checks its processes once per second
                os.kill(os.getpid(), signal.SIGKILL)
        return {"acc": total.item()}


@pytest.mark.timeout(600)
def test_team_shares_trial_and_killed_member_is_replaced(ray, tmp_path):
    (trial,) = search(Shared(), [{}], tmp_path)
    assert trial.error == ""
    assert trial.metrics["acc"] == 9.0
    assert (trial.directory / "died").exists()


@pytest.mark.timeout(600)
def test_a_failing_team_is_one_failed_trial(ray, tmp_path):
    @dataclass(frozen=True)
    class Failing:
        workers: int = 2

        def __call__(self, params, home, report):
            raise ValueError("no luck")

    (trial,) = search(Failing(), [{}], tmp_path, max_failures=0)
    assert trial.error == "TrainingError: ValueError: no luck"
