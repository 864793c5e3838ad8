"""The recorded origin of a model."""

import subprocess

import pytest

from rootstock.config.schema import Config
from rootstock.model.lineage import experiment, open_ends, shareable, trace

PARAMS = Config().model_dump(mode="json")
HASHES = {"data_hash": "d", "plan_hash": "p", "weights_sha256": "w"}
WHOLE = {
    "git_commit": "c" * 40,
    "git_changes": ["params.yaml"],
    "params": {"data": {"root": "data/raw"}},
    "data_dvc": "outs: []",
}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git repository with one commit as the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("1\n")
    people = ["-c", "user.name=x", "-c", "user.email=x@x"]
    for command in (["init", "-q"], ["add", "."], [*people, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *command], check=True)
    return tmp_path


def test_commit_and_changes_are_those_of_the_repository(repository):
    clean = trace(PARAMS, repository, **HASHES)
    assert (len(clean["git_commit"]), clean["git_changes"]) == (40, [])
    (repository / "b.py").write_text("2\n")
    (repository / "new.py").write_text("untracked\n")
    changed = trace(PARAMS, repository, **HASHES)
    assert changed["git_commit"] == clean["git_commit"] + "+changes"
    assert changed["git_changes"] == ["b.py"]


def test_hashes_seed_and_settings_are_kept(repository):
    found = trace(PARAMS | {"seed": 5}, repository, **HASHES)
    assert {name: found[name] for name in HASHES} == HASHES
    assert (found["seed"], found["params"]["train"]["batch_size"]) == (5, 32)
    assert found["libraries"]["numpy"].count(".") >= 1
    assert found["python"].startswith("3.")
    assert found["data_dvc"] == ""


def test_without_git_lineage_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = trace(PARAMS, tmp_path, **HASHES)
    assert (found["git_commit"], found["git_changes"]) == ("", [])
    monkeypatch.setenv("PATH", "")
    assert trace(PARAMS, tmp_path, **HASHES)["git_commit"] == ""


def test_images_tracked_by_dvc_are_found(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/raw.dvc").write_text("outs: [x]")
    assert trace(PARAMS, tmp_path, **HASHES)["data_dvc"] == "outs: [x]"
    elsewhere = PARAMS | {"data": PARAMS["data"] | {"root": str(tmp_path / "data/raw")}}
    assert trace(elsewhere, tmp_path, **HASHES)["data_dvc"] == ""


def test_an_experiment_of_dvc_has_a_name(monkeypatch):
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    assert experiment() == ""
    monkeypatch.setenv("DVC_EXP_NAME", "brave-ant")
    assert experiment() == "brave-ant"


def test_only_absolute_paths_are_cut():
    params = {"a": {"b": "/home/me/x", "c": "x/y", "d": 3}, "e": ["/home/me"]}
    assert shareable(params) == {"a": {"b": ".../x", "c": "x/y", "d": 3}, "e": ["/home/me"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"git_changes": ["data/raw.dvc", "dvc.lock"]}, []),
        ({"git_commit": "c" * 40 + "+changes"}, []),
        ({"git_commit": ""}, ["commit is not recorded"]),
        ({"git_changes": ["src/x.py", "params.yaml"]}, ["not recorded: src/x.py"]),
        ({"params": {"a": {"b": ".../x"}, "c": "y"}}, ["a.b was the absolute path .../x"]),
        ({"data_dvc": ""}, ["not versioned by DVC"]),
    ],
)
def test_obstacles_to_reproduction_are_listed(change, said):
    found = open_ends(WHOLE | change)
    assert len(found) == len(said)
    assert all(words in text for words, text in zip(said, found, strict=True))


def test_changes_of_an_older_model_are_not_known():
    older = {k: v for k, v in WHOLE.items() if k not in ("git_changes", "params")}
    found = open_ends(older | {"git_commit": "c" * 40 + "+changes"})
    assert "not recorded which" in found[0]
    assert "an older Rootstock" in found[1]
