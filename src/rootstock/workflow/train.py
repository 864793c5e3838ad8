"""Stage `train`: features and plan in, ModelBundle out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.data.views import COUNT, Views
from rootstock.metrics import accuracy, ece, fit_temperature, log_loss, softmax
from rootstock.model.bundle import MAX_GOLDEN, ModelBundle, write_bundle
from rootstock.model.lineage import experiment, trace
from rootstock.plan.plan import TransferPlan
from rootstock.plots.training import plot_head_search, plot_training_curves
from rootstock.ports.runs import RunLogger
from rootstock.ports.search import Searcher, Trial
from rootstock.system.files import read_json, write_json
from rootstock.train.finetune import HISTORY
from rootstock.train.objectives import PATH_FILE, Tracking
from rootstock.train.resume import resumed_run
from rootstock.workflow.training_job import TrainingJob
from rootstock.workflow.trials import METRIC, as_records, best_trial, is_spoilt, which_won

WRITING_SECONDS = 15.0
"""Averaging, calibration and export of a model of a few million parameters on two cores."""


def train_model(
    config: Config, paths: Paths, *, runs: RunLogger, searcher: Searcher
) -> ModelBundle:
    """Search as the plan says, calibrate the best, write the bundle and training.json.

    Trials keep their results below .rootstock/trials until the bundle is written; a stage that
    was killed goes on from them.
    Raises:
        TrainingError: no trial succeeded.
    """
    started = time.monotonic()
    job = TrainingJob.open(config, paths)
    tags = {
        "rootstock.strategy": job.plan.strategy,
        "rootstock.plan": job.plan.hash,
        "rootstock.data": job.manifest.content_hash,
    }
    name: str = job.plan.strategy
    if experiment():
        tags["rootstock.experiment"] = experiment()
        name = f"{experiment()}: {name}"
    record = job.directory / "run.json"
    with resumed_run(runs, record, name, tags=tags) as (run, fresh):
        if fresh:
            run.log_params({"train": config.train.model_dump(mode="json"), "seed": config.seed})
            run.log_params({"plan": job.plan.model_dump(mode="json", exclude=_BULKY)})
        tracking = Tracking(runs, run.id, tags)
        with searcher.session():
            heads = job.search_heads(searcher, tracking)
            tuned = (
                job.search_finetuning(
                    searcher, tracking, best_trial(heads), seconds=_seconds_left(job.plan, started)
                )
                if job.plan.finetune
                else []
            )
        best = head = best_trial(heads)
        losses = [job.calibrated_losses(head)]
        if tuned:
            best = job.best_tuned(head, tuned)
            losses.append(job.calibrated_losses(best))
            if is_spoilt(head, best, head_losses=losses[0], tuned_losses=losses[1]):
                best = head
        views, gain = choose_views(job, best)
        logits = job.val_logits(best, views)
        temperature, metrics = _calibrate(logits, job.manifest.labels("val"))
        network = job.build_network(best)
        bundle = write_bundle(
            paths.model,
            network=network,
            card=job.backbone.card,
            preprocess=job.preprocess,
            classes=job.manifest.classes,
            strategy=job.plan.strategy,
            temperature=temperature,
            metrics=metrics,
            lineage=trace(
                config,
                paths.root,
                data_hash=job.manifest.content_hash,
                plan_hash=job.plan.hash,
                weights_sha256=job.plan.weights_sha256,
            ),
            golden=_golden_images(job),
            views=views,
            reference=job.reference(network, best, softmax(logits / temperature)),
            unknown_share=config.train.unknown_share,
        )
        run.log_metrics(metrics)
        _draw(paths.reports / "plots/training", heads, tuned, best)
        for file in (paths.plan, paths.reports / "plan.md", paths.reports / "plots/training"):
            run.log_files(file, folder="training")
    outcome = {
        "run_id": run.id,
        "strategy": job.plan.strategy,
        "kept_head": bool(tuned) and "tap" in best.params,
        "best": _best_params(best),
        "won": which_won(best, head, tuned, [float(each.mean()) for each in losses]),
        "views": {"kept": views, "why": gain},
        "metrics": metrics,
        "heads": as_records(heads),
        "finetuning": as_records(tuned),
    }
    write_json(paths.training, outcome)
    shutil.rmtree(job.directory, ignore_errors=True)
    return bundle


def _seconds_left(plan: TransferPlan, started: float) -> float | None:
    """What the plan's budget leaves for the trials; the model has yet to be written."""
    if plan.budget_minutes is None:
        return None
    return max(1.0, 60 * plan.budget_minutes - (time.monotonic() - started) - WRITING_SECONDS)


