"""All stages without Ray, MLflow, or DVC: real stages, real images, small network."""

import json
import pickle
import re
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.data.manifest import Manifest
from rootstock.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    NoModelError,
    PlanError,
    TrainingError,
)
from rootstock.heads.linear import LinearHead, read_head, write_head
from rootstock.model.bundle import read_bundle
from rootstock.model.novelty import reference_rows
from rootstock.model.predictor import Predictor
from rootstock.plan.ledger import read_ledger
from rootstock.ports.runs import NullRunLogger
from rootstock.ports.search import SequentialSearcher, Trial
from rootstock.ports.spread import InProcess
from rootstock.registry.champion import promote, rollback
from rootstock.review.record import DataReview
from rootstock.tasks.single_label.learning import SoftmaxSolver
from rootstock.training.objectives import HEAD_FILE
from rootstock.training.selection import describe_winner
from rootstock.training.tracked import Tracking
from rootstock.training.trials import FinetunedTrial, HeadTrial, best_trial
from rootstock.workflow import features
from rootstock.workflow.evaluate import evaluate_folder, evaluate_model
from rootstock.workflow.features import cache_features
from rootstock.workflow.known_images import name_images
from rootstock.workflow.plan import make_plan
from rootstock.workflow.project import Project
from rootstock.workflow.register import register_model
from rootstock.workflow.run import run_all
from rootstock.workflow.train import open_planned_job, train_model
from tests.bundles import tiny_backbone
from tests.data.folders import write_classes
from tests.folder_registry import FolderRegistry, alter_bundle

pytestmark = pytest.mark.integration

METRIC = "val_log_loss"

LOSS = "calibrated validation loss"
COUNTS = {"ants": 24, "bees": 24, "wasps": 24}
QUICK = ["train.epochs=1", "train.learning_rates=[0.001]", "train.l2_grid=[0.1]"]


def configure(root, *overrides):
    settings = [
        f"data.root={root}",
        f"backbone.weights={tiny_backbone().card.weights}",
        "search.engine=sequential",
        "assess.probe_folds=2",
        *QUICK,
    ]
    return load_config(None, overrides=[*settings, *overrides])


