"""Manifest and backbone in, DatasetProfile out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rootstock.assess.profile import (
    BackboneFacts,
    BackboneProfile,
    DatasetProfile,
    Probe,
    Similarity,
)
from rootstock.assess.similarity import measure_similarity
from rootstock.assess.size import size_class
from rootstock.backbones.cost import forward_gflop
from rootstock.backbones.load import Backbone
from rootstock.data.manifest import ImageRow
from rootstock.features.loading import prepared_batches
from rootstock.features.reader import FeatureReader
from rootstock.features.store.store import FeatureStore
from rootstock.heads.linear import PROBE_L2
from rootstock.system.artifacts import measured_once
from rootstock.tasks.dataset import Dataset, read_targets
from rootstock.tasks.task import Task

SIMILARITY_VERSION = 1
"""Raised whenever the same images would get another similarity."""
MIN_STRATUM_IMAGES = 3
"""Images of each stratum in a sample, where it has them."""


def build_profile(
    dataset: Dataset,
    *,
    root: Path,
    backbone: Backbone,
    store: FeatureStore,
    thresholds: dict[str, int],
    similar_from: float,
    sample: int,
    folds: int,
    batch_size: int,
    seed: int,
) -> DatasetProfile:
    """Measure size, balance, similarity and the probe accuracy of every tap.

    ``thresholds`` are the borders of `size_class`, by name.
    Similarity and probes use at most ``sample`` training images; ``root`` is the folder that
    the manifest's paths are relative to.
    Raises:
        DataError: an image has changed since it was indexed.
    """
    manifest = dataset.manifest
    train = manifest.rows("train")
    profile = measure_backbone(
        backbone.card.weights,
        backbone,
        sample_rows(train, sample),
        task=dataset.task,
        root=root,
        store=store,
        similar_from=similar_from,
        folds=folds,
        batch_size=batch_size,
        seed=seed,
    )
    per_stratum = Counter(row.stratum for row in train)
    median = float(np.median([per_stratum[stratum] for stratum in manifest.strata]))
    sides = [min(row.width, row.height) for row in train]
    return DatasetProfile(
        data_hash=manifest.content_hash,
        classes=dataset.names,
        n_train=len(train),
        n_val=len(manifest.rows("val")),
        n_test=len(manifest.rows("test")),
        n_quarantined=len(manifest.quarantined),
        train_per_class={stratum: per_stratum[stratum] for stratum in manifest.strata},
        median_per_class=median,
        imbalance=round(max(per_stratum.values()) / min(per_stratum.values()), 2),
        short_side_quantiles=_quartiles(sides),
        size_class=size_class(len(train), median, **thresholds),
        thresholds=thresholds,
        similarity=profile.similarity,
        probes=profile.probes,
        backbone=profile.backbone,
    )


def measure_backbone(
    candidate: str,
    backbone: Backbone,
    rows: Sequence[ImageRow],
    *,
    task: Task,
    root: Path,
    store: FeatureStore,
    similar_from: float,
    folds: int,
    batch_size: int,
    seed: int,
) -> BackboneProfile:
    """Similarity and the probe accuracy of every tap, on ``rows`` of the training images.

    Raises:
        DataError: an image has changed since it was indexed.
    """
    reader = FeatureReader(root, backbone, backbone.card.preprocess(), store)
    return BackboneProfile(
        candidate=candidate,
        backbone=_facts(backbone),
        similarity=_similarity(rows, reader, batch_size, similar_from),
        probes=tuple(_probe_taps(task, list(rows), reader, folds, batch_size, seed)),
    )


def sample_rows(rows: Sequence[ImageRow], limit: int) -> list[ImageRow]:
    """Return about ``limit`` rows at most, the same share of each stratum, chosen by content.

    Three of each stratum are taken where it has them, however many strata there are: one image of
    its kind cannot be probed.
    """
    if len(rows) <= limit:
        return list(rows)
    by_stratum: dict[str, list[ImageRow]] = {}
    for row in sorted(rows, key=lambda row: row.sha256):
        by_stratum.setdefault(row.stratum, []).append(row)
    chosen: list[ImageRow] = []
    for members in by_stratum.values():
        chosen += members[: max(MIN_STRATUM_IMAGES, round(limit * len(members) / len(rows)))]
    return sorted(chosen, key=lambda row: row.path)


def _similarity(
    rows: Sequence[ImageRow], reader: FeatureReader, batch_size: int, threshold: float
) -> Similarity:
    """Measured once for the same images, weights and preparation, then kept beside the features."""
    backbone, preprocess = reader.backbone, reader.preprocess
    scale = backbone.card.similarity
    identity = [SIMILARITY_VERSION, backbone.card.weights_sha256, preprocess.hash, repr(scale)]
    identity += [repr(threshold), *(row.sha256 for row in rows)]

    def measure() -> Similarity:
        batches = prepared_batches(rows, reader.root, preprocess, batch_size=batch_size)
        return measure_similarity(
            backbone, (preprocess.normalise(pixels) for _, pixels in batches), threshold=threshold
        )

    return measured_once(reader.store.root / ".similarity", identity, Similarity, measure)


def _quartiles(values: list[int]) -> tuple[int, int, int, int, int]:
    low, lower, median, upper, high = np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).astype(int)
    return int(low), int(lower), int(median), int(upper), int(high)


def _probe_taps(
    task: Task, rows: list[ImageRow], reader: FeatureReader, folds: int, batch_size: int, seed: int
) -> Iterator[Probe]:
    counts = Counter(row.stratum for row in rows)
    # A fold needs every stratum in its training part, so one image of its kind cannot be probed.
    rows = [row for row in rows if counts[row.stratum] >= 2]
    if len({row.stratum for row in rows}) < 2:
        return
    targets = read_targets(task, rows, task.read_names([row.target for row in rows]))
    solver = task.head()
    taps = reader.backbone.tap_names
    reader.extract(rows, taps, batch_size=batch_size)
    for tap in taps:
        features = reader.read(rows, tap).astype(np.float32)
        score, std = solver.probe(features, targets, folds=folds, l2=PROBE_L2, seed=seed)
        neighbours = task.neighbour_score(features, targets)
        yield Probe(
            tap=tap,
            accuracy=round(score, 4),
            std=round(std, 4),
            n_images=len(rows),
            knn=None if neighbours is None else round(neighbours, 4),
        )


def _facts(backbone: Backbone) -> BackboneFacts:
    card = backbone.card
    size = card.input_size[1]
    return BackboneFacts(
        name=card.name,
        architecture=card.architecture,
        weights=card.weights,
        weights_sha256=card.weights_sha256,
        pretrained_on=card.pretrained_on,
        license=card.license,
        input_size=size,
        taps=tuple(backbone.tap_names),
        parameters=sum(p.numel() for p in backbone.module.parameters()),
        gflop_per_megapixel=round(forward_gflop(backbone, size) / (size * size / 1e6), 3),
    )
