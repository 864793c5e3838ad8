"""Open the training of a plan with the settings and folders of a project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rootstock.backbones.load import Backbone
from rootstock.data.manifest import ImageRow, Manifest
from rootstock.features.reader import FeatureReader
from rootstock.features.store.store import FeatureStore
from rootstock.plan.transfer_plan import TransferPlan
from rootstock.system.digest import digest_json
from rootstock.tasks.dataset import Dataset
from rootstock.training.throughput import known_throughput
from rootstock.training.training_data import TrainingData
from rootstock.training.training_job import TrainingJob
from rootstock.workflow.planned_backbone import load_planned_backbone
from rootstock.workflow.project import Project
from rootstock.workflow.task_settings import check_class_weight, check_ensemble


def open_job(
    project: Project,
    plan: TransferPlan,
    *,
    manifest: Manifest | None = None,
    directory: Path | None = None,
    backbone: Backbone | None = None,
    calibration: tuple[ImageRow, ...] = (),
) -> TrainingJob:
    """Return the training of ``plan``; by default on all images, in the job's own folder.

    ``backbone`` replaces the planned one. If there are images for its ``calibration``, features are
    those of the backbone in int8.

    Raises:
        PlanError: the weights have changed since the plan was made.
        ConfigError: the task does not support the configured class weights or ensemble.
    """
    config, paths = project.config, project.paths
    dataset = Dataset.of(project.manifest if manifest is None else manifest)
    check_class_weight(config, dataset.task)
    check_ensemble(config, dataset.task)
    backbone = backbone or load_planned_backbone(plan, device=config.train.device)
    compute = None
    if plan.finetune:
        compute = known_throughput(paths.paces, backbone, tuning_size=plan.input_size).tuning
    return TrainingJob(
        plan=plan,
        data=TrainingData(
            dataset=dataset,
            reader=FeatureReader(
                project.root,
                backbone,
                backbone.card.preprocess(
                    plan.input_size, project.manifest.rendering, plan.geometry
                ),
                FeatureStore(project.store),
                calibration=calibration,
            ),
            batch_size=config.features.batch_size,
            directory=directory or paths.trials / _job_name(project, plan, calibration),
        ),
        options=config.train,
        seed=config.seed,
        workers=config.search.workers_per_trial,
        compute=compute,
    )


def _job_name(project: Project, plan: TransferPlan, calibration: Sequence[ImageRow]) -> str:
    """Return a name that is equal for jobs whose trials have equal results.

    A race on all training images is such a job: training reuses its finished trials.
    """
    recipe = {"weights_sha256", "backbone", "taps", "input_size", "finetune", "geometry"}
    recipe |= {"pooling"}
    options, free = project.config.train, {"learning_rates", "epochs", "trials", "ensemble"}
    parts = [
        plan.model_dump(mode="json", include=recipe),
        project.manifest.content_hash,
        options.model_dump(mode="json", exclude=free),
        project.config.seed,
        *(row.sha256 for row in calibration),
    ]
    return digest_json(parts, digits=16)