def go(config, out, registry=None):
    return run_all(
        config,
        Paths(out),
        runs=NullRunLogger(),
        searcher=SequentialSearcher(),
        racer=SequentialSearcher(),
        spreader=InProcess(),
        registry=registry,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_classes(tmp_path_factory.mktemp("data") / "insects", COUNTS)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A finished run; tests that change it copy it first."""
    out = tmp_path_factory.mktemp("finished")
    go(configure(data), out, FolderRegistry(out / "registry"))
    return out


@pytest.fixture
def copied(finished, tmp_path):
    return Paths(shutil.copytree(finished, tmp_path / "copy"))


def test_the_way_leaves_every_artifact_and_report(finished):
    paths = Paths(finished)
    for path in (paths.manifest, paths.profile, paths.plan, paths.features, paths.training):
        assert path.is_file()
    metrics = json.loads(paths.metrics.read_text())
    assert {"accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece", "n_test"} <= set(
        metrics
    )
    assert json.loads(paths.registration.read_text())["alias"] == "champion"


def test_review_is_one_page_whose_pictures_are_there(finished):
    text = (finished / "reports/data.md").read_text()
    pictures = re.findall(r"\((plots/review/.*?)\)", text)
    assert "plots/review/map.png" in pictures
    assert all((finished / "reports" / picture).is_file() for picture in pictures)
    assert DataReview.read(finished / "artifacts/review.json").n_reviewed == sum(COUNTS.values())


def test_forecast_is_compared_and_run_enters_ledger(finished):
    forecast = json.loads((finished / "reports/forecast.json").read_text())
    metrics = json.loads((finished / "reports/metrics.json").read_text())
    (row,) = read_ledger(finished / ".rootstock/ledger.jsonl")
    assert forecast["test_accuracy"] == metrics["accuracy"] == row.test_accuracy
    assert forecast["expected_minutes"] >= 0
    assert forecast["minutes"] >= 0


def test_plan_report_links_existing_picture(finished):
    text = (finished / "reports/plan.md").read_text()
    assert "plots/plan/depth.png" in text
    assert (finished / "reports/plots/plan/depth.png").is_file()


@pytest.mark.parametrize(
    "strategy",
    ["linear_probe", "early_features", "partial_finetune", "probe_then_finetune", "full_finetune"],
)
def test_each_strategy_ends_in_a_model_that_predicts(data, tmp_path, strategy):
    bundle = go(configure(data, f"plan.strategy={strategy}"), tmp_path)
    assert bundle.strategy == strategy
    assert (bundle.facts.tap == "last") is (strategy != "early_features")
    image = (data / "ants/0.png").read_bytes()
    answer = Predictor(bundle).predict([image])[0]
    assert answer.label in COUNTS


def test_same_inputs_give_same_manifest_plan_and_model(data, finished, tmp_path):
    go(configure(data), tmp_path)
    for name in ("manifest.parquet", "profile.json", "review.json", "plan.json", "features.json"):
        assert (tmp_path / "artifacts" / name).read_bytes() == (
            finished / "artifacts" / name
        ).read_bytes(), name
    weights = "artifacts/model/model.safetensors"
    assert (tmp_path / weights).read_bytes() == (finished / weights).read_bytes()


def test_store_is_merged_regularly_and_at_end(data, copied, monkeypatch):
    config = configure(data, "plan.strategy=early_features")
    make_plan(config, copied, searcher=SequentialSearcher())
    shutil.rmtree(copied.below(config.features.store))
    merged = []
    monkeypatch.setattr(features, "compact", merged.append)
    monkeypatch.setattr(features, "PART_IMAGES", 10)
    monkeypatch.setattr(features, "COMPACT_PARTS", 2)
    images = cache_features(config, copied).computed
    assert len(merged) == -(-images // 20) > 1


def test_a_job_travels_without_its_network(data, copied, monkeypatch):
    config, sent = configure(data, "plan.strategy=early_features"), []
    make_plan(config, copied, searcher=SequentialSearcher())

    class Sending(InProcess):
        def spread(self, work, parts):
            sent.append(pickle.dumps(work))
            return super().spread(pickle.loads(sent[0]), parts)

    cache_features(config, copied, spreader=Sending())
    assert "reader" not in vars(pickle.loads(sent[0]))
    assert len(sent[0]) < 20_000


def test_a_killed_training_does_not_repeat_finished_trials(data, copied, monkeypatch):
    config = configure(data, "plan.strategy=early_features")
    n_taps = len(make_plan(config, copied, searcher=SequentialSearcher()).taps)
    cache_features(config, copied)
    fitted, walk = [], SoftmaxSolver.walk

    def fit(*arguments, **others):
        if len(fitted) == 1:
            raise KeyboardInterrupt
        fitted.append(others)
        return walk(*arguments, **others)

    monkeypatch.setattr(SoftmaxSolver, "walk", fit)
    with pytest.raises(KeyboardInterrupt):
        train_model(config, copied, runs=NullRunLogger(), searcher=SequentialSearcher())
    monkeypatch.undo()
    again = []

    def count(*arguments, **others):
        again.append(others)
        return walk(*arguments, **others)

    monkeypatch.setattr(SoftmaxSolver, "walk", count)
    train_model(config, copied, runs=NullRunLogger(), searcher=SequentialSearcher())
    assert len(again) == n_taps - 1 + 1  # the last is the final head
    assert not list(copied.trials.iterdir())


def test_served_head_has_learnt_from_validation_images_too(data, copied):
    config = configure(data, "plan.strategy=linear_probe")
    make_plan(config, copied, searcher=SequentialSearcher())
    cache_features(config, copied)
    bundle = train_model(config, copied, runs=NullRunLogger(), searcher=SequentialSearcher())
    job = open_planned_job(Project(config, copied))
    (trial,) = job.search_heads(SequentialSearcher(), Tracking(NullRunLogger(), ""))
    served = load_file(copied.model / "model.safetensors")["head.weight"].numpy()
    final = read_head(job.fit_final_head(trial).trial.directory / HEAD_FILE)
    assert np.array_equal(served, final.weights)
    assert not np.array_equal(served, read_head(trial.directory / HEAD_FILE).weights)
    assert bundle.facts.fitted_to == "train+val"
    training = json.loads(copied.training.read_text())
    assert training["metrics"]["val_accuracy"] == trial.metrics["val_accuracy"]
    assert "training and validation images together" in training["final_head"]
    counts = [len(job.data.rows(split)) for split in ("train", "val")]
    assert len(bundle.reference.remembered["scores"]) == sum(counts)


def test_picture_shows_augmentations_of_fine_tuned_model(data, tmp_path):
    config = configure(data, "plan.strategy=norm_finetune", "train.local_warp=0.05")
    bundle = go(config, tmp_path)
    assert bundle.facts.strategy in ("norm_finetune", "linear_probe")
    assert (tmp_path / "reports/plots/training/augmentations.png").stat().st_size > 10_000
    assert "plots/training/augmentations.png" in (tmp_path / "reports/evaluation.md").read_text()


def test_head_on_joined_taps_becomes_model_that_predicts(data, tmp_path):
    config = configure(data, "plan.strategy=early_features", "plan.tap=block2+last")
    bundle = go(config, tmp_path)
    assert bundle.facts.tap == "block2+last"
    image = next(data.rglob("*.png")).read_bytes()
    onnx, torch = (Predictor(bundle.directory, engine=name) for name in ("onnx", "torch"))
    assert onnx.predict([image])[0].label == torch.predict([image])[0].label


@pytest.mark.parametrize("strategy", ["linear_probe", "partial_finetune"])
def test_head_reads_means_and_maxima_if_configured(data, tmp_path, strategy):
    config = configure(data, f"plan.strategy={strategy}", "features.pooling=both")
    bundle = go(config, tmp_path)
    assert bundle.facts.tap == "last+last@max"
    assert json.loads((tmp_path / "artifacts/profile.json").read_text())["pooling"] == "both"
    image = next(data.rglob("*.png")).read_bytes()
    onnx, torch = (Predictor(bundle.directory, engine=name) for name in ("onnx", "torch"))
    assert onnx.predict([image])[0].label == torch.predict([image])[0].label


def test_better_average_of_two_trials_is_kept(data, tmp_path):
    config = configure(data, "plan.strategy=full_finetune", "train.learning_rates=[0.001, 0.002]")
    go(config, tmp_path)
    training = json.loads((tmp_path / "artifacts/training.json").read_text())
    assert training["metrics"]["val_log_loss"] > 0
    assert ("average of 2" in training["won"]) == ("average_of" in training["best"])
    single = min(trial["metrics"]["val_log_loss"] for trial in training["finetuning"])
    kept = "average of 2" in training["won"]
    assert (f"the best single trial {single:.4f}" in training["won"]) == kept


def test_fine_tuned_weights_are_averaged_with_start(data, copied):
    config = configure(data, "plan.strategy=full_finetune", "train.learning_rates=[0.01]")
    make_plan(config, copied, searcher=SequentialSearcher())
    cache_features(config, copied)
    job, tracking = open_planned_job(Project(config, copied)), Tracking(NullRunLogger(), "")
    head = best_trial(job.search_heads(SequentialSearcher(), tracking), METRIC)
    (tuned,) = job.search_finetuning(SequentialSearcher(), tracking, head)
    (average,) = job.averages(head, [tuned])
    assert average.params == {"average_of": 1, "with_start": True}
    start, end, mean = (job.build_network(trial).head.weight for trial in (head, tuned, average))
    assert not torch.equal(start, end)
    assert torch.equal(mean, torch.stack([end, start]).mean(dim=0))
    assert [trial.params for trial in job.averages(head, [tuned, tuned])] == [
        {"average_of": 2},
        {"average_of": 2, "with_start": True},
    ]
    assert job.averages(head, [replace(tuned, error="lost")]) == []


def test_lineage_records_the_origin_of_a_model(finished):
    lineage = read_bundle(finished / "artifacts/model").lineage
    plan = json.loads((finished / "artifacts/plan.json").read_text())
    assert lineage["data_hash"] == plan["data_hash"]
    assert lineage["libraries"]["torch"]
    assert lineage["params"]["train"]["epochs"] == 1
    assert str(finished) not in json.dumps(lineage)


def test_a_registered_model_carries_its_card(finished):
    card = (finished / "registry/rootstock/1/card.md").read_text()
    assert card == (finished / "reports/model_card.md").read_text()
    assert "Licence of the images: not stated." in card
    assert "licence Apache-2.0, which allows commercial use" in card
    assert "The images were not versioned by DVC" in card
    assert read_bundle(finished / "registry/rootstock/1").strategy


def test_only_a_better_model_replaces_the_champion(data, copied, tmp_path):
    registry = FolderRegistry(tmp_path / "registry")
    arguments = {"runs": NullRunLogger(), "registry": registry}
    first = register_model(configure(data), copied, **arguments)
    alter_bundle(copied.model)
    second = register_model(configure(data), copied, **arguments)
    assert (first["alias"], second["alias"]) == ("champion", "challenger")
    assert "a gain of +0.0000" in second["reason"]
    assert "do not show whether it is better (rule `better`)" in second["reason"]


def test_a_model_is_registered_once(data, copied, tmp_path):
    registry = FolderRegistry(tmp_path / "registry")
    arguments = {"runs": NullRunLogger(), "registry": registry}
    register_model(configure(data), copied, **arguments)
    again = register_model(configure(data, "data.licence=CC0"), copied, **arguments)
    assert (again["version"], again["alias"]) == ("1", "champion")
    assert again["reason"].startswith("Already registered as version 1 (champion). Gate: ")
    assert len(registry.versions("rootstock")) == 1
    assert "Licence of the images: CC0." in registry.descriptions["rootstock", "1"]
    shutil.rmtree(registry.root / "rootstock/1")
    anew = register_model(configure(data), copied, **arguments)
    assert (anew["version"], anew["alias"]) == ("2", "challenger")
    assert "has no files any more); promote by hand" in anew["reason"]


def test_another_gate_is_passed_once_more(data, copied, tmp_path):
    registry = FolderRegistry(tmp_path / "registry")
    arguments = {"runs": NullRunLogger(), "registry": registry}
    register_model(configure(data), copied, **arguments)
    alter_bundle(copied.model)
    assert register_model(configure(data), copied, **arguments)["alias"] == "challenger"
    strict = configure(data, "registry.gate.rule=not_worse", "registry.gate.min_gain=0.9")
    assert register_model(strict, copied, **arguments)["alias"] == "challenger"
    generous = configure(data, "registry.gate.rule=not_worse")
    outcome = register_model(generous, copied, **arguments)
    assert (outcome["version"], outcome["alias"]) == ("2", "champion")


def test_gate_does_not_restore_replaced_champion(data, copied, tmp_path):
    registry = FolderRegistry(tmp_path / "registry")
    arguments = {"runs": NullRunLogger(), "registry": registry}
    register_model(configure(data), copied, **arguments)
    alter_bundle(copied.model)
    generous = configure(data, "registry.gate.rule=not_worse")
    register_model(generous, copied, **arguments)
    rollback(registry, "rootstock", why="misses wet leaves")
    still_more = configure(data, "registry.gate.rule=not_worse", "registry.gate.min_gain=-1")
    for config in (generous, still_more):
        register_model(config, copied, **arguments)
        assert registry.find("rootstock", alias="champion").version == "1"


def test_registration_that_was_interrupted_passes_gate_later(data, copied, tmp_path):
    registry = FolderRegistry(tmp_path / "registry")
    bundle = read_bundle(copied.model)
    tags = {"bundle": bundle.digest}
    registry.register("rootstock", copied.model, run_id="", tags=tags, description="")
    outcome = register_model(configure(data), copied, runs=NullRunLogger(), registry=registry)
    assert (outcome["version"], outcome["alias"]) == ("1", "champion")
    assert "first model" in outcome["reason"]
    # Interrupted after the promotion, before it was noted on the version
    registry.entries["rootstock", "1"] = replace(registry.entries["rootstock", "1"], tags=tags)
    outcome = register_model(configure(data), copied, runs=NullRunLogger(), registry=registry)
    assert outcome["reason"] == "Already registered as version 1 (champion)."
    assert registry.find("rootstock", version="1").aliases == ("champion",)


def test_a_rollback_returns_to_the_champion_before(data, copied, tmp_path):
    registry = FolderRegistry(tmp_path / "registry")
    for _ in range(2):
        register_model(configure(data), copied, runs=NullRunLogger(), registry=registry)
        alter_bundle(copied.model)
    with pytest.raises(NoModelError, match="has no earlier champion"):
        rollback(registry, "rootstock")
    assert promote(registry, "rootstock", "2").aliases == ("champion",)
    assert rollback(registry, "rootstock").version == "1"


def test_a_champion_of_other_classes_is_not_replaced(data, finished, copied, tmp_path):
    registry = FolderRegistry(tmp_path / "registry")
    register_model(configure(data), copied, runs=NullRunLogger(), registry=registry)
    root = write_classes(tmp_path / "other", {"cats": 24, "dogs": 24})
    go(configure(root), tmp_path / "out", registry)
    outcome = json.loads((tmp_path / "out/artifacts/registration.json").read_text())
    assert outcome["alias"] == "challenger"
    assert "the two models have different classes" in outcome["reason"]


def test_disabled_tracking_registers_nothing_and_reports_it(data, copied):
    outcome = register_model(configure(data), copied, runs=NullRunLogger(), registry=None)
    assert outcome["registered"] is False
    assert "tracking.enabled is false" in outcome["reason"]


def test_stages_reject_settings_unknown_to_the_task(data, copied):
    nonsense = configure(data, "registry.gate.metric=f1")
    with pytest.raises(ConfigError, match=r"registry\.gate\.metric is `f1`"):
        register_model(nonsense, copied, runs=NullRunLogger(), registry=None)
    config = configure(data)
    config = config.model_copy(
        update={"train": config.train.model_copy(update={"class_weight": "tax"})}
    )
    with pytest.raises(ConfigError, match=r"train\.class_weight is `tax`"):
        train_model(config, copied, runs=NullRunLogger(), searcher=SequentialSearcher())


def test_a_model_can_be_measured_on_another_folder(data, finished, tmp_path):
    other = write_classes(tmp_path / "other", {"ants": 6, "bees": 6}, seed=3)
    metrics, notes = evaluate_folder(
        configure(other), Paths(tmp_path / "out"), model=finished / "artifacts/model"
    )
    assert metrics["n_test"] == 12
    assert notes == []


@pytest.mark.parametrize("layout", [{"ants": 2}, {"test/ants": 2, "test/bees": 1}])
def test_few_images_of_few_classes_measure_a_model(finished, tmp_path, layout):
    other = write_classes(tmp_path / "other", layout, seed=3)
    metrics, _ = evaluate_folder(
        configure(other), Paths(tmp_path / "out"), model=finished / "artifacts/model"
    )
    assert metrics["n_test"] == sum(layout.values())
    assert 0 <= metrics["accuracy"] <= 1


def test_table_of_test_split_only_measures_model(finished, tmp_path):
    write_classes(tmp_path / "other", {"ants": 2}, seed=3)
    names = sorted(path.name for path in (tmp_path / "other/ants").iterdir())
    rows = "".join(f"other/ants/{name},ants,test\n" for name in names)
    (tmp_path / "labels.csv").write_text(f"path,label,split\n{rows}")
    metrics, _ = evaluate_folder(
        configure(tmp_path / "labels.csv"), Paths(tmp_path), model=finished / "artifacts/model"
    )
    assert metrics["n_test"] == 2


def test_measuring_on_unusable_images_says_so(finished, tmp_path):
    (tmp_path / "other/ants").mkdir(parents=True)
    (tmp_path / "other/ants/a.jpg").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="none of the 1 files in .*other is a usable image"):
        evaluate_folder(
            configure(tmp_path / "other"), Paths(tmp_path), model=finished / "artifacts/model"
        )


def test_model_names_the_training_images_that_it_carries(finished):
    bundle = read_bundle(finished / "artifacts/model")
    rows = Manifest.read(Paths(finished).manifest).rows("train")
    images = bundle.known_images.images
    assert [(one.path, one.target, one.sha256) for one in images] == [
        (row.path, row.target, row.sha256) for row in rows
    ]
    assert len(images) == len(bundle.reference.features)
    assert not any(one.thumbnail for one in images)


@pytest.mark.parametrize("strategy", ["linear_probe", "full_finetune"])
def test_a_model_of_many_images_carries_some_of_them(data, tmp_path, monkeypatch, strategy):
    monkeypatch.setattr("rootstock.model.novelty.MAX_FEATURES", 20)
    paths = Paths(tmp_path)
    go(configure(data, f"plan.strategy={strategy}"), paths.root)
    bundle = read_bundle(paths.model)
    rows = Manifest.read(paths.manifest).rows("train")
    assert len(rows) > 40
    images = bundle.known_images.images
    assert [one.path for one in images] == [rows[i].path for i in reference_rows(len(rows))]
    # The stored features are those of the named images.
    predictor = Predictor(paths.model)
    prepared = [predictor.prepare((data / one.path).read_bytes()) for one in images]
    features = predictor.infer(prepared).features
    assert [int(bundle.reference.nearest(one, 1)[0][0]) for one in features] == [*range(20)]


@pytest.mark.parametrize("keep", ["features", "names", "thumbnails"])
def test_what_is_kept_of_training_images_is_choice(data, finished, keep):
    project = Project(configure(data), Paths(finished))
    job = open_planned_job(project)
    rows = job.data.rows("train")[:3]
    known = name_images(rows, np.ones((3, 4)), job.data.reader, job.data.task, keep)
    if keep == "features":
        assert known is None
    else:
        assert all(bool(one.thumbnail) is (keep == "thumbnails") for one in known.images)


def test_evaluation_shows_evidence_for_answers(finished):
    text = (finished / "reports/evaluation.md").read_text()
    assert "## Evidence for the answers" in text
    assert "![heat maps](plots/evaluation/heat_maps.png)" in text
    assert "## Similar images" in text
    assert "## Corrupted images" in text
    assert re.search(r"\| all \| [01]\.\d{3} \| [01]\.\d{3} \| [01]\.\d{3} \|", text)
    assert re.search(r"the mean probability of the answer is 0\.\d\d", text)
    assert (finished / "reports/plots/evaluation/heat_maps.png").stat().st_size > 10_000


def test_evaluation_names_images_that_model_was_made_with(data, finished, tmp_path):
    shutil.copytree(data, tmp_path / "mixed")
    new = write_classes(tmp_path / "new", {"ants": 3, "bees": 3}, seed=3)
    for path in new.rglob("*.*"):
        shutil.copy(path, tmp_path / "mixed" / path.parent.name / f"new-{path.name}")
    paths = Paths(tmp_path / "out")
    metrics, [note] = evaluate_folder(
        configure(tmp_path / "mixed"), paths, model=finished / "artifacts/model"
    )
    manifest = Manifest.read(Paths(finished).manifest)
    n_seen = len(manifest.rows("train")) + len(manifest.rows("val"))
    assert metrics["n_seen_in_training"] == n_seen
    assert 0 <= metrics["accuracy_of_new"] <= 1
    assert note.startswith(
        f"{n_seen} of these {metrics['n_test']} images were used to make the model"
    )
    assert f"**Note.** {note}" in (paths.reports / "evaluation.md").read_text()


@pytest.mark.parametrize(
    ("artifact", "stage"),
    [("manifest.parquet", "index"), ("training.json", "train")],
)
def test_a_missing_artifact_says_which_stage_makes_it(data, copied, artifact, stage):
    (copied.root / "artifacts" / artifact).unlink()
    with pytest.raises(ArtifactError, match=rf"is missing(.|\n)*run the stage `{stage}`"):
        evaluate_model(configure(data), copied, runs=NullRunLogger())


def test_features_of_other_images_are_rejected(data, copied, tmp_path):
    index = json.loads(copied.features.read_text())
    copied.features.write_text(json.dumps(index | {"keys_sha256": "0"}))
    with pytest.raises(ArtifactError, match="made for other inputs: keys_sha256 differs"):
        train_model(configure(data), copied, runs=NullRunLogger(), searcher=SequentialSearcher())


def test_an_impossible_pin_stops_at_the_plan(data, copied):
    with pytest.raises(PlanError, match=r"plan\.tap is `block99`"):
        make_plan(configure(data, "plan.tap=block99"), copied, searcher=SequentialSearcher())


def test_when_every_trial_fails_their_errors_are_listed(tmp_path):
    trials = [Trial({"l2": n}, {}, tmp_path, error=f"boom {n}") for n in (1, 2)]
    with pytest.raises(TrainingError, match=r"all 2 trials failed:\n.*boom 1\n.*boom 2"):
        best_trial(trials, METRIC)


def test_cleared_features_are_computed_again_by_training(data, copied):
    shutil.rmtree(copied.root / ".rootstock/features")
    train_model(configure(data), copied, runs=NullRunLogger(), searcher=SequentialSearcher())
    assert any((copied.root / ".rootstock/features").rglob("*.safetensors"))


def test_user_data_are_never_touched(data, finished):
    assert sorted(path.name for path in data.iterdir()) == sorted(COUNTS)
    assert sum(1 for path in data.rglob("*") if path.is_file()) == sum(COUNTS.values())


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"average_of": 2}, f"the average of 2 fine-tuned trials, {LOSS} 0.2000 against"),
        (
            {"average_of": 1, "with_start": True},
            "the average of one fine-tuned trial and the network before fine-tuning, "
            f"{LOSS} 0.2000 against",
        ),
        ({"learning_rate": 1e-3}, f"one fine-tuned trial, {LOSS} 0.2000 against"),
        ({"tap": "last"}, f"the head, which fine-tuning did not improve, {LOSS} 0.3000 against"),
    ],
)
def test_one_line_names_the_winner(params, words):
    head = HeadTrial({"tap": "last"}, {"val_log_loss": 0.4}, None)
    best = (HeadTrial if "tap" in params else FinetunedTrial)(params, {"val_log_loss": 0.4}, None)
    tuned = [FinetunedTrial({"learning_rate": 1e-3}, {"val_log_loss": 0.5}, None)]
    assert words in describe_winner(best, head, tuned, [0.3, 0.2], metric=METRIC)
    assert (
        describe_winner(head, head, [], [0.3], metric=METRIC)
        == f"the head at `last`, {LOSS} 0.3000"
    )


def test_a_head_is_not_blamed_for_being_unsure(data, copied):
    config = configure(data, "plan.strategy=early_features")
    make_plan(config, copied, searcher=SequentialSearcher())
    cache_features(config, copied)
    job = open_planned_job(Project(config, copied))
    sure = best_trial(job.search_heads(SequentialSearcher(), Tracking(NullRunLogger(), "")), METRIC)
    head = read_head(sure.directory / HEAD_FILE)
    timid = replace(sure, directory=job.directory / "timid")
    write_head(LinearHead(0.5 * head.weights, 0.5 * head.bias), timid.directory / HEAD_FILE)
    loss, same = (job.calibrated_losses(trial).mean() for trial in (sure, timid))
    assert same == pytest.approx(loss, rel=0.01)
    assert loss < 0.9 * sure.metrics["val_log_loss"]


def trained(config, paths):
    """Plan, compute features, and train again in a finished project; return training's report."""
    make_plan(config, paths, searcher=SequentialSearcher())
    cache_features(config, paths)
    bundle = train_model(config, paths, runs=NullRunLogger(), searcher=SequentialSearcher())
    return bundle, json.loads(paths.training.read_text())


def test_extra_trials_come_from_the_search_space(data, copied):
    config = configure(data, "plan.strategy=partial_finetune", "train.trials=3")
    _, told = trained(config, copied)
    first, *drawn = (trial["params"] for trial in told["finetuning"])
    assert len(drawn) == 2
    assert set(first) == {"learning_rate", "layer_decay", "augmentation", "freeze_through"}
    assert len({params["layer_decay"] for params in drawn}) == 2
    # A pinned rate is not searched
    assert {params["learning_rate"] for params in drawn} == {0.001}


def test_fewer_trials_than_planned_are_the_first_ones(data, copied):
    config = configure(
        data,
        "plan.strategy=full_finetune",
        "train.learning_rates=[0.001, 0.01]",
        "train.trials=1",
    )
    assert len(trained(config, copied)[1]["finetuning"]) == 1


def test_budget_ends_fine_tuning_and_model_is_written(data, copied):
    config = configure(
        data,
        "plan.strategy=full_finetune",
        "train.epochs=500",
        "train.trials=50",
        "plan.budget.minutes=0.3",
    )
    started = time.monotonic()
    bundle, told = trained(config, copied)
    assert time.monotonic() - started < 25
    assert told["finetuning"][-1]["error"] == "no time was left to start it"
    assert bundle.strategy == "full_finetune"


@pytest.mark.parametrize(("trials", "ended_early"), [("auto", False), ("3", True)])
def test_only_a_longer_search_ends_trials_early(data, copied, monkeypatch, trials, ended_early):
    """The plan's trials are judged at their end: at an early epoch the faster one would win."""
    told = []

    def spy(self, *arguments, early_stop, search=SequentialSearcher.search, **options):
        told.append(early_stop)
        return search(self, *arguments, early_stop=early_stop, **options)

    monkeypatch.setattr(SequentialSearcher, "search", spy)
    config = configure(
        data, "plan.strategy=full_finetune", "train.epochs=1", f"train.trials={trials}"
    )
    trained(config, copied)
    assert told == [False, ended_early]  # heads first


def test_head_with_hidden_layer_can_be_served(data, copied, monkeypatch):
    config = configure(data, "plan.strategy=linear_probe", "train.mlp_hidden=8")
    monkeypatch.setattr("rootstock.workflow.choice.best_head", lambda trials, metric: trials[-1])
    bundle, told = trained(config, copied)
    assert [trial["params"].get("hidden") for trial in told["heads"]] == [None, 8]
    assert bundle.facts.hidden == 8
    image = (data / "ants/0.png").read_bytes()
    by_onnx, by_torch = (Predictor(bundle, engine=e).predict([image])[0] for e in ("onnx", "torch"))
    assert by_onnx.probability == pytest.approx(by_torch.probability, abs=1e-4)


def test_helpful_views_are_kept_with_their_cost(data, copied):
    config = configure(data, "plan.strategy=linear_probe", "train.views=crops")
    bundle, told = trained(config, copied)
    assert told["views"]["kept"] == bundle.facts.views
    assert "5 forward passes" in told["views"]["why"]
    image = (data / "ants/0.png").read_bytes()
    assert Predictor(bundle).predict([image])[0].label in COUNTS


def test_unsafe_mirror_images_are_not_averaged(data, copied):
    config = configure(data, "plan.strategy=full_finetune", "plan.flip=false", "train.views=flip")
    assert trained(config, copied)[1]["views"]["kept"] == "one"


def test_model_names_strategy_that_made_its_weights(data, copied):
    # At this rate fine-tuning spoils the network, and the head that it began from is kept.
    config = configure(data, "plan.strategy=full_finetune", "train.learning_rates=[0.1]")
    bundle, training = trained(config, copied)
    assert training["kept_head"]
    assert training["planned_strategy"] == "full_finetune"
    assert training["strategy"] == bundle.strategy == "linear_probe"
    assert Predictor(bundle).info["strategy"] == "linear_probe"  # HTTP answers and metric labels
    register_model(config, copied, runs=NullRunLogger(), registry=None)
    card = copied.model_card.read_text()
    assert "strategy `linear_probe`" in card
    assert "Fine-tuning by `full_finetune` did not improve the head" in card
