"""Stage `train`: features and plan in, ModelBundle out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.data.manifest import ImageRow
from rootstock.features.loading import read_indexed
from rootstock.model.bundle import MAX_GOLDEN, ModelBundle
from rootstock.model.bundle_writer import write_bundle
from rootstock.model.lineage import experiment, shareable, trace
from rootstock.model.novelty import Reference, reference_rows
from rootstock.model.seen import SeenImages
from rootstock.plan.transfer_plan import TransferPlan
from rootstock.ports.runs import Run, RunData, RunLogger
from rootstock.ports.search import Searcher
from rootstock.system.files import write_json
from rootstock.system.progress import Progress, say, show_seconds
from rootstock.tasks.metric_words import name_metric, show_metric
from rootstock.training.resume import resumed_run
from rootstock.training.tracked import Tracking
from rootstock.training.training_job import TrainingJob
from rootstock.training.trials import (
    FinetunedTrial,
    HeadTrial,
    as_records,
    best_head,
)
from rootstock.workflow.calibration import feature_calibration
from rootstock.workflow.choice import (
    Calibrated,
    Choice,
    SearchResult,
    calibrate,
    choose_trial,
    widen_choice,
)
from rootstock.workflow.features import SPLITS
from rootstock.workflow.forecast import read_expected_minutes
from rootstock.workflow.known_images import name_images
from rootstock.workflow.project import Project
from rootstock.workflow.training_job import open_job
from rootstock.workflow.training_pictures import TRAINING_PICTURES, draw_training
from rootstock.workflow.twin import twin_maker

WRITING_SECONDS = 15.0
"""Time for averaging, calibration and export of a small model on two cores."""
FINAL_HEAD = (
    "fitted again to training and validation images together; `metrics` are those of the head "
    "that was fitted to the training images only"
)
BULKY_FIELDS = {
    "reasons",
    "candidates",
    "head_candidates",
    "finetune_candidates",
    "finetune_space",
    "backbones",
    "evidence",
    "race",
}
"""Fields of the plan that are too long for a run's table of parameters."""


def train_model(
    config: Config, paths: Paths, *, runs: RunLogger, searcher: Searcher
) -> ModelBundle:
    """Search according to the plan, calibrate the best, write the bundle and training.json.

    Trials keep their results below .rootstock/trials until the bundle is written; a killed stage
    continues from them.
    Raises:
        ArtifactError: an artifact is missing, or was made for other inputs.
        TrainingError: no trial succeeded.
    """
    started = time.monotonic()
    project = Project(config, paths)
    job = open_planned_job(project)
    raced_plan = job.plan.for_raced_head()
    raced_job = open_job(project, raced_plan) if raced_plan else None
    _announce(job, read_expected_minutes(paths.estimates, job.plan))
    name, tags = _describe_run(job)
    with resumed_run(runs, job.directory / "run.json", name, tags=tags) as (run, fresh):
        if fresh:
            _log_params(run, config, job.plan)
            run.log_data(_describe_data(project))
        tracking = Tracking(runs, run.id, tags)
        with searcher.session():
            seconds = _seconds_left(job.plan, started)
            result = search(job, searcher, tracking, raced_job=raced_job, seconds=seconds)
            choice = choose_trial(job, result, raced_job=raced_job)
            if config.train.ensemble > 1:
                seconds = _seconds_left(job.plan, started)
                choice = widen_choice(choice, result, searcher, tracking, seconds=seconds)
        with Progress("calibration and export", 0, "step"):
            calibrated = calibrate(
                choice.job, choice.trial, option=config.train.views, threshold=config.task.threshold
            )
            bundle = write_trained(project, job, choice, calibrated)
        run.log_metrics(calibrated.metrics)
        run.describe(_describe_model(job, choice, calibrated))
        draw_training(paths.reports / TRAINING_PICTURES, job, result, choice.trial)
        for file in (paths.plan, paths.reports / "plan.md", paths.reports / TRAINING_PICTURES):
            run.log_files(file, folder="training")
    write_json(paths.training, record_training(run.id, job.plan, result, choice, calibrated))
    for done in (job, raced_job):
        if done:
            shutil.rmtree(done.directory, ignore_errors=True)
    return bundle


def open_planned_job(project: Project) -> TrainingJob:
    """Return the training that artifacts/plan.json asks for.

    Raises:
        ArtifactError: an artifact is missing, or was made for other inputs.
    """
    manifest = project.manifest
    plan = TransferPlan.read(project.paths.plan)
    calibration = feature_calibration(project.config.features.precision, plan, manifest)
    job = open_job(project, plan, calibration=calibration)
    rows = [row for split in SPLITS for row in manifest.rows(split)]
    job.data.reader.check_index(project.paths.features, rows)
    return job


def search(
    job: TrainingJob,
    searcher: Searcher,
    tracking: Tracking,
    *,
    raced_job: TrainingJob | None = None,
    seconds: float | None,
) -> SearchResult:
    """Fit heads; if the plan fine-tunes, fine-tune from the best for at most ``seconds``.

    ``raced_job`` fits the heads that lost a race.
    """
    heads = job.search_heads(searcher, tracking)
    tuned: list[FinetunedTrial] = []
    if job.plan.finetune:
        head = best_head(heads, job.data.task.selection)
        tuned = job.search_finetuning(searcher, tracking, head, seconds=seconds)
    raced = raced_job.search_heads(searcher, tracking) if raced_job else []
    return SearchResult(heads, tuned, raced)


