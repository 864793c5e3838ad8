"""From a version back to its inputs."""

import re
import shlex

import pytest

from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.data.manifest import Manifest
from rootstock.errors import RootstockError
from rootstock.model.lineage import open_ends, shareable, trace
from rootstock.registry import reproduce

COMMIT = "a" * 40
LINEAGE = {
    "git_commit": f"{COMMIT}+changes",
    "git_changes": ["params.yaml", "data/raw.dvc", "dvc.lock"],
    "data_dvc": "outs:\n- md5: abc.dir\n  path: raw\n",
    "params": Config().model_dump(mode="json"),
    "data_hash": "d",
    "plan_hash": "p",
    "libraries": {"torch": "0.1"},
}


def make_recipe(lineage, project, name="again"):
    return reproduce.make_recipe(lineage, version="7", folder=project / name, project=project)


def test_changes_of_recorded_files_leave_nothing_open():
    assert open_ends(LINEAGE) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"git_commit": ""}, "the git commit is not recorded"),
        (
            {"git_changes": ["src/rootstock/heads/linear.py"]},
            "uncommitted changes.*: src/rootstock/heads/linear.py",
        ),
        ({"data_dvc": ""}, "the images were not versioned by DVC"),
        ({"params": {"data": {"root": ".../photos"}}}, "data.root was the absolute path"),
    ],
)
def test_what_is_missing_is_reported(change, words):
    (found,) = open_ends(LINEAGE | change)
    assert re.search(words, found)


def test_older_model_lists_missing_records():
    found = open_ends({"git_commit": f"{COMMIT}+changes", "data_hash": "d"})
    assert len(found) == 3
    assert any("an older Rootstock trained" in one for one in found)


def test_absolute_paths_are_not_recorded():
    params = {"data": {"root": "/home/ann/photos"}, "l2": [0.1], "name": "a/b"}
    assert shareable(params) == {"data": {"root": ".../photos"}, "l2": [0.1], "name": "a/b"}


def test_lineage_holds_params_libraries_and_the_dvc_file(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/raw.dvc").write_text("outs: []")
    found = trace(
        Config().model_dump(mode="json"), tmp_path, data_hash="d", plan_hash="p", weights_sha256="w"
    )
    assert found["data_dvc"] == "outs: []"
    assert found["params"]["train"]["batch_size"] == 32
    assert {"torch", "numpy", "rootstock"} <= set(found["libraries"])


def test_the_commands_name_commit_data_and_check(tmp_path):
    recipe = reproduce.make_recipe(
        LINEAGE, version="7", folder=tmp_path / "again", project=tmp_path
    )
    text = "\n".join(recipe.commands)
    assert f"checkout {COMMIT}\n" in text
    assert "(dvc checkout data/raw.dvc || dvc pull data/raw.dvc)" in text
    assert recipe.commands[-1] == f"rootstock reproduce 7 --check {tmp_path / 'again'}"
    assert "batch_size: 32" in recipe.params


def test_the_splits_of_the_project_come_along(tmp_path):
    Manifest(()).write(tmp_path / "artifacts/manifest.parquet")
    commands = reproduce.make_recipe(
        LINEAGE, version="7", folder=tmp_path / "again", project=tmp_path
    ).commands
    last = Paths(tmp_path / "again").last_manifest
    assert any(line.startswith(f"cp artifacts/manifest.parquet {last} ") for line in commands)


def test_another_library_version_is_reported():
    (told,) = reproduce.other_libraries(LINEAGE)
    assert told.startswith("torch ")
    assert told.endswith("(was 0.1)")


def test_nothing_is_run_into_an_existing_folder(tmp_path):
    recipe = make_recipe(LINEAGE, tmp_path, "")
    with pytest.raises(RootstockError, match="exists already"):
        reproduce.run_recipe(LINEAGE, recipe, tmp_path)


def test_without_a_commit_nothing_is_cloned(tmp_path):
    bare = LINEAGE | {"git_commit": ""}
    recipe = make_recipe(bare, tmp_path)
    assert not re.search("git (clone|-C)", "\n".join(recipe.commands))
    with pytest.raises(RootstockError, match="the git commit is not recorded"):
        reproduce.run_recipe(bare, recipe, tmp_path)
    assert not list(tmp_path.iterdir())


def test_folder_without_commit_is_not_project_of_version(tmp_path):
    recipe = reproduce.make_recipe(
        LINEAGE, version="7", folder=tmp_path / "again", project=tmp_path
    )
    with pytest.raises(RootstockError, match=f"there is no commit {COMMIT}"):
        reproduce.run_recipe(LINEAGE, recipe, tmp_path)


def test_missing_reproduction_cannot_be_checked(tmp_path):
    with pytest.raises(RootstockError, match="contains no model(.|\n)*run the commands"):
        reproduce.check_folder(LINEAGE, tmp_path / "mine/model.safetensors", tmp_path)


def test_other_data_are_found_out(tmp_path, monkeypatch):
    Manifest(()).write(tmp_path / "artifacts/manifest.parquet")
    monkeypatch.setattr(reproduce.TransferPlan, "read", lambda path: type("P", (), {"hash": "p"}))
    for folder in ("artifacts/model", "mine"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "model.safetensors").write_bytes(b"w")
    found = reproduce.check_folder(LINEAGE, tmp_path / "mine/model.safetensors", tmp_path)
    assert [same for _, same in found] == [False, True, True]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"git_commit": "--upload-pack=x"}, "is not a valid commit"),
        (
            {"params": {"data": {"root": "../../home"}}},
            "'../../home', which is outside",
        ),
        ({"params": {"backbone": {"weights": "a/../../b.safetensors"}}}, "outside of its"),
        ({"params": {"backbone": {"candidates": ["-rf"]}}}, "outside of its"),
        ({"data_dvc": "outs:\n- path: ../../x\n"}, r"only raw, but it names \.\./\.\./x"),
        ({"data_dvc": "outs:\n- path: raw\ncmd: rm x\n"}, "or has other keys"),
        ({"data_dvc": "- 1"}, "is not valid"),
    ],
)
def test_a_model_cannot_name_files_elsewhere(change, words, tmp_path):
    with pytest.raises(RootstockError, match=words):
        make_recipe(LINEAGE | change, tmp_path)


def test_names_with_blanks_and_quotes_stay_one_word(tmp_path):
    params = {"data": {"root": "my photos; touch x"}, "backbone": {}}
    recipe = make_recipe(LINEAGE | {"params": params, "data_dvc": ""}, tmp_path)
    [copy] = [line for line in recipe.commands if line.startswith("cp -r")]
    assert shlex.split(copy, comments=True)[2] == "my photos; touch x"
