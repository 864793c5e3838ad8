"""Fit the head to the current labels, in seconds; the backbone does not change.

The images are listed again with their corrections, and the head is fitted to features in the store.
All results are written to a separate folder: the artifacts of the pipeline do not change until the
pipeline runs.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rootstock.backbones.load import Backbone
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.errors import ArtifactError, BundleError
from rootstock.evaluate.decisions import write_decisions
from rootstock.evaluate.report import Evaluation, write_csv
from rootstock.heads.linear import read_head
from rootstock.model.bundle import ModelBundle, read_bundle
from rootstock.model.engine import load_network
from rootstock.model.head_layers import HeadLayers
from rootstock.plan.rules import RECIPES
from rootstock.plan.transfer_plan import TransferPlan
from rootstock.ports.runs import NullRunLogger
from rootstock.ports.search import SequentialSearcher
from rootstock.system.files import read_json, write_json
from rootstock.tasks.comparison import Comparison
from rootstock.training.objectives import HEAD_FILE
from rootstock.training.tracked import Tracking
from rootstock.training.training_job import TrainingJob
from rootstock.training.trials import HeadTrial, best_head
from rootstock.workflow.calibration import calibration_images
from rootstock.workflow.choice import Choice, SearchResult, calibrate
from rootstock.workflow.index import list_images
from rootstock.workflow.planned_backbone import load_planned_backbone
from rootstock.workflow.project import Project
from rootstock.workflow.task_settings import gate_metric
from rootstock.workflow.train import record_training, write_trained
from rootstock.workflow.training_job import open_job

CROSS_VALIDATED_HEAD = (
    "fitted to training and validation images together; `metrics` are those of heads in a "
    "cross-validation, on the validation images"
)
FOLDER = ".rootstock/refit"
"""The folder of a refitted model in a project."""


@dataclass(frozen=True)
class Refit:
    """A refitted model measured on the test images, next to the model whose backbone it uses.

    ``config`` and ``paths`` are ready for `register_model`; ``comparison`` is None if the classes
    have changed, and ``metrics`` are those of the new model.
    """

    config: Config
    paths: Paths
    bundle: ModelBundle
    metrics: dict[str, float]
    comparison: Comparison | None
    n_corrected: int
    seconds: float


def refit_head(config: Config, paths: Paths, *, base: Path | None = None) -> Refit:
    """Fit the head of the model ``base`` again, to the current labels.

    None: the model of the project. Features that the store lacks are computed, which takes longer:
    those of new images, and the first time those of a fine-tuned backbone.

    Raises:
        BundleError: the project has no model, or an ensemble of networks.
        ArtifactError: its plan was made with other weights.
        DataError: the images are not enough to learn from.
    """
    started = time.monotonic()
    bundle = read_bundle(base or paths.model)
    if bundle.facts.networks > 1:
        raise BundleError(
            f"the model averages {bundle.facts.networks} networks, each with its own head: one "
            "head cannot be fitted again",
            hint="run the pipeline, or train with train.ensemble=1",
        )
    scratch = _open_scratch(paths)
    data = config.data.model_copy(update={"root": paths.below(config.data.root).absolute()})
    features = config.features.model_copy(
        update={"store": paths.lasting(config.features.store).absolute()}
    )
    config = config.model_copy(update={"data": data, "features": features})
    if not bundle.is_int8:
        # To make and measure an int8 twin takes longer than all else; the next whole run does.
        export = config.export.model_copy(update={"int8": "never"})
        config = config.model_copy(update={"export": export})
    manifest = list_images(config, paths)
    manifest.write(scratch.manifest)
    project = Project.holding(manifest, config, scratch)
    strengths = _known_strength(paths, bundle) or config.train.l2_grid
    plan = _plan_head(TransferPlan.read(paths.plan), bundle, strengths)
    plan.write(scratch.plan)
    job = open_job(
        project,
        plan,
        backbone=_open_backbone(bundle, plan, config.train.device),
        directory=scratch.trials / manifest.content_hash[:16],
        calibration=calibration_images(manifest.rows("train")) if bundle.is_int8 else (),
    )
    # The int8 network is measured with a head that has not seen the validation images.
    heads = [] if bundle.is_int8 else _known_head(job)
    is_fitted = not heads
    if is_fitted:
        heads = job.search_heads(SequentialSearcher(), Tracking(NullRunLogger(), "", {}))
    trial = best_head(heads, job.data.task.selection) if is_fitted else heads[0]
    # A fine-tuned backbone stays fine-tuned, whatever head reads it now.
    choice = Choice(job, trial, bundle.strategy, kept_head=False, why="the head was fitted again")
    calibrated = calibrate(
        job, trial, option="one", threshold=config.task.threshold, is_fitted=is_fitted
    )
    written = write_trained(project, job, choice, calibrated, exported=bundle.onnx_path)
    training = record_training("", plan, SearchResult(heads, []), choice, calibrated)
    training |= {"refitted_from": bundle.digest}
    if not is_fitted:
        training["final_head"] = CROSS_VALIDATED_HEAD
    write_json(scratch.training, training)

    task, rows = job.data.task, manifest.rows("test")
    test = job.data.features("test", trial.tap)
    targets = job.data.targets("test")
    head = read_head(calibrated.trial.directory / HEAD_FILE)
    decisions = task.decide(head.outputs(test), calibrated.calibration)
    evaluation = Evaluation(task, decisions, targets, [row.path for row in rows])
    write_json(scratch.metrics, evaluation.metrics)
    report = task.report(evaluation.evidence, evaluation.metrics, project.root)
    write_csv(scratch.per_class, report.rows)
    write_decisions(scratch.decisions, rows, decisions)
    comparison = None
    if bundle.names == written.names:
        before = task.decide(_outputs(bundle, test), bundle.facts.calibration)
        gate = config.registry.gate
        comparison = task.compare(
            before,
            decisions,
            targets,
            metric=gate_metric(config, task),
            rule=gate.rule,
            min_gain=gate.min_gain,
        )
    shutil.rmtree(scratch.trials, ignore_errors=True)
    return Refit(
        config,
        scratch,
        written,
        evaluation.metrics,
        comparison,
        len(manifest.originals),
        time.monotonic() - started,
    )


def _open_scratch(paths: Paths) -> Paths:
    """Return an empty folder for the new model."""
    folder = paths.root / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    return Paths(folder)


def _plan_head(
    plan: TransferPlan, bundle: ModelBundle, strengths: tuple[float, ...]
) -> TransferPlan:
    """Return a plan that only fits a head, on the features that ``bundle`` reads."""
    facts = bundle.facts
    if facts.lineage.get("weights_sha256") != plan.weights_sha256:
        raise ArtifactError(
            "the model and the plan were made with different weights", hint="run `dvc repro`"
        )
    return plan.model_copy(
        update={
            "strategy": "linear_probe",
            "taps": (facts.tap,),
            "input_size": bundle.preprocess.input_size,
            "finetune": None,
            "finetune_candidates": (),
            "finetune_space": {},
            "raced_head": None,
            "race": None,
            "head_candidates": (
                {"tap": facts.tap, "strengths": list(strengths), "only": len(strengths) == 1},
            ),
        }
    )


def _known_strength(paths: Paths, bundle: ModelBundle) -> tuple[float, ...]:
    """Return the penalty that training chose for this head; None without one."""
    best = read_json(paths.training, made_by="train")["best"]
    known = best.get("tap") == bundle.facts.tap and best.get("l2")
    return (float(best["l2"]),) if known else ()


def _known_head(job: TrainingJob) -> list[HeadTrial]:
    """Return the only head to fit, which is not fitted yet; none if heads have to be compared."""
    first, *others = job.head_candidates
    if others or not first.get("only") or not job.can_judge_final_head():
        return []
    directory = job.directory / "heads"
    return [HeadTrial(first, {"l2": first["strengths"][0]}, directory)]


def _open_backbone(bundle: ModelBundle, plan: TransferPlan, device: str) -> Backbone:
    """Return the backbone of the model, pretrained or fine-tuned."""
    backbone = load_planned_backbone(plan, device=device)
    if bundle.strategy not in RECIPES:
        return backbone
    module = load_network(bundle).extractor.module
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().numpy().tobytes())
    card = backbone.card.model_copy(update={"weights_sha256": digest.hexdigest()})
    return Backbone(card, module.to(backbone.device))


def _outputs(bundle: ModelBundle, features: np.ndarray) -> np.ndarray:
    """Return the outputs float32[N,K] of the head of ``bundle`` for features [N,D]."""
    layers = HeadLayers.read(bundle.weights_path)
    values = features.astype(np.float32)
    for number, (weights, bias) in enumerate(zip(layers.weights, layers.biases, strict=True)):
        values = np.maximum(values, 0.0) if number else values
        values = values @ weights.T + bias
    return values
