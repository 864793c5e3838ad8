import threading
import time

import pytest

from rootstock.errors import DataError
from rootstock.system import progress
from rootstock.system.progress import Progress, show_seconds


@pytest.fixture
def hurried(monkeypatch):
    """Lines every 20 ms instead of every half minute."""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.02)


def lines(capsys):
    return capsys.readouterr().err.splitlines()


@pytest.mark.usefixtures("hurried")
def test_work_without_terminal_prints_how_far_it_is(capsys):
    looked = threading.Event()

    def describe():
        looked.set()
        return "epoch 2 of 9, loss 0.500"

    with Progress("finetune", 4, "trial", describe=describe) as work:
        work.update()
        assert looked.wait(10)
    first, *_, last = lines(capsys)
    assert first.startswith("finetune: 1 of 4 trials; epoch 2 of 9, loss 0.500; 0 s so far")
    assert last == "finetune: done in 0 s"


@pytest.mark.usefixtures("hurried")
def test_counted_work_says_how_long_it_will_take(capsys, monkeypatch):
    with Progress("index", 2000, "image") as work:
        monkeypatch.setattr(work, "_started", work._started - 60)
        work.update(1000)
        time.sleep(0.2)
    assert "index: 1,000 of 2,000 images; about 60 s left; 60 s so far" in lines(capsys)


@pytest.mark.usefixtures("hurried")
def test_work_within_other_work_shares_its_lines(capsys):
    with Progress("race", 0, "heat"), Progress("pixels", 10, "image"):
        time.sleep(0.2)
    assert lines(capsys)[0] == "race: 0 s so far | pixels: 0 of 10 images; 0 s so far"


def test_short_work_prints_nothing(capsys):
    with Progress("index", 3, "image") as work:
        work.update(3)
    assert lines(capsys) == []


def test_work_that_fails_is_not_called_done(capsys, hurried):
    def fail():
        with Progress("index", 3, "image"):
            time.sleep(0.1)
            raise DataError("no more images")

    with pytest.raises(DataError):
        fail()
    assert not [line for line in lines(capsys) if "done" in line]
    with Progress("index", 3, "image"):  # and leaves nothing open
        time.sleep(0.1)
    assert all("|" not in line for line in lines(capsys))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (89, "89 s"), (100, "1.7 minutes"), (864, "14 minutes"), (9000, "2.5 hours")],
)
def test_a_duration_is_said_as_people_say_it(seconds, words):
    assert show_seconds(seconds) == words
