"""Stage `evaluate`: ModelBundle and test images in, Evaluation and pictures out."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rootstock.assess.profile import DatasetProfile
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.data.manifest import ImageRow
from rootstock.errors import BundleError
from rootstock.evaluate.decisions import write_decisions
from rootstock.evaluate.report import Evaluation, write_evaluation
from rootstock.explain.fooling import (
    ADVERSARIAL_PREFIX,
    SUBTLE_RADIUS,
    measure_fooling,
    render_fooling,
)
from rootstock.explain.report import PICTURE, explain_tests, render_retrieval
from rootstock.explain.robustness import (
    ROBUST_PREFIX,
    TYPICAL_SEVERITY,
    Sample,
    measure_corruptions,
    render_corruptions,
)
from rootstock.model.batch_predict import predict_rows
from rootstock.model.predictor import Predictor
from rootstock.plan.ledger import append_row, make_row
from rootstock.plan.transfer_plan import TransferPlan
from rootstock.ports.runs import RunLogger
from rootstock.system.files import read_json, write_json
from rootstock.tasks.answer import Answer
from rootstock.tasks.dataset import read_targets
from rootstock.tasks.metric_words import name_metric, show_metric
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import AnswerOptions
from rootstock.training.resume import training_run
from rootstock.workflow.forecast import (
    UNCORRECTED,
    forecast_metrics,
    forecast_record,
    plan_minutes,
    read_expected_minutes,
    training_minutes,
)
from rootstock.workflow.index import index_labelled, log_notices
from rootstock.workflow.project import Project


class Measurement(NamedTuple):
    """The metrics of a model on given images, with notes for the reader."""

    metrics: dict[str, float]
    notes: list[str]


CORRUPTED_IMAGES = 32
"""Test images that are also measured with each of eight corruptions."""
ATTACKED_IMAGES = 16
"""Number of these that are attacked: each attack is ten passes forward and back."""
INT8_PREFIX = "int8_"
log = logging.getLogger(__name__)
COVERAGE = 0.95
"""Coverage of the prediction sets that are checked."""


def evaluate_model(config: Config, paths: Paths, *, runs: RunLogger) -> Evaluation:
    """Measure the bundle once on the test split, as it is served; log the result to the run."""
    project = Project(config, paths)
    rows = project.manifest.rows("test")
    training = read_json(paths.training, made_by="train")
    predictor = Predictor(paths.model)
    evaluation, features, spoiled = _evaluate(predictor, rows, project.root)
    pictures = {"search of the head": "plots/training/heads.png"}
    if training["finetuning"]:
        pictures["fine-tuning by epoch"] = "plots/training/finetuning.png"
        augmented = "plots/training/augmentations.png"
        if (paths.reports / augmented).exists():  # older models have none
            pictures["augmentation of training images"] = augmented
    explanations = _explain(predictor, rows, evaluation, features, project.root, paths.reports)
    explanations = f"{explanations}\n{spoiled}"
    write_evaluation(
        evaluation,
        paths.reports,
        root=project.root,
        explanations=explanations,
        training=pictures,
    )
    write_decisions(paths.decisions, rows, evaluation.decisions)
    plan = TransferPlan.read(paths.plan)
    row = make_row(
        DatasetProfile.read(paths.profile).seen_by(plan.weights_sha256),
        plan,
        kept_head=training["kept_head"],
        test_accuracy=evaluation.metrics[evaluation.task.score],
        n_test=int(evaluation.metrics["n_test"]),
        expected_minutes=read_expected_minutes(paths.estimates, plan),
        uncorrected_minutes=read_expected_minutes(paths.estimates, plan, key=UNCORRECTED),
        minutes=round(training_minutes(training), 4),
        seed=config.seed,
    )
    append_row(paths.lasting(config.plan.ledger), row)
    write_json(paths.forecast, forecast_record(row, plan_minutes(paths.estimates, plan)))
    with training_run(runs, training, paths.runs) as run:
        run.log_metrics(forecast_metrics(row))
        headline = evaluation.task.headline
        # MLflow's table sorts columns alphabetically, and few fit on a screen.
        run.log_metrics({headline: evaluation.metrics[headline]})
        run.log_metrics({f"test_{name}": value for name, value in evaluation.metrics.items()})
        run.log_files(paths.reports, folder="reports")
    return evaluation


def evaluate_folder(config: Config, paths: Paths, *, model: Path) -> Measurement:
    """Measure any bundle on any labelled images, of one class or more.

    Uses the folder's own test split, or every image if it has none. The model, not the settings,
    defines the kind of label.
    Raises:
        DataError: the folder has classes that the model does not know.
    """
    predictor = Predictor(model)
    manifest = index_labelled(config, paths, predictor.task)
    log_notices(manifest)
    root = Project(config, paths).root
    rows = manifest.rows("test" if "test" in manifest.given_splits else None)
    evaluation, features, spoiled = _evaluate(predictor, rows, root)
    metrics, notes = _compare_with_training(predictor, rows, evaluation)
    explanations = _explain(predictor, rows, evaluation, features, root, paths.reports)
    explanations = f"{explanations}\n{spoiled}"
    write_evaluation(evaluation, paths.reports, root=root, notes=notes, explanations=explanations)
    return Measurement(evaluation.metrics | metrics, notes)


def _compare_with_training(
    predictor: Predictor, rows: list[ImageRow], evaluation: Evaluation
) -> tuple[dict[str, float], list[str]]:
    """Return metrics and notes about images of the model's training; empty if there are none."""
    seen = predictor.bundle.seen
    if seen is None:
        return {}, []
    counts = Counter(seen.split(row.sha256) for row in rows)
    n_seen = counts["train"] + counts["val"]
    if not n_seen:
        return {}, []
    metrics: dict[str, float] = {"n_seen_in_training": n_seen}
    note = (
        f"{n_seen} of these {len(rows)} images were used to make the model "
        f"({counts['train']} for training, {counts['val']} for validation), so the figures say "
        "little about new images."
    )
    if n_new := counts[""]:
        name = evaluation.task.headline
        fresh = np.flatnonzero([not seen.split(row.sha256) for row in rows])
        value = evaluation.task.metrics(
            evaluation.decisions[fresh], evaluation.targets.take(fresh)
        )[name]
        metrics[f"{name}_of_new"] = round(value, 6)
        note += (
            f" On the other {n_new} images the {name_metric(name)} is {show_metric(name, value)}."
        )
    return metrics, [note]


