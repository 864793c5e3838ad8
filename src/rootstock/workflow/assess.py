"""Stage `assess`: Manifest in, DatasetProfile out."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from typing import Any

from rootstock.assess.build import build_profile, measure_backbone, sample_rows
from rootstock.assess.candidates import list_candidates, split_candidate
from rootstock.assess.geometry import probe_geometries
from rootstock.assess.profile import BackboneProfile, DatasetProfile, GeometryProbe
from rootstock.assess.shape import FAR_FROM_SQUARE, choose_geometry, median_aspect_ratio
from rootstock.backbones.licence import require_commercial_use
from rootstock.backbones.load import Backbone, load_backbone
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.data.preprocess import Geometry
from rootstock.features.reader import FeatureReader
from rootstock.features.store.store import FeatureStore
from rootstock.review.borders import Borders
from rootstock.system.progress import Progress, say
from rootstock.tasks import get_task
from rootstock.tasks.dataset import Dataset
from rootstock.workflow.backbone_choice import measure_candidates
from rootstock.workflow.data_review import BORDER_IMAGES, BORDER_IMAGES_PER_CLASS, review_data
from rootstock.workflow.estimates import PlanMinutes, assessment_file, estimate_minutes
from rootstock.workflow.pins import read_candidates, read_cost_pins
from rootstock.workflow.project import Project


def assess_data(config: Config, paths: Paths) -> DatasetProfile:
    """Write artifacts/profile.json (size, similarity, probes by depth) and the review."""
    started = time.monotonic()
    project, options = Project(config, paths), config.assess
    dataset = Dataset.of(project.manifest)
    backbone = _load_allowed(config, config.backbone.weights, config.backbone.name)
    card = backbone.card
    say(f"assess: {len(project.manifest.rows('train')):,} training images as {card.name} sees them")
    rows = sample_rows(project.manifest.rows(), options.review_images, every_stratum=False)
    n_borders = max(BORDER_IMAGES, BORDER_IMAGES_PER_CLASS * len({row.stratum for row in rows}))
    borders = Borders(sample_rows(rows, n_borders))
    shape = _measure_shape(project, backbone)
    reader = dataclasses.replace(
        _open_reader(project, backbone, shape["geometry"]), on_image=borders.note
    )
    profile = build_profile(
        dataset,
        reader,
        thresholds={
            "small_below": options.small_below,
            "small_per_class_below": options.small_per_class_below,
            "large_from": options.large_from,
        },
        similar_from=options.similar_from,
        sample=options.sample,
        folds=options.probe_folds,
        batch_size=config.features.batch_size,
        seed=config.seed,
        pooling=config.features.pooling,
    ).model_copy(update=shape)
    if read_candidates(config):
        profile = _with_candidates(project, profile)
    profile.write(paths.profile)
    with Progress("speed of this machine", 0, "step"):
        minutes = estimate_minutes(paths.paces, profile, backbone, read_cost_pins(config))[1]
    with Progress("review", 0, "step"):
        review_data(
            dataset,
            profile,
            reader,
            rows=rows,
            borders=borders,
            batch_size=config.features.batch_size,
            target_accuracy=options.target_accuracy,
            folds=options.probe_folds,
            seed=config.seed,
            minutes=minutes,
            artifact=paths.review,
            reports=paths.reports,
        )
    taken = (time.monotonic() - started) / 60
    PlanMinutes(None, taken).write(assessment_file(paths.estimates, profile))
    return profile


def _open_reader(project: Project, backbone: Backbone, geometry: Geometry) -> FeatureReader:
    preprocess = backbone.card.preprocess(rendering=project.manifest.rendering, geometry=geometry)
    return FeatureReader(project.root, backbone, preprocess, FeatureStore(project.store))


def _measure_shape(project: Project, backbone: Backbone) -> dict[str, Any]:
    """Return the fields of the profile about making images square, with the reason."""
    config, rows = project.config, project.manifest.rows("train")
    ratio = median_aspect_ratio(rows)
    wish = "squash" if get_task(project.manifest.task).spatial else config.data.geometry
    probes: tuple[GeometryProbe, ...] = ()
    if wish == "auto" and ratio >= FAR_FROM_SQUARE:
        probes = probe_geometries(
            rows,
            partial(_open_reader, project, backbone),
            task=get_task(project.manifest.task),
            folds=config.assess.probe_folds,
            batch_size=config.features.batch_size,
            seed=config.seed,
        )
    geometry = choose_geometry(probes) if wish == "auto" else wish
    return {"geometry": geometry, "aspect_ratio": ratio, "geometry_probes": probes}


def _load_allowed(config: Config, weights: str, name: str) -> Backbone:
    backbone = load_backbone(weights, name, device=config.features.device)
    if config.backbone.require_commercial:
        require_commercial_use(backbone.card.name, backbone.card.license)
    return backbone


def _with_candidates(project: Project, profile: DatasetProfile) -> DatasetProfile:
    """Return ``profile`` with the measurements of every other candidate on the same images."""
    config = project.config
    rows = sample_rows(project.manifest.rows("train"), config.assess.sample)
    task = get_task(project.manifest.task)

    def measure(candidate: str) -> BackboneProfile:
        weights, name = split_candidate(candidate)
        backbone = _load_allowed(config, weights, name)
        return measure_backbone(
            candidate,
            _open_reader(project, backbone, profile.geometry),
            rows,
            task=task,
            similar_from=config.assess.similar_from,
            folds=config.assess.probe_folds,
            batch_size=config.features.batch_size,
            seed=config.seed,
            pooling=config.features.pooling,
        )

    names = list_candidates(
        read_candidates(config), weights=config.backbone.weights, name=config.backbone.name
    )
    alternatives, unusable = measure_candidates(names[1:], measure)
    return profile.model_copy(update={"alternatives": alternatives, "unusable": unusable})
