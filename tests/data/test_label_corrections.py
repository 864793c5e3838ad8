import logging
import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from rootstock.data.label_corrections import (
    ORIGINAL,
    REMOVE,
    Conflict,
    Correction,
    append_corrections,
    conflicts,
    current,
    locate_corrections,
    read_corrections,
    stamp_time,
)
from rootstock.errors import ArtifactError, DataError, RootstockError

HEADER = "sha256,old,new,who,when,why\n"
TIME = "2026-11-30T09:00:00+00:00"


def correction(image=0, old="ant", new="bee", who="Ada", why=""):
    return Correction(f"{image:064x}", old, new, who, TIME, why)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "corrections.csv"


def test_no_file_means_no_corrections(path):
    assert read_corrections(path) == ()


def test_what_was_added_is_read_again(path):
    rows = [
        correction(new='["a, b", "ü"]', why='says "so"'),
        correction(1, old="", new=REMOVE, who="Ben"),
        replace(correction(2), when=stamp_time()),
    ]
    append_corrections(path, rows[:1])
    append_corrections(path, rows[1:])
    assert read_corrections(path) == tuple(rows)
    assert path.read_text(encoding="utf-8").startswith(HEADER)


def test_earlier_bytes_are_never_changed(path):
    append_corrections(path, [correction()])
    before = path.read_bytes()
    append_corrections(path, [correction(1)])
    assert path.read_bytes().startswith(before)


def test_a_reason_of_several_lines_is_one_line(path):
    append_corrections(path, [correction(why="six legs\nand  wings")])
    assert read_corrections(path)[0].why == "six legs and wings"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("abc,ant,bee,Ada," + TIME + ",", "sha256"),
        ("0" * 64 + ",ant,bee,Ada,yesterday,", "yesterday"),
        ("0" * 64 + ",ant,bee,Ada,2026-11-30T09:00:00,", "time zone"),
        ("0" * 64 + ",ant,,Ada," + TIME + ",", "empty"),
        ("0" * 64 + ",ant,bee", "3 cells"),
        ("0" * 64 + ',"ant,bee', "end of data"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(path, line, fault):
    path.write_text(f"{HEADER}\n{line}\n{'0' * 64},ant,bee,Ada,{TIME},\n")
    with pytest.raises(DataError, match=f"(?s)line 3: .*{fault}"):
        read_corrections(path)


def test_another_table_is_not_taken_for_corrections(path):
    path.write_text("path,label\na.png,ant\n")
    with pytest.raises(DataError, match="line 1"):
        read_corrections(path)
    with pytest.raises(DataError, match="line 1"):
        append_corrections(path, [correction()])
    assert path.read_text() == "path,label\na.png,ant\n"


def test_a_spreadsheet_may_have_saved_the_file(path):
    append_corrections(path, [correction()])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    append_corrections(path, [correction(1)])
    assert read_corrections(path) == (correction(), correction(1))


@pytest.mark.parametrize("cut", [10, 66, 75, 85, 100])
def test_truncated_line_is_reported_and_kept(path, caplog, cut):
    append_corrections(path, [correction(), correction(1, new='"bee"')])
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    path.write_bytes(whole[: last + cut])
    with caplog.at_level(logging.WARNING):
        assert read_corrections(path) == (correction(),)
    assert "line 3 is incomplete" in caplog.text
    append_corrections(path, [correction(2)])
    assert read_corrections(path) == (correction(), correction(2))
    assert whole[last : last + cut] in path.read_bytes()


@pytest.mark.parametrize(
    "row",
    [
        correction(new=""),
        correction(new="a\nb"),
        replace(correction(), sha256="A" * 64),
        replace(correction(), when="now"),
    ],
)
def test_unreadable_row_is_not_written(path, row):
    with pytest.raises(DataError, match="invalid correction"):
        append_corrections(path, [correction(), row])
    assert not path.exists()


def test_full_disk_leaves_file_as_it_was(path, monkeypatch):
    append_corrections(path, [correction()])
    before = path.read_bytes()
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from rootstock.data.label_corrections import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 20}, -1))\n"
        f"row = Correction('{0:064x}', 'bee', 'ant', 'Ada', '{TIME}')\n"
        "append_corrections(Path(sys.argv[1]), [row])\n"
    )
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert "ArtifactError" in run.stderr
    assert "cannot be written" in run.stderr
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_missing_or_unwritable_folder_is_an_error(path):
    (path.parent / "file").touch()
    for place in (path.parent / "file" / path.name, path.parent / "none" / path.name):
        with pytest.raises(ArtifactError, match="cannot write"):
            append_corrections(place, [correction()])


