import pytest

from rootstock.workflow.stage_cache import run_if_changed


@pytest.fixture
def stage(tmp_path):
    """A stage that writes one file, and how often it ran."""
    runs = []

    def write():
        runs.append(1)
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "answer.txt").write_text("42")

    def run(code="1", **inputs):
        record = tmp_path / "record.json"
        run_if_changed(write, record, code=code, inputs=inputs, outputs=[tmp_path / "out"])
        return len(runs)

    return run


def test_a_stage_runs_once_for_the_same_inputs(stage):
    assert stage(seed=1) == 1
    assert stage(seed=1) == 1


def test_a_stage_runs_again_for_other_inputs(stage):
    stage(seed=1)
    assert stage(seed=2) == 2
    assert stage(seed=1) == 3


def test_a_stage_runs_again_for_other_code(stage):
    stage(seed=1)
    assert stage(seed=1, code="2") == 2
    assert stage(seed=1, code="2") == 2


@pytest.mark.parametrize("damage", ["changed", "removed", "added"])
def test_stage_reruns_if_its_files_changed(stage, tmp_path, damage):
    stage(seed=1)
    answer = tmp_path / "out" / "answer.txt"
    if damage == "changed":
        answer.write_text("43")
    elif damage == "removed":
        answer.unlink()
    else:
        (tmp_path / "out" / "more.txt").write_text("")
    assert stage(seed=1) == 2


def test_a_damaged_record_is_not_a_record(stage, tmp_path):
    stage(seed=1)
    (tmp_path / "record.json").write_text("{")
    assert stage(seed=1) == 2
    assert stage(seed=1) == 2


def test_a_stage_that_fails_is_not_kept(tmp_path):
    def fail():
        raise RuntimeError("no")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="no"):
            run_if_changed(fail, tmp_path / "record.json", code="", inputs={}, outputs=[])
