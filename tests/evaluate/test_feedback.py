import pytest

from rootstock.errors import ArtifactError, DataError
from rootstock.evaluate.feedback import (
    COLUMNS,
    AmbiguousRequestError,
    FeedbackLog,
    UnknownRequestError,
    append_feedback,
    judge_answer,
    measure_feedback,
)

ONE, TWO = "a" * 64, "b" * 64


def answer(sha256=ONE, task="single_label", request_id="r1", **columns):
    given = {"request_id": request_id, "sha256": sha256, "model": "m", "version": "3", "task": task}
    return given | ({"label": "ant", "probability": 0.9} | columns)


def judge(true, **more):
    return judge_answer([answer(**more)], true)


@pytest.mark.parametrize(
    ("task", "columns", "label", "score"),
    [
        ("single_label", {"label": "ant"}, "ant", 1),
        ("single_label", {"label": "ant"}, "bee", 0),
        ("single_label", {"label": "ant"}, "a new class", 0),
        ("multi_label", {"labels": "ant;bee"}, '["bee", "ant"]', 1),
        ("multi_label", {"labels": "ant;bee"}, '["ant"]', 0),
        ("multi_label", {"labels": ""}, "[]", 1),
        ("localisation", {"label": "ant"}, "ant", 1),
        ("localisation", {"label": "ant"}, '["bee", 0, 0, 1, 1]', 0),
        ("regression", {"value": 3.0, "values": "3"}, "4.5", 1.5),
    ],
)
def test_each_task_judges_its_answers(task, columns, label, score):
    assert judge(label, task=task, **columns).score == score


@pytest.mark.parametrize(
    ("task", "label"),
    [
        ("single_label", " "),
        ("multi_label", "ant"),
        ("regression", "many"),
        ("single_label", "a\nb"),
    ],
)
def test_a_label_of_another_kind_is_rejected(task, label):
    with pytest.raises(DataError):
        judge(label, task=task, value=1.0)


def test_unknown_request_is_an_error():
    with pytest.raises(UnknownRequestError, match="no request with this id"):
        judge_answer([], "ant")
    with pytest.raises(UnknownRequestError, match="no image with this SHA-256"):
        judge_answer([answer()], "ant", sha256=TWO)


def test_several_images_need_a_hash():
    answers = [answer(), answer(TWO, label="bee")]
    with pytest.raises(AmbiguousRequestError, match="2 images"):
        judge_answer(answers, "bee")
    assert judge_answer(answers, "bee", sha256=TWO).score == 1


def test_answer_of_older_journal_is_not_judged():
    with pytest.raises(AmbiguousRequestError, match="older"):
        judge_answer([answer(task=None)], "ant")


def test_later_label_replaces_earlier_one_and_both_stay(tmp_path):
    append_feedback(tmp_path, [judge("ant")])
    append_feedback(tmp_path, [judge("bee"), judge("ant", request_id="r2")])
    rows = FeedbackLog(tmp_path).rows()
    assert [(row.request_id, row.label) for row in rows] == [("r1", "bee"), ("r2", "ant")]
    lines = (tmp_path / "feedback.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert len(lines) == 4


def test_reading_continues_after_last_read_row(tmp_path):
    log = FeedbackLog(tmp_path)
    assert log.score("m", "3", window=10) is None
    append_feedback(tmp_path, [judge("ant")])
    assert log.score("m", "3", window=10).images == 1
    append_feedback(tmp_path, [judge("bee", request_id=f"r{n}") for n in range(2, 5)])
    found = log.score("m", "3", window=10)
    assert (found.value, found.images) == (0.25, 4)
    assert 0.0 < found.low < 0.25 < found.high < 0.75
    assert log.score("m", "3", window=3).value == 0
    assert log.score("m", "4", window=3) is None
    (tmp_path / "feedback.csv").unlink()
    assert log.rows() == []


def test_row_that_was_cut_off_costs_no_other(tmp_path):
    append_feedback(tmp_path, [judge("ant"), judge("ant", request_id="r2")])
    path = tmp_path / "feedback.csv"
    path.write_bytes(path.read_bytes()[:-30] + b'"')
    log = FeedbackLog(tmp_path)
    assert [row.request_id for row in log.rows()] == ["r1"]
    append_feedback(tmp_path, [judge("bee", request_id="r3")])
    assert [row.request_id for row in log.rows()] == ["r1", "r3"]


def test_errors_of_numbers_have_a_normal_interval():
    rows = [judge(label, task="regression", value=1.0) for label in ("1", "2", "4")]
    found = measure_feedback(rows)
    assert (found.metric, found.images) == ("mean_absolute_error", 3)
    assert found.value == pytest.approx(4 / 3)
    assert found.low < found.value < found.high


def test_folder_that_cannot_be_written_is_error(tmp_path):
    with pytest.raises(ArtifactError, match="cannot be written"):
        append_feedback(tmp_path / "none", [judge("ant")])
