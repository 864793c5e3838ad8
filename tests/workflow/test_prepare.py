"""`rootstock train` repeats only the stages whose inputs have changed."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.ports.search import SequentialSearcher
from rootstock.workflow.prepare import hash_weights, prepare_plan
from tests.bundles import tiny_backbone
from tests.data.folders import write_classes

SUFFIXES = (".safetensors", ".json")
PARAMS = """
data: {{root: data, workers: 1}}
backbone: {{weights: {weights}, candidates: {candidates}}}
assess: {{probe_folds: 2}}
plan: {{race: never}}
train: {{epochs: 1, learning_rates: [0.001], l2_grid: [0.1]}}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A data set, and two weights files next to each other."""
    root = tmp_path_factory.mktemp("prepared")
    write_classes(root / "data", {"ants": 16, "bees": 16})
    tiny = Path(tiny_backbone().card.weights)
    (root / "weights").mkdir()
    for name in ("own", "other"):
        for suffix in SUFFIXES:
            shutil.copy(tiny.with_suffix(suffix), root / f"weights/{name}{suffix}")
    return root


def prepare(root, *settings, candidates="[]"):
    """Prepare the plan; return the stages that ran."""
    weights = root / "weights/own.safetensors"
    (root / "params.yaml").write_text(PARAMS.format(weights=weights, candidates=candidates))
    paths = Paths(root)
    written = {"assess": paths.profile, "plan": paths.plan}
    before = {stage: modified(path) for stage, path in written.items()}
    prepare_plan(
        load_config(root / "params.yaml", overrides=settings), paths, searcher=SequentialSearcher()
    )
    return [stage for stage, path in written.items() if modified(path) != before[stage]]


def modified(path):
    return path.stat().st_mtime_ns if path.exists() else None


def replace_weights(file):
    save_file({name: value * 1.5 for name, value in load_file(file).items()}, file)


def test_a_replaced_candidate_is_assessed_again(project):
    other = project / "weights/other.safetensors"
    prepare(project, candidates=f"[{other}]")
    assert prepare(project, candidates=f"[{other}]") == []
    replace_weights(other)
    assert prepare(project, candidates=f"[{other}]") == ["assess", "plan"]


@pytest.mark.parametrize("form", ["list", "tuple", "auto"])
def test_every_file_of_a_candidate_counts(project, form):
    own, other = (project / f"weights/{name}.safetensors" for name in ("own", "other"))
    candidates = {"list": [str(other)], "tuple": (str(other),), "auto": "auto"}[form]
    config = Config(backbone={"weights": str(own), "candidates": candidates})
    before = hash_weights(config)
    assert before.keys() == {str(f.with_suffix(s)) for f in (own, other) for s in SUFFIXES}
    replace_weights(other)
    changed = {file for file, sha256 in hash_weights(config).items() if sha256 != before[file]}
    assert changed == {str(other)}


def test_only_stages_that_read_key_run_again(project):
    prepare(project)
    assert prepare(project, "train.l2_grid=[1.0]") == ["plan"]
    assert prepare(project, "train.l2_grid=[1.0]", "train.epochs=2") == ["assess", "plan"]
    assert prepare(project, "train.l2_grid=[1.0]", "train.epochs=2", "search.concurrent=2") == []


def test_warning_about_data_is_everywhere_and_renews_reports(project, caplog):
    prepare(project)
    (project / "data/empty").mkdir()
    (project / "data/bees/broken.png").write_bytes(b"")
    try:
        prepare(project)
        assert prepare(project) == []
    finally:
        (project / "data/bees/broken.png").unlink()
        (project / "data/empty").rmdir()
    logged = [record.getMessage() for record in caplog.records if "warning: " in record.message]
    reports = [(project / "reports" / name).read_text() for name in ("data.md", "plan.md")]
    for said in ("he class folder empty is empty and is ignored", "1 empty"):
        assert sum(said in text for text in logged) == 2  # of both runs that met it
        assert all(said in text for text in reports)
