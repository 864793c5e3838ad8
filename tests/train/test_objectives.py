import pickle

import numpy as np
import pytest

from rootstock.ports import NullRunLogger, SequentialSearcher
from rootstock.train.objectives import HeadObjective, Tracking

CANDIDATES = [{"tap": "last", "l2": l2} for l2 in (0.01, 1.0)]


@pytest.fixture
def objective(tmp_path):
    random = np.random.default_rng(0)
    labels = np.tile(np.arange(3), 20)
    features = (random.normal(size=(60, 5)) + 3 * np.eye(5)[labels]).astype(np.float16)
    for split in ("train", "val"):
        np.save(tmp_path / f"{split}.npy", features)
    return HeadObjective(
        train_features={"last": tmp_path / "train.npy"},
        val_features={"last": tmp_path / "val.npy"},
        train_labels=labels,
        val_labels=labels,
        n_classes=3,
        class_weight=None,
        tracking=Tracking(NullRunLogger(), ""),
    )


def search(objective, directory):
    return SequentialSearcher().search(
        objective,
        CANDIDATES,
        directory=directory,
        metric="val_log_loss",
        mode="min",
        early_stop=False,
    )


def test_each_candidate_is_fitted_and_measured(objective, tmp_path):
    trials = search(objective, tmp_path / "search")
    assert [trial.params["l2"] for trial in trials] == [0.01, 1.0]
    assert trials[0].metrics["val_log_loss"] < trials[1].metrics["val_log_loss"]
    assert all((trial.directory / "head.safetensors").exists() for trial in trials)


def test_a_finished_trial_is_not_fitted_again(objective, tmp_path, monkeypatch):
    first = search(objective, tmp_path / "search")
    monkeypatch.setattr("rootstock.train.objectives.fit_linear_head", None)
    assert search(objective, tmp_path / "search") == first


def test_one_crashing_trial_leaves_the_others(objective, tmp_path):
    broken = [{"tap": "none", "l2": 1.0}, CANDIDATES[0]]
    trials = SequentialSearcher().search(
        objective, broken, directory=tmp_path, metric="x", mode="min", early_stop=False
    )
    assert "KeyError: 'none'" in trials[0].error
    assert not trials[1].error


def test_an_objective_travels_to_other_processes(objective, tmp_path):
    copy = pickle.loads(pickle.dumps(objective))
    assert copy(CANDIDATES[0], tmp_path, lambda step, values: None)["val_accuracy"] > 0.9
