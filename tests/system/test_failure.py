import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rootstock.errors import MESSAGE_CHARACTERS, DataError
from rootstock.system.failure import INTERRUPTED, UNEXPECTED, exit_on_failure


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_known_error_is_its_message():
    with pytest.raises(SystemExit, match="^error: no images\n  -> bring some$"), exit_on_failure():
        raise DataError("no images", hint="bring some")


def test_unexpected_error_is_two_lines_and_private_file(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught, exit_on_failure():
        raise ZeroDivisionError("by\nnothing")
    assert caught.value.code == UNEXPECTED == 70
    first, second = capsys.readouterr().err.splitlines()
    assert first == "error: unexpected ZeroDivisionError: by"
    (file,) = tmp_path.glob("rootstock-error-*.txt")
    assert str(file) in second
    assert "Traceback" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def make_circle(folder):
    (folder / "link").symlink_to("link")
    return folder / "link"


def make_file(folder):
    (folder / "file").touch()
    return folder / "file/in it"


@pytest.mark.parametrize("path", [lambda folder: folder / ("x" * 300), make_circle, make_file])
def test_impossible_path_is_a_user_error(tmp_path, path):
    with pytest.raises(SystemExit, match="^error: .*\n  -> use another path"), exit_on_failure():
        path(tmp_path).stat()
    assert not list(tmp_path.glob("rootstock-error-*"))


def test_a_full_disk_still_shows_the_traceback(monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    with pytest.raises(SystemExit), exit_on_failure():
        raise ZeroDivisionError
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_one_line(capsys):
    with pytest.raises(SystemExit) as caught, exit_on_failure():
        raise KeyboardInterrupt
    assert caught.value.code == INTERRUPTED == 130
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_huge_message_keeps_its_beginning_and_its_end():
    error = DataError("begin" + "x" * 10**6 + "end", hint="way out")
    assert len(str(error)) < MESSAGE_CHARACTERS + 100
    assert error.message.startswith("begin")
    assert str(error).endswith("end\n  -> way out")


@pytest.mark.integration
def test_stage_interrupted_at_any_time_prints_no_traceback():
    root = Path(__file__).parents[2]
    stage = subprocess.Popen(
        [sys.executable, "-c", "import pipelines.entry, time; print('ready', flush=True); "
         "time.sleep(60)"],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"},
    )  # fmt: skip
    assert stage.stdout.readline() == "ready\n"  # after its imports, before its work
    stage.send_signal(signal.SIGINT)
    told = stage.communicate(timeout=30)[1]
    assert told.startswith("stopped;")
    assert "Traceback" not in told
