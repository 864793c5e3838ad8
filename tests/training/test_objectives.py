import contextlib
import dataclasses
import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from rootstock.heads.linear import LinearHead, read_head, write_head
from rootstock.ports.runs import NullRun, NullRunLogger
from rootstock.ports.search import SequentialSearcher
from rootstock.tasks.dataset import Dataset
from rootstock.tasks.single_label.learning import SoftmaxSolver
from rootstock.tasks.single_label.task import SingleLabel
from rootstock.training import objectives
from rootstock.training.finetune import BEST
from rootstock.training.images import prepare_images, training_preprocess
from rootstock.training.objectives import FinetuneObjective, HeadObjective
from rootstock.training.optim import FinetuneSettings
from rootstock.training.penalty import strongest_of_equals
from rootstock.training.tracked import Tracking
from rootstock.training.trials import HeadTrial
from tests.bundles import tiny_backbone
from tests.data.folders import write_classes
from tests.data.test_broken_folders import index
from tests.tasks.classes import classes

CANDIDATES = [{"tap": "last", "strengths": strengths} for strengths in ([0.01, 1.0], [1.0])]


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
        task=SingleLabel(),
        train_targets=classes(labels),
        val_targets=classes(labels),
        weighting="none",
        tracking=Tracking(NullRunLogger(), ""),
    )


def search(objective, directory, candidates=CANDIDATES):
    return SequentialSearcher().search(
        objective,
        candidates,
        directory=directory,
        metric="val_log_loss",
        mode="min",
        early_stop=False,
    )


def test_features_are_mapped_into_a_trial_not_copied(objective, tmp_path, monkeypatch):
    given = []

    def spy(solver, features, *arguments, _real=SoftmaxSolver.walk, **options):
        given.append(features)
        return _real(solver, features, *arguments, **options)

    monkeypatch.setattr(SoftmaxSolver, "walk", spy)
    objective(CANDIDATES[1], tmp_path / "trial", lambda step, metrics: None)
    (features,) = given
    assert isinstance(features, np.memmap)
    assert Path(features.filename) == tmp_path / "train.npy"
    assert not features.flags.writeable


def test_each_candidate_is_fitted_and_measured(objective, tmp_path):
    trials = search(objective, tmp_path / "search")
    assert [trial.metrics["l2"] for trial in trials] == [0.01, 1.0]
    assert trials[0].metrics["val_log_loss"] < trials[1].metrics["val_log_loss"]
    assert all((trial.directory / "head.safetensors").exists() for trial in trials)


def test_every_strength_has_losses_on_unseen_images(objective, tmp_path):
    trial = search(objective, tmp_path)[0]
    path = json.loads((trial.directory / "path.json").read_text())["path"]
    assert [row["l2"] for row in path] == [1.0, 0.01]
    assert all(row["cv_log_loss"] > 0 for row in path)


@pytest.mark.parametrize("cross_validated", [400_000, 0])
def test_strengths_far_past_the_best_are_not_tried(
    objective, tmp_path, monkeypatch, cross_validated
):
    monkeypatch.setattr("rootstock.training.objectives.CROSS_VALIDATED", cross_validated)
    random = np.random.default_rng(0)
    for split in ("train", "val"):  # only memorizable
        np.save(tmp_path / f"{split}.npy", random.normal(size=(60, 40)).astype(np.float16))
    candidates = [{"tap": "last", "strengths": [1e-5, 1e-4, 1e-3, 10.0]}]
    trial = search(objective, tmp_path, candidates)[0]
    path = json.loads((trial.directory / "path.json").read_text())["path"]
    assert [row["l2"] for row in path] == [10.0, 1e-3]
    assert trial.metrics["l2"] == 10.0


def test_adjusted_head_is_what_is_kept_and_measured(objective, tmp_path):
    targets = classes(np.minimum(objective.train_targets.values, 1))  # two thirds are of class 1
    skewed = dataclasses.replace(objective, train_targets=targets, val_targets=targets)
    plain = search(skewed, tmp_path / "plain")[1]
    adjusted = search(dataclasses.replace(skewed, weighting="logit_adjusted"), tmp_path / "other")[
        1
    ]
    biases = [read_head(trial.directory / "head.safetensors").bias for trial in (plain, adjusted)]
    assert np.diff(biases[1] - biases[0]) == pytest.approx(-np.log(2), abs=1e-5)
    assert adjusted.metrics["val_log_loss"] > plain.metrics["val_log_loss"]


@pytest.mark.parametrize(
    ("losses", "best"), [([0.5, 0.3, 0.32, 0.6], 2), ([0.1, 0.2, 0.3, 0.4], 0), ([1, 1, 1, 1], 3)]
)
def test_strongest_of_equally_good_penalties_is_used(losses, best):
    of_each = np.outer(losses, [0.1, 1.9])  # so different that their error is above a tenth
    assert strongest_of_equals([0.001, 0.01, 0.1, 1.0], of_each) == best