def _explain(
    predictor: Predictor,
    rows: list[ImageRow],
    evaluation: Evaluation,
    features: np.ndarray,
    root: Path,
    reports: Path,
) -> str:
    """Draw heat maps of some test images; return report sections on them and on retrieval."""
    sections = []
    explanations = explain_tests(predictor, rows, evaluation.decisions, evaluation.targets, root)
    if explanations is not None:
        explanations.draw(reports / PICTURE)
        sections.append(explanations.render())
    if predictor.task.discrete:
        sections.append(render_retrieval(features, rows))
    return "\n".join(filter(None, sections))


def _evaluate(
    predictor: Predictor, rows: list[ImageRow], root: Path
) -> tuple[Evaluation, np.ndarray, str]:
    """Return the evaluation, the features [N,D] of the images, and a section on corruption."""
    targets = read_targets(predictor.task, rows, predictor.names)
    inferred = predict_rows(predictor, rows, root)
    answers: list[Answer] = []
    if predictor.bundle.reference is not None:
        options = AnswerOptions(top_k=1, coverage=COVERAGE)
        answers = [predictor.answer(*row, options) for row in zip(*inferred, strict=True)]
    paths = [row.path for row in rows]
    sample = Sample.read(predictor, rows, root, most=CORRUPTED_IMAGES)
    score = predictor.task.score
    corrupted = measure_corruptions(predictor, sample, severities=[TYPICAL_SEVERITY])
    fooled = measure_fooling(predictor, sample.take(ATTACKED_IMAGES), radii=[SUBTLE_RADIUS])
    robust = {
        ROBUST_PREFIX + score: corrupted.typical,
        ADVERSARIAL_PREFIX + score: fooled.scores["PGD"][0],
    }
    rounded = _score_twin(predictor, rows, root, targets)
    evaluation = Evaluation(
        predictor.task,
        inferred.decisions,
        targets,
        paths,
        answers,
        more_metrics=rounded | robust,
        facts=[row.facts for row in rows],
    )
    spoiled = f"{render_corruptions(score, corrupted)}\n{render_fooling(score, fooled)}"
    return evaluation, inferred.features, spoiled


def _score_twin(
    predictor: Predictor, rows: list[ImageRow], root: Path, targets: Targets
) -> dict[str, float]:
    """Return the score of the int8 twin; none if there is none that runs on this machine."""
    if not predictor.bundle.has_twin or predictor.precision == "int8":
        return {}
    try:
        twin = Predictor(predictor.bundle, precision="int8")
    except BundleError as error:
        log.warning("the int8 twin is not measured: %s", error.message)
        return {}
    score = predictor.task.score
    decisions = predict_rows(twin, rows, root).decisions
    return {f"{INT8_PREFIX}{score}": predictor.task.metrics(decisions, targets)[score]}