_BULKY = {
    "reasons",
    "candidates",
    "head_candidates",
    "finetune_candidates",
    "finetune_space",
    "backbones",
    "evidence",
    "race",
}


def choose_views(job: TrainingJob, best: Trial) -> tuple[Views, str]:
    """The views that train.views asks for where the validation images gain by them, and why."""
    wanted = job.config.train.views
    if wanted == "one":
        return "one", "one view, as train.views says"
    if wanted == "flip" and job.plan.finetune and not job.plan.finetune.flip:
        return "one", "mirror images may belong to another class here"
    labels = job.manifest.labels("val")
    one, several = (
        log_loss(softmax(job.val_logits(best, views)), labels)
        for views in cast(tuple[Views, Views], ("one", wanted))
    )
    kept = wanted if several < one else "one"
    return kept, (
        f"validation log-loss {several:.4f} with `{wanted}`, which costs {COUNT[wanted]} forward "
        f"passes a prediction, against {one:.4f} with one view"
    )


def _calibrate(logits: np.ndarray, labels: np.ndarray) -> tuple[float, dict[str, float]]:
    """The temperature, and the validation metrics with it."""
    temperature = fit_temperature(logits, labels)
    plain, calibrated = softmax(logits), softmax(logits / temperature)
    return temperature, {
        "val_accuracy": accuracy(logits.argmax(axis=1), labels),
        "val_log_loss": log_loss(calibrated, labels),
        "val_ece_before": ece(plain, labels),
        "val_ece": ece(calibrated, labels),
        "temperature": temperature,
    }


def _golden_images(job: TrainingJob) -> list[tuple[str, bytes, str]]:
    """A validation image of each class, then second ones, until there are enough."""
    by_class: dict[str, list[Any]] = {}
    for row in job.manifest.rows("val"):
        by_class.setdefault(row.label, []).append(row)
    longest = max(len(rows) for rows in by_class.values())
    turns = [rows[i] for i in range(longest) for rows in by_class.values() if i < len(rows)]
    return [(row.path, (job.root / row.path).read_bytes(), row.label) for row in turns[:MAX_GOLDEN]]


def _draw(folder: Path, heads: Sequence[Trial], tuned: Sequence[Trial], best: Trial) -> None:
    scores: dict[str, dict[float, float]] = {}
    for trial in heads:
        if not trial.error:
            path = read_json(trial.directory / PATH_FILE, made_by="train")["path"]
            scores[trial.params["tap"]] = {row["l2"]: row[METRIC] for row in path}
    kept = (best.params["tap"], best.metrics["l2"]) if "tap" in best.params else None
    plot_head_search(scores, folder / "heads.png", metric=METRIC, best=kept)
    if tuned:
        curves = {_name(trial): _curve(trial) for trial in tuned if not trial.error}
        plot_training_curves(
            curves, folder / "finetuning.png", metric=METRIC, best=_name(best_trial(tuned))
        )


def _best_params(best: Trial) -> dict[str, Any]:
    if "tap" in best.params:
        return {"tap": best.params["tap"], "l2": best.metrics["l2"]}
    return dict(best.params)


def _name(trial: Trial) -> str:
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in trial.params.items()
    )


def _curve(trial: Trial) -> list[float]:
    history = read_json(trial.directory / HISTORY, made_by="train")
    return [epoch[METRIC] for epoch in history["epochs"]]