def test_a_failed_first_write_leaves_no_file(path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(RootstockError, match="No space left"):
        append_corrections(path, [correction()])
    assert not os.listdir(path.parent)


def test_linked_cache_file_is_replaced_not_overwritten(path, tmp_path):
    append_corrections(path, [correction()])
    cache = tmp_path / "cache"
    for link in (os.link, os.symlink):
        cache.unlink(missing_ok=True)
        path.rename(cache)
        before = cache.read_bytes()
        link(cache, path)
        append_corrections(path, [correction(1)])
        assert cache.read_bytes() == before
        assert read_corrections(path)[-1] == correction(1)


def _append_many(path, who):
    for number in range(25):
        append_corrections(path, [correction(number, who=who)])


def test_several_writers_lose_nothing(path):
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_append_many, args=(path, who)) for who in ("Ada", "Ben")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    rows = read_corrections(path)
    for who in ("Ada", "Ben"):
        assert [row for row in rows if row.who == who] == [
            correction(number, who=who) for number in range(25)
        ]


def test_last_row_of_image_is_in_force():
    first, undone = correction(), correction(old="bee", new="ant")
    assert current([first, correction(1), undone]) == {
        first.sha256: undone,
        correction(1).sha256: correction(1),
    }


def test_undone_image_has_no_correction_in_force():
    rows = [correction(), correction(1), correction(old="bee", new=ORIGINAL)]
    assert current(rows) == {correction(1).sha256: correction(1)}
    assert current([*rows, correction()]) == {one.sha256: one for one in rows[:2]}


def test_undoing_a_correction_settles_a_conflict():
    rows = [correction(new="bee"), correction(new="wasp", who="Ben")]
    undone = correction(old="wasp", new=ORIGINAL)
    assert conflicts([*rows, undone]) == []
    assert conflicts([*rows, undone, correction(new="bee", who="Ben")]) == []
    unseen = correction(new=ORIGINAL, who="Ben")
    assert conflicts([rows[0], unseen]) == [Conflict(rows[0], unseen)]


def test_label_given_without_seeing_the_other_conflicts():
    ada, ben = correction(new="bee"), correction(new="wasp", who="Ben")
    assert conflicts([ada, correction(1), ben]) == [Conflict(ada, ben)]


def test_knowing_or_agreeing_person_causes_no_conflict():
    ada = correction(new="bee")
    assert conflicts([ada, correction(old="bee", new="wasp", who="Ben")]) == []
    assert conflicts([ada, correction(new="bee", who="Ben")]) == []
    assert conflicts([ada, correction(new="wasp")]) == []


def test_a_later_row_settles_a_conflict():
    rows = [correction(new="bee"), correction(new="wasp", who="Ben")]
    assert conflicts([*rows, correction(old="wasp", new="bee")]) == []


def test_corrections_are_next_to_the_images(tmp_path):
    (tmp_path / "labels.csv").touch()
    expected = tmp_path / "corrections.csv"
    assert locate_corrections(tmp_path) == expected
    assert locate_corrections(tmp_path / "labels.csv") == expected


KILLED = """
import os, sys
from pathlib import Path
from rootstock.data import label_corrections
from rootstock.system import files
files.os.fsync = lambda _: os.kill(os.getpid(), 9)  # after the content, before the new name
label_corrections.append_corrections(Path(sys.argv[1]), [
    label_corrections.Correction("0" * 64, "ant", "bee", "Ada", sys.argv[2])
])
"""


def test_later_write_removes_a_killed_writer_s_remains(path):
    append_corrections(path, [correction(1)])
    before = path.read_bytes()
    command = [sys.executable, "-c", KILLED, str(path), TIME]
    assert subprocess.run(command, check=False).returncode == -9
    assert path.read_bytes() == before
    (left,) = path.parent.glob(".corrections.csv.*.tmp")
    others = [path.parent / name for name in (".corrections.csv.tmp", ".corrections.csv.mine.tmp")]
    for other in others:
        other.touch()
    append_corrections(path, [correction(2)])
    assert left.exists()  # it is new, so its writer may be at work
    for one in (left, *others):
        os.utime(one, (0, 0))
    append_corrections(path, [correction(3)])
    assert not left.exists()
    assert all(other.exists() for other in others)
    assert len(read_corrections(path)) == 3
