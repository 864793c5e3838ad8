"""Damaged results of earlier stages: the next stage rejects them with a clear error."""

import os
import shutil
from pathlib import Path

import pytest

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.errors import DataError, RootstockError
from rootstock.model.bundle import read_bundle
from rootstock.ports.runs import NullRunLogger
from rootstock.ports.search import SequentialSearcher
from rootstock.ports.spread import InProcess
from rootstock.workflow.evaluate import evaluate_model
from rootstock.workflow.features import cache_features
from rootstock.workflow.plan import make_plan
from rootstock.workflow.register import register_model
from rootstock.workflow.result import render_result
from rootstock.workflow.run import run_all
from rootstock.workflow.train import train_model
from tests.bundles import tiny_backbone
from tests.data.folders import write_classes
from tests.refusals import find_refusal

pytestmark = pytest.mark.integration

SETTINGS = [
    "assess.probe_folds=2",
    f"backbone.weights={tiny_backbone().card.weights}",
    "train.epochs=1",
    "train.l2_grid=[0.1]",
    "plan.strategy=linear_probe",
]
NULL, IN_TURN = NullRunLogger(), SequentialSearcher()
STAGES = {
    "plan": lambda config, paths: make_plan(config, paths, searcher=IN_TURN),
    "features": lambda config, paths: cache_features(config, paths, spreader=InProcess()),
    "train": lambda config, paths: train_model(config, paths, runs=NULL, searcher=IN_TURN),
    "evaluate": lambda config, paths: evaluate_model(config, paths, runs=NULL),
    "register": lambda config, paths: register_model(config, paths, runs=NULL, registry=None),
    "the result": lambda _, paths: render_result(paths),
    "the bundle": lambda _, paths: read_bundle(paths.model),
}
READ_BY = {
    "artifacts/manifest.parquet": "plan",
    "artifacts/profile.json": "plan",
    "artifacts/plan.json": "features",
    "artifacts/features.json": "train",
    "artifacts/training.json": "evaluate",
    "artifacts/model/model.onnx": "evaluate",
    "artifacts/model/bundle.json": "register",
    "reports/metrics.json": "register",
    "reports/per_class.csv": "register",
    "artifacts/registration.json": "the result",
    "reports/forecast.json": "the result",
    "artifacts/model/checksums.json": "the bundle",
    "artifacts/model/golden/golden.json": "the bundle",
    "artifacts/model/golden/0.png": "the bundle",
    "artifacts/model/model.safetensors": "the bundle",
    "artifacts/model/reference.safetensors": "the bundle",
    "artifacts/model/seen.safetensors": "the bundle",
}
DAMAGE = {
    "missing": None,
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "an empty object": lambda content: b"{}",
    "nested too deep": lambda content: b"[" * 100_000,
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = write_classes(tmp_path_factory.mktemp("photos"), {"ants": 24, "bees": 24})
    return load_config(None, overrides=[f"data.root={root}", *SETTINGS])


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    paths = Paths(tmp_path_factory.mktemp("finished"))
    ports = {"runs": NULL, "searcher": IN_TURN, "racer": IN_TURN, "spreader": InProcess()}
    run_all(config, paths, registry=None, **ports)
    return paths.root


@pytest.fixture
def project(finished, tmp_path):
    return Paths(shutil.copytree(finished, tmp_path / "project"))


@pytest.mark.parametrize(("file", "reader"), READ_BY.items())
def test_damaged_result_is_rejected_with_way_out(project, config, file, reader):
    path = project.root / file
    content = path.read_bytes()
    for name, damage in DAMAGE.items():
        path.unlink()
        if damage:
            path.write_bytes(damage(content))
            if path.suffix == ".csv" and name not in ("half", "missing"):
                path.write_bytes(content)
                continue  # any text is a table
        refusal = find_refusal(lambda: STAGES[reader](config, project))
        assert refusal is not None, name
        assert refusal.hint, name
        path.write_bytes(content)
    path.unlink()
    path.mkdir()
    refusal = find_refusal(lambda: STAGES[reader](config, project))
    assert refusal is not None
    assert refusal.hint


@pytest.mark.parametrize(
    ("file", "writer"),
    [
        ("artifacts/plan.json", "plan"),
        ("artifacts/features.json", "features"),
        ("artifacts/training.json", "train"),
        ("artifacts/decisions.parquet", "evaluate"),
        ("reports/evaluation.md", "evaluate"),
        (".rootstock/ledger.jsonl", "evaluate"),
        ("artifacts/registration.json", "register"),
        ("reports/model_card.md", "register"),
    ],
)
def test_folder_in_place_of_result_is_named(project, config, file, writer):
    path = project.root / file
    path.unlink()
    path.mkdir()
    (path / "notes.txt").touch()
    with pytest.raises(RootstockError) as caught:
        STAGES[writer](config, project)
    assert str(path) in str(caught.value)
    assert "away" in caught.value.hint
    assert (path / "notes.txt").exists()


@pytest.mark.parametrize("swap", [os.mkfifo, Path.touch, Path.mkdir, lambda path: None])
def test_image_that_is_swapped_during_run_is_named(project, config, swap, tmp_path):
    root = shutil.copytree(config.data.root, tmp_path / "photos")
    for path in [*root.rglob("*.png"), *root.rglob("*.jpg")]:
        path.unlink()
        swap(path)
    moved = load_config(None, overrides=[f"data.root={root}", *SETTINGS])
    with pytest.raises(DataError, match="since it was indexed") as caught:
        STAGES["train"](moved, project)
    assert caught.value.hint