def write_trained(
    project: Project,
    job: TrainingJob,
    choice: Choice,
    calibrated: Calibrated,
    *,
    exported: Path | None = None,
) -> ModelBundle:
    """Write the chosen model to its folder in the project; ``exported`` as in `write_bundle`."""
    network = choice.job.build_network(calibrated.trial)
    data = job.data
    rows = data.rows("train")
    reference = reference_rows(len(rows))
    train, val = choice.job.head_features(calibrated.trial, network, reference)
    return write_bundle(
        project.paths.model,
        network=network,
        card=data.reader.backbone.card,
        preprocess=choice.job.data.reader.preprocess,
        task=data.task.name,
        names=data.dataset.names,
        strategy=choice.strategy,
        fitted_to="train+val" if calibrated.final else "train",
        calibration=calibrated.calibration,
        metrics=calibrated.metrics,
        lineage=trace(
            project.config.model_dump(mode="json"),
            project.paths.root,
            data_hash=data.dataset.manifest.content_hash,
            plan_hash=job.plan.hash,
            weights_sha256=job.plan.weights_sha256,
        ),
        golden=_golden_images(data.rows("val"), data.reader.root),
        views=calibrated.views,
        reference=Reference.measure(
            train, val, data.task.remember(calibrated.decisions, calibrated.targets)
        ),
        known=name_images(
            [rows[number] for number in reference],
            train,
            data.reader,
            data.task,
            project.config.registry.reference,
        ),
        seen=SeenImages.of(
            train=(row.sha256 for row in rows),
            val=(row.sha256 for row in data.rows("val")),
        ),
        unknown_share=project.config.train.unknown_share,
        limits=data.dataset.manifest.limits,
        make_twin=twin_maker(project.config.export, choice, calibrated),
        exported=exported,
    )


def _golden_images(rows: Sequence[ImageRow], root: Path) -> list[tuple[str, bytes, str]]:
    """Return an image of each stratum, then second ones, until there are enough."""
    by_stratum: dict[str, list[ImageRow]] = {}
    for row in rows:
        by_stratum.setdefault(row.stratum, []).append(row)
    longest = max(len(members) for members in by_stratum.values())
    turns = [group[i] for i in range(longest) for group in by_stratum.values() if i < len(group)]
    return [(row.path, read_indexed(row, root), row.target) for row in turns[:MAX_GOLDEN]]


def record_training(
    run_id: str,
    plan: TransferPlan,
    result: SearchResult,
    choice: Choice,
    calibrated: Calibrated,
) -> dict[str, Any]:
    """Return the content of training.json."""
    best = choice.trial
    return {
        "run_id": run_id,
        "planned_strategy": plan.strategy,
        "strategy": choice.strategy,
        "kept_head": choice.kept_head,
        "best": {
            "tap": best.tap,
            "hidden": best.hidden or None,
            "prototypes": best.prototypes,
            "l2": best.l2,
        }
        if isinstance(best, HeadTrial)
        else dict(best.params),
        "won": choice.why,
        "views": {"kept": calibrated.views, "why": calibrated.views_why},
        "metrics": calibrated.metrics,
        "final_head": FINAL_HEAD if calibrated.final else None,
        "ensemble": choice.ensemble
        and {
            "networks": choice.ensemble.networks,
            "why": choice.ensemble.why,
        },
        "heads": as_records([*result.heads, *result.raced]),
        "finetuning": as_records(
            [*result.tuned, *(choice.ensemble.trainings if choice.ensemble else ())]
        ),
    }


def _announce(job: TrainingJob, minutes: float | None) -> None:
    """Print what will be trained, and for how long."""
    parts: list[str] = [job.plan.strategy]
    if job.plan.finetune:
        n_trials = len(job.plan.finetune_candidates)
        trials = f"{n_trials} trials" if n_trials > 1 else "one trial"
        parts.append(f"{trials} of at most {job.plan.finetune.epochs} epochs")
    if minutes is not None:
        parts.append(f"about {show_seconds(60 * minutes)} expected")
    if job.plan.race and len(job.data.rows("train")) == job.plan.race.heats[-1].n_train:
        parts.append("partly done by the race")
    say(f"train: {', '.join(parts)}")


def _describe_run(job: TrainingJob) -> tuple[str, dict[str, str]]:
    """Return the name and the tags of the run."""
    tags = {
        "rootstock.strategy": job.plan.strategy,
        "rootstock.plan": job.plan.hash,
        "rootstock.data": job.data.dataset.manifest.content_hash,
    }
    if not experiment():
        return job.plan.strategy, tags
    return (
        f"{experiment()}: {job.plan.strategy}",
        tags | {"rootstock.experiment": experiment()},
    )


def _describe_model(job: TrainingJob, choice: Choice, calibrated: Calibrated) -> str:
    task, dataset = job.data.task, job.data.dataset
    score, card = calibrated.metrics[task.val_headline], job.data.reader.backbone.card
    shown = show_metric(task.headline, score)
    return (
        f"{task.describe(dataset.names)} Strategy `{choice.strategy}` on "
        f"`{card.name or card.architecture}`; "
        f"the {name_metric(task.headline)} on the validation images is {shown}."
    )


def _describe_data(project: Project) -> RunData:
    root, manifest = project.config.data.root, project.manifest
    counts = {name: len(manifest.rows(name)) for name in ("train", "val", "test")}
    return RunData(root.name, manifest.content_hash, shareable(str(root)), counts)


def _log_params(run: Run, config: Config, plan: TransferPlan) -> None:
    run.log_params({"train": config.train.model_dump(mode="json"), "seed": config.seed})
    run.log_params({"plan": plan.model_dump(mode="json", exclude=BULKY_FIELDS)})


def _seconds_left(plan: TransferPlan, started: float) -> float | None:
    """Return the seconds that the plan's budget leaves for trials, before writing the model."""
    if plan.budget_minutes is None:
        return None
    return max(1.0, 60 * plan.budget_minutes - (time.monotonic() - started) - WRITING_SECONDS)
