from pathlib import Path

import pytest

from rootstock.config.paths import Paths, find_file, find_home

PLACES = (".dvc/tmp/exps/tmpab12", ".dvc/tmp/exps/standalone/tmpab12")
"""Where DVC copies a repository to: for `--queue`, and for `--temp`."""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a project in a folder of a git repository, and an experiment of it as DVC makes it."""
    (tmp_path / "repository/.git").mkdir(parents=True)
    (tmp_path / "repository/insects").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "repository/insects"))
    return tmp_path / "repository/insects"


@pytest.mark.parametrize("place", PLACES)
def test_a_try_keeps_what_lasts_in_its_project(project, place):
    tried = project / place / "insects"
    (tried.parent / ".git").mkdir(parents=True)
    tried.mkdir()
    paths = Paths(tried)
    assert paths.home == project
    assert paths.races == project / ".rootstock/races"
    assert paths.lasting(Path("store")) == project / "store"
    assert paths.model == tried / "artifacts/model"
    assert paths.trials == tried / ".rootstock/trials"


@pytest.mark.parametrize("place", PLACES)
def test_a_dvc_repository_may_hold_several_projects(tmp_path, monkeypatch, place):
    for repository in (tmp_path, tmp_path / place):
        (repository / ".git").mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert find_home(tmp_path / place) == tmp_path
    assert find_home(tmp_path / place / "a/b") == tmp_path / "a/b"
    assert find_home(tmp_path / "a/b") == tmp_path / "a/b"


def test_any_other_folder_is_its_own_home(project, tmp_path, monkeypatch):
    assert find_home(project) == project
    assert find_home(tmp_path) == tmp_path
    monkeypatch.delenv("DVC_ROOT")
    assert find_home(project / ".dvc/tmp/exps/tmp1") == project / ".dvc/tmp/exps/tmp1"


def test_file_not_copied_by_git_is_found_in_project(project, monkeypatch):
    tried = project / ".dvc/tmp/exps/tmpab12/insects"
    tried.mkdir(parents=True)
    (tried.parent / ".git").mkdir()
    (project / "own.safetensors").write_bytes(b"w")
    monkeypatch.chdir(tried)
    name = Path("own.safetensors")
    assert find_file(name).read_bytes() == b"w"
    (tried / name).write_bytes(b"other")
    assert find_file(name) == name
    assert find_file(Path("none.safetensors")) == Path("none.safetensors")
