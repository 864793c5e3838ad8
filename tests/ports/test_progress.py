import pytest

from rootstock.ports import progress
from rootstock.ports.progress import FILE, TrialProgress, TrialReporter, TrialWatch


@pytest.fixture
def now(monkeypatch):
    """A clock that a test sets."""
    clock = {"time": 100.0}
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock["time"])
    return clock


def begin(root, name, *, epochs=10, steps=5):
    folder = root / f"trial-{name}"
    folder.mkdir()
    return TrialReporter(folder, epochs, steps)


def test_watch_reads_trial_reports_and_remaining_work(tmp_path, now):
    first, second = begin(tmp_path, "a"), begin(tmp_path, "b")
    watch = TrialWatch(tmp_path, total=2)
    assert watch.describe() == ""
    now["time"] += 60
    first.step(3, 5, 0.25)  # 3 of 10 epochs
    second.step(2, 5, 0.5)  # 2 of 10: a quarter of both is done after a minute
    assert watch.describe() == (
        "epoch 3 of 10, loss 0.250; epoch 2 of 10, loss 0.500; at most 3.0 minutes left"
    )


def test_a_trial_that_ended_early_counts_as_done(tmp_path, now):
    watch = TrialWatch(tmp_path, total=2)
    first, second = begin(tmp_path, "a"), begin(tmp_path, "b")
    now["time"] += 60
    first.finish(4, 0.1)
    second.step(5, 5, 0.2)
    assert watch.describe() == "epoch 5 of 10, loss 0.200; at most 20 s left"


def test_earlier_work_does_not_count_as_speed(tmp_path, now):
    reporter = begin(tmp_path, "a")
    reporter.step(5, 5, 0.5)
    watch = TrialWatch(tmp_path, total=1)
    assert watch.describe() == "epoch 5 of 10, loss 0.500"
    now["time"] += 60
    reporter.step(6, 5, 0.5)
    assert watch.describe().endswith("at most 4.0 minutes left")


def test_a_trial_writes_every_few_seconds_only(tmp_path, now):
    reporter = begin(tmp_path, "a")
    reporter.step(1, 1, 1.0)
    reporter.step(1, 2, 1.0)
    assert TrialProgress.read(tmp_path / "trial-a").share == pytest.approx(0.02)
    now["time"] += 5
    reporter.step(1, 3, 1.0)
    assert TrialProgress.read(tmp_path / "trial-a").share == pytest.approx(0.06)


def test_a_damaged_file_is_as_none(tmp_path):
    begin(tmp_path, "a")
    (tmp_path / "trial-a" / FILE).write_text("{")
    assert TrialProgress.read(tmp_path / "trial-a") is None
    assert TrialWatch(tmp_path, total=1).describe() == ""


def test_many_trials_at_once_are_counted_not_listed(tmp_path):
    for number in range(6):
        begin(tmp_path, str(number)).step(1, 1, 1.0)
    assert "3 more trials" in TrialWatch(tmp_path, total=6).describe()


def test_trials_of_an_earlier_search_are_not_counted(tmp_path, now):
    begin(tmp_path, "a").finish(10, 0.1)
    running = begin(tmp_path, "b")
    watch = TrialWatch(tmp_path, 1, [tmp_path / "trial-b"])
    now["time"] += 60
    running.step(5, 5, 0.5)
    assert watch.describe() == "epoch 5 of 10, loss 0.500; at most 60 s left"