@pytest.mark.parametrize(("images", "best"), [(20, 1), (20_000, 0)])
def test_with_more_images_a_smaller_difference_counts(images, best):
    spread = np.tile([0.5, 1.5], images // 2)
    losses = np.stack([spread, 1.08 * spread, 3 * spread])
    assert strongest_of_equals([0.01, 0.1, 10.0], losses) == best


def test_a_weak_signal_is_not_given_up():
    spread = np.tile([0.2, 1.8], 50)  # an error of .08
    losses = np.stack([spread, 1.002 * spread, 1.05 * spread])
    assert strongest_of_equals([0.01, 0.1, 10.0], losses) == 1


def test_single_image_class_is_not_cross_validated(objective, tmp_path):
    targets = classes(np.r_[objective.train_targets.values[:-1], 3])
    alone = dataclasses.replace(objective, train_targets=targets)
    assert not search(alone, tmp_path)[0].error


def test_a_finished_trial_is_not_fitted_again(objective, tmp_path, monkeypatch):
    first = search(objective, tmp_path / "search")
    monkeypatch.setattr(SoftmaxSolver, "walk", None)
    assert search(objective, tmp_path / "search") == first


def test_one_crashing_trial_leaves_the_others(objective, tmp_path):
    broken = [{"tap": "none", "strengths": [1.0]}, CANDIDATES[0]]
    trials = SequentialSearcher().search(
        objective, broken, directory=tmp_path, metric="x", mode="min", early_stop=False
    )
    assert "KeyError: 'none'" in trials[0].error
    assert not trials[1].error


def test_an_objective_travels_to_other_processes(objective, tmp_path):
    copy = pickle.loads(pickle.dumps(objective))
    assert copy(CANDIDATES[0], tmp_path, lambda step, values: None)["val_accuracy"] > 0.9


@dataclass
class NotedRun(NullRun):
    """A run that records its calls."""

    id: str = "noted"
    params: dict = field(default_factory=dict)
    steps: list = field(default_factory=list)

    def log_params(self, params):
        self.params |= params

    def log_metrics(self, metrics, *, step=0):
        self.steps.append((step, dict(metrics)))


class NotedRunLogger:
    """Stores every run with the arguments it was opened with."""

    def __init__(self):
        self.opened = []

    @contextlib.contextmanager
    def run(self, name, *, parent_id="", run_id="", tags=None):
        run = NotedRun()
        self.opened.append((name, parent_id, tags, run))
        yield run


@pytest.fixture
def tuning(tmp_path):
    """Return a FinetuneObjective of two epochs on generated images, with a zero head."""
    root = write_classes(tmp_path / "data", {"a": 6, "b": 6})
    manifest = index(root)
    backbone = tiny_backbone()
    preprocess = backbone.card.preprocess()

    def images(split, prepared):
        rows, targets = manifest.rows(split), Dataset.of(manifest).targets(split)
        cache = tmp_path / f"{split}.npy"
        return prepare_images(rows, targets, root=root, preprocess=prepared, cache=cache)

    width = backbone.taps[-1].channels
    zeros = LinearHead(np.zeros((2, width), np.float32), np.zeros(2, np.float32))
    write_head(zeros, tmp_path / "head.safetensors")
    return FinetuneObjective(
        task=SingleLabel(),
        weights=backbone.card.weights,
        backbone="",
        device="cpu",
        tap="last",
        head=tmp_path / "head.safetensors",
        train=images("train", training_preprocess(preprocess)),
        val=images("val", preprocess),
        settings=FinetuneSettings(
            learning_rate=0.0,
            epochs=2,
            batch_size=4,
            freeze_through=None,
            batchnorm="eval",
            layer_decay=1.0,
            head_multiplier=1.0,
            weight_decay=0.0,
            label_smoothing=0.0,
            patience=5,
            augmentation="none",
            flip=False,
            seed=0,
        ),
        tracking=Tracking(
            NotedRunLogger(), "parent", {"rootstock.plan": "p", "rootstock.data": "d"}
        ),
    )


def test_fine_tuning_is_a_child_run_with_epochs(tuning, tmp_path):
    home = tmp_path / "trial"
    home.mkdir()
    tuning({"learning_rate": 1e-3}, home, lambda step, values: None)
    ((name, parent, tags, run),) = tuning.tracking.runs.opened
    assert (name, parent) == ("learning_rate=0.001", "parent")
    assert tags == {"rootstock.plan": "p", "rootstock.data": "d"}
    assert run.params == {"learning_rate": 1e-3}
    assert [step for step, values in run.steps if "val_log_loss" in values] == [1, 2]
    assert "final_val_log_loss" in run.steps[-1][1]


def test_a_finished_fine_tuning_is_returned_at_once(tuning, tmp_path, monkeypatch):
    home = tmp_path / "trial"
    home.mkdir()
    first = tuning({"learning_rate": 1e-3}, home, lambda step, values: None)
    assert (home / BEST).exists()
    monkeypatch.setattr("rootstock.training.objectives.load_backbone", None)
    told = []
    again = tuning({"learning_rate": 1e-3}, home, lambda step, values: told.append(values))
    assert again == first
    assert told == [first]
    assert len(tuning.tracking.runs.opened) == 1


def test_training_before_a_run_is_logged_once(tuning, tmp_path):
    home = tmp_path / "trial"
    home.mkdir()
    nowhere = dataclasses.replace(tuning, tracking=Tracking(NullRunLogger(), ""))
    first = nowhere({"learning_rate": 1e-3}, home, lambda step, values: None)
    for _ in range(2):
        assert tuning({"learning_rate": 1e-3}, home, lambda step, values: None) == first
    ((*_, run),) = tuning.tracking.runs.opened
    assert run.params == {"learning_rate": 1e-3}
    assert run.steps[-1][1]["final_val_log_loss"] == first["val_log_loss"]


def test_killed_fine_tuning_resumes(tuning, tmp_path):
    home = tmp_path / "trial"
    home.mkdir()

    def die(step, values):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuning({"learning_rate": 1e-3}, home, die)
    assert not (home / "result.json").exists()
    steps = []
    tuning({"learning_rate": 1e-3}, home, lambda step, values: steps.append(step))
    assert steps == [2]


def test_diverging_trial_has_error_and_no_result(tuning, tmp_path):
    nan = np.full((2, tiny_backbone().taps[-1].channels), np.nan, np.float32)
    write_head(LinearHead(nan, nan[:, 0]), tuning.head)
    (trial,) = SequentialSearcher().search(
        tuning,
        [{"learning_rate": 1e-3}],
        directory=tmp_path / "search",
        metric="val_log_loss",
        mode="min",
        early_stop=False,
    )
    assert "TrainingError: the loss is nan in epoch 1 at learning rate 0.001" in trial.error
    assert not (trial.directory / "result.json").exists()


def test_a_fine_tuning_travels_to_other_processes(tuning, tmp_path):
    copy = pickle.loads(pickle.dumps(tuning))
    home = tmp_path / "trial"
    home.mkdir()
    metrics = copy({"learning_rate": 1e-3}, home, lambda step, values: None)
    assert {"val_accuracy", "val_log_loss", "val_balanced_accuracy", "seconds"} <= set(metrics)


def test_features_too_large_for_gpu_use_cpu(objective, tmp_path, monkeypatch, caplog):
    cross_validate = SoftmaxSolver.cross_validate

    def fit(*arguments, device, **options):
        if device.type != "cpu":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return cross_validate(*arguments, device=device, **options)

    monkeypatch.setattr(SoftmaxSolver, "cross_validate", fit)
    monkeypatch.setattr(objectives, "pick_device", lambda _: torch.device("meta"))
    (trial,) = search(objective, tmp_path / "search", CANDIDATES[:1])
    assert not trial.error
    assert "do not fit into the memory of meta" in caplog.text


def test_class_means_compete_on_unseen_images(objective, tmp_path):
    candidates = [{"tap": "last", "prototypes": True}, {"tap": "last", "strengths": [1e-4]}]
    means, linear = map(HeadTrial.of, search(objective, tmp_path, candidates))
    assert (means.prototypes, means.l2, means.name) == (True, None, "last, class means")
    assert not linear.prototypes
    assert means.losses_by_penalty("val_log_loss") == {}
    head = read_head(means.directory / "head.safetensors")
    features, targets = np.load(objective.val_features["last"]), objective.val_targets
    loss = objective.task.losses(head.outputs(features), targets).mean()
    assert means.metrics["val_log_loss"] == pytest.approx(loss, abs=1e-5)
    assert means.metrics["unseen_loss"] >= loss - 1e-6


def test_one_image_per_class_gives_class_means(objective, tmp_path):
    features = np.load(objective.train_features["last"])[:3]
    np.save(tmp_path / "few.npy", features)
    few = dataclasses.replace(
        objective,
        train_features={"last": tmp_path / "few.npy"},
        train_targets=classes(np.arange(3)),
    )
    (trial,) = search(few, tmp_path / "search", [{"tap": "last", "prototypes": True}])
    assert "unseen_loss" not in trial.metrics
    assert trial.metrics["val_accuracy"] > 0.8
