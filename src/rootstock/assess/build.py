"""Manifest and backbone in, DatasetProfile out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

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
from rootstock.backbones.card import pool_tap
from rootstock.backbones.cost import forward_gflop
from rootstock.backbones.load import Backbone
from rootstock.config.choices import Pooling
from rootstock.data.manifest import ImageRow
from rootstock.features.reader import FeatureReader
from rootstock.heads.linear import PROBE_L2
from rootstock.system.artifacts import measured_once
from rootstock.system.progress import Progress
from rootstock.tasks.dataset import Dataset, read_targets
from rootstock.tasks.task import Task

SIMILARITY_VERSION = 1
"""Increased whenever the same images would get another similarity."""
MIN_STRATUM_IMAGES = 3
"""Images per stratum in a sample, if the stratum has this many."""


def build_profile(
    dataset: Dataset,
    reader: FeatureReader,
    *,
    thresholds: dict[str, int],
    similar_from: float,
    sample: int,
    folds: int,
    batch_size: int,
    seed: int,
    pooling: Pooling = "avg",
) -> DatasetProfile:
    """Measure size, balance, similarity and the probe accuracy of every tap.

    ``thresholds`` are the thresholds of `size_class`, by name.
    Similarity and probes use at most about ``sample`` training images.
    Raises:
        DataError: an image has changed since it was indexed.
    """
    manifest = dataset.manifest
    train = manifest.rows("train")
    profile = measure_backbone(
        reader.backbone.card.weights,
        reader,
        sample_rows(train, sample),
        task=dataset.task,
        similar_from=similar_from,
        folds=folds,
        batch_size=batch_size,
        seed=seed,
        pooling=pooling,
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
        dense=dataset.task.output_grid > 0,
        similarity=profile.similarity,
        probes=profile.probes,
        backbone=profile.backbone,
        score_name=dataset.task.score_name,
        pooling=pooling,
    )


def measure_backbone(
    candidate: str,
    reader: FeatureReader,
    rows: Sequence[ImageRow],
    *,
    task: Task,
    similar_from: float,
    folds: int,
    batch_size: int,
    seed: int,
    pooling: Pooling = "avg",
) -> BackboneProfile:
    """Measure similarity and the probe accuracy of every tap on training images ``rows``.

    Raises:
        DataError: an image has changed since it was indexed.
    """
    probed = probed_rows(rows)
    return BackboneProfile(
        candidate=candidate,
        backbone=_facts(reader.backbone),
        similarity=_similarity(rows, probed, reader, batch_size, similar_from),
        probes=tuple(_probe_taps(task, probed, reader, folds, batch_size, seed, pooling)),
    )


def sample_rows(
    rows: Sequence[ImageRow], limit: int, *, every_stratum: bool = True
) -> list[ImageRow]:
    """Return about ``limit`` rows, the same share of each stratum, chosen by content.

    Up to three rows of each stratum are chosen, because a single image cannot be probed. With many
    strata the sample is therefore larger than ``limit``, unless ``every_stratum`` is False: then it
    holds only as many strata as fit.
    """
    if len(rows) <= limit:
        return list(rows)
    by_stratum: dict[str, list[ImageRow]] = {}
    for row in sorted(rows, key=lambda row: row.sha256):
        by_stratum.setdefault(row.stratum, []).append(row)
    chosen: list[ImageRow] = []
    parts = list(by_stratum.values())  # sorted by the hash of their first image
    if not every_stratum:
        parts = parts[: max(2, limit // MIN_STRATUM_IMAGES)]
    for members in parts:
        chosen += members[: max(MIN_STRATUM_IMAGES, round(limit * len(members) / len(rows)))]
    return sorted(chosen, key=lambda row: row.path)


def probed_rows(rows: Sequence[ImageRow]) -> list[ImageRow]:
    """Return the rows that probes can use; empty if they have only one stratum."""
    counts = Counter(stratum for stratum, _ in {(row.stratum, row.group) for row in rows})
    # The training part of each fold needs every stratum, so a stratum with one group is not usable.
    probed = [row for row in rows if counts[row.stratum] >= 2]
    return probed if len({row.stratum for row in probed}) >= 2 else []


def _similarity(
    rows: Sequence[ImageRow],
    probed: Sequence[ImageRow],
    reader: FeatureReader,
    batch_size: int,
    threshold: float,
) -> Similarity:
    """Measure once per set of images, weights and preparation, and cache it next to the features.

    The features of the ``probed`` rows are stored at the same time, since the images are decoded.
    """
    backbone, preprocess = reader.backbone, reader.preprocess
    scale = backbone.card.similarity
    identity = [SIMILARITY_VERSION, backbone.card.weights_sha256, preprocess.hash, repr(scale)]
    identity += [repr(threshold), *(row.sha256 for row in rows)]

    def measure() -> Similarity:
        shared = reader.share(rows, probed, backbone.tap_names, batch_size=batch_size)
        return measure_similarity(
            backbone,
            (preprocess.normalise(pixels) for pixels in shared.batches),
            threshold=threshold,
            forwarded=shared.forwarded,
        )

    return measured_once(reader.store.root / ".similarity", identity, Similarity, measure)


def _quartiles(values: list[int]) -> tuple[int, int, int, int, int]:
    low, lower, median, upper, high = np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).astype(int)
    return int(low), int(lower), int(median), int(upper), int(high)


def _probe_taps(
    task: Task,
    rows: list[ImageRow],
    reader: FeatureReader,
    folds: int,
    batch_size: int,
    seed: int,
    pooling: Pooling,
) -> Iterator[Probe]:
    if not rows:
        return
    targets = read_targets(task, rows, task.read_names([row.target for row in rows]))
    solver = task.head()
    depths = reader.backbone.tap_names
    taps = [task.probe_tap(depth, depths) or pool_tap(depth, pooling) for depth in depths]
    reader.extract(rows, taps, batch_size=batch_size)
    with Progress("probes", len(taps), "depth") as progress:
        for depth, tap in zip(depths, taps, strict=True):
            features = reader.read(rows, tap).astype(np.float32)
            reading = solver.reading(reader.backbone.parts(tap))
            score, std = reading.probe(features, targets, folds=folds, l2=PROBE_L2, seed=seed)
            neighbours = task.neighbour_score(features, targets)
            progress.update()
            yield Probe(
                tap=depth,
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
