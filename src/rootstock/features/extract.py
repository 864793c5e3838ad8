"""Manifest rows and a backbone in, the features that the store lacks computed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from rootstock.backbones.card import split_taps
from rootstock.backbones.load import Backbone
from rootstock.data.manifest import ImageRow
from rootstock.data.preprocess import Preprocess
from rootstock.errors import ArtifactError
from rootstock.features.fastest import MEASURE_FROM_IMAGES, TASK_IMAGES, choose_forward
from rootstock.features.forward import Features, Forward, open_forwards
from rootstock.features.loading import prepared_batches, read_prepared, spread
from rootstock.features.store.compaction import compact
from rootstock.features.store.store import FeatureStore, Space
from rootstock.system.files import read_json, write_json

SEGMENT_ROWS = 512
SEGMENT_SECONDS = 20.0
"""After so many images or seconds the work is put on disk: no crash loses more."""
_PART = 8_192


@dataclass(frozen=True)
class ExtractionReport:
    """How many images were computed, how many were there already, and how long it took.

    ``engine`` is what computed them, empty where there was nothing to compute.
    """

    computed: int
    reused: int
    seconds: float
    engine: str = ""


def extract_features(
    rows: Sequence[ImageRow],
    root: Path,
    backbone: Backbone,
    preprocess: Preprocess,
    store: FeatureStore,
    taps: Sequence[str],
    *,
    batch_size: int = 64,
    n_images: int | None = None,
    measure: bool = False,
) -> ExtractionReport:
    """Compute and store the features of ``rows`` at ``taps`` that are missing or damaged.

    ``root`` is the folder that the rows' paths are relative to. Where ``rows`` are a part of the
    work, ``n_images`` says how many images it has in all, by which the way to compute them is
    chosen, and who has them all is to `compact` the `feature_space`.
    ``measure``: by the engine that is fastest on this machine; else by the one that is preferred,
    which is the same every time.
    Raises:
        DataError: an image has changed or vanished since it was indexed.
        StoreError: the store cannot be written.
    """
    started = time.monotonic()
    space = feature_space(backbone, preprocess, store)
    unique = list({row.sha256: row for row in rows}.values())
    keys = [row.sha256 for row in unique]
    taps = _single_taps(taps)
    lacking = {tap: space.missing(keys, tap, verify=True) for tap in taps}
    todo = [unique[i] for i in sorted(set().union(*lacking.values()))]
    needed = [tap for tap in taps if lacking[tap]]
    engine = ""
    if todo:
        forward = _open_forward(
            backbone,
            preprocess,
            needed,
            n_images=n_images or len(unique),
            probe=read_prepared(todo[:2], root, preprocess),
            folder=store.root / ".engines",
            measure=measure,
            batch_size=batch_size,
        )
        engine = forward.name
        _compute(todo, root, preprocess, space, needed, forward, batch_size=batch_size)
    if n_images is None:
        compact(space)
    seconds = time.monotonic() - started
    return ExtractionReport(len(todo), len(unique) - len(todo), seconds, engine)


def read_features(
    rows: Sequence[ImageRow],
    backbone: Backbone,
    preprocess: Preprocess,
    store: FeatureStore,
    tap: str,
) -> np.ndarray:
    """Stored features float16[N,C] of ``rows`` at a tap, or at taps joined by ``+``.

    Raises:
        StoreError: some are missing.
    """
    space, keys = feature_space(backbone, preprocess, store), [row.sha256 for row in rows]
    parts = [space.read(keys, name) for name in split_taps(tap)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def save_features(
    file: BinaryIO,
    rows: Sequence[ImageRow],
    backbone: Backbone,
    preprocess: Preprocess,
    store: FeatureStore,
    tap: str,
) -> None:
    """Write what `read_features` returns as a .npy file, a part at a time.

    Raises:
        StoreError: some are missing.
    """
    parts = [rows[start : start + _PART] for start in range(0, max(1, len(rows)), _PART)]
    for number, part in enumerate(parts):
        features = read_features(part, backbone, preprocess, store, tap)
        if number == 0:
            shape = (len(rows), features.shape[1])
            header = np.lib.format.header_data_from_array_1_0(features) | {"shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
        file.write(features.data)


def write_feature_index(
    path: Path,
    rows: Sequence[ImageRow],
    backbone: Backbone,
    preprocess: Preprocess,
    store: FeatureStore,
    taps: Sequence[str],
) -> None:
    """Write which features these rows need, with a checksum for each tap."""
    keys = [row.sha256 for row in rows]
    space = feature_space(backbone, preprocess, store)
    index: dict[str, Any] = {
        "format_version": 1,
        "weights_sha256": backbone.card.weights_sha256,
        "preprocess": preprocess.to_dict(),
        "preprocess_hash": preprocess.hash,
        "n_images": len(keys),
        "keys_sha256": hashlib.sha256("".join(keys).encode()).hexdigest(),
        "taps": {
            tap: hashlib.sha256(space.checksums(keys, tap).tobytes()).hexdigest()
            for tap in _single_taps(taps)
        },
    }
    write_json(path, index)


def check_feature_index(
    path: Path, rows: Sequence[ImageRow], backbone: Backbone, preprocess: Preprocess
) -> None:
    """Make sure that the index was made for these images, weights and preprocessing.

    Raises:
        ArtifactError: it was made for others.
    """
    index = read_json(path, made_by="features")
    keys = "".join(row.sha256 for row in rows)
    expected = {
        "weights_sha256": backbone.card.weights_sha256,
        "preprocess_hash": preprocess.hash,
        "keys_sha256": hashlib.sha256(keys.encode()).hexdigest(),
    }
    for name, value in expected.items():
        if index.get(name) != value:
            raise ArtifactError(
                f"{path} was made for other inputs: {name} differs",
                hint="run the stage `features` again",
            )


def _single_taps(taps: Sequence[str]) -> list[str]:
    """What is stored: taps joined by ``+`` are kept one by one."""
    return list(dict.fromkeys(name for tap in taps for name in split_taps(tap)))


def feature_space(backbone: Backbone, preprocess: Preprocess, store: FeatureStore) -> Space:
    """Where the features of this backbone and preprocessing are kept."""
    return store.space(weights_sha256=backbone.card.weights_sha256, preprocess_hash=preprocess.hash)


def _open_forward(
    backbone: Backbone,
    preprocess: Preprocess,
    taps: Sequence[str],
    *,
    n_images: int,
    probe: np.ndarray,
    folder: Path,
    measure: bool,
    batch_size: int,
) -> Forward:
    measure = measure and n_images >= MEASURE_FROM_IMAGES
    ways = open_forwards(
        backbone, preprocess, taps, n_images=n_images, probe=probe, folder=folder, every=measure
    )
    if measure:
        return choose_forward(ways, probe=probe, folder=folder, batch_size=batch_size)
    return ways.forwards[0]


def _compute(
    rows: Sequence[ImageRow],
    root: Path,
    preprocess: Preprocess,
    space: Space,
    taps: Sequence[str],
    forward: Forward,
    *,
    batch_size: int,
) -> None:
    pending: list[tuple[str, dict[str, np.ndarray]]] = []
    flushed = time.monotonic()
    with tqdm(total=len(rows), desc="features", unit="image", disable=None) as bar:
        for batch, features in _forwarded(rows, root, preprocess, forward, batch_size):
            for number, row in enumerate(batch):
                pending.append((row.sha256, {tap: features[tap][number] for tap in taps}))
            bar.update(len(batch))
            if len(pending) >= SEGMENT_ROWS or time.monotonic() - flushed > SEGMENT_SECONDS:
                _flush(space, pending, taps)
                flushed = time.monotonic()
        _flush(space, pending, taps)


def _forwarded(
    rows: Sequence[ImageRow],
    root: Path,
    preprocess: Preprocess,
    forward: Forward,
    batch_size: int,
) -> Iterator[tuple[Sequence[ImageRow], Features]]:
    if forward.concurrent:
        # Decoding and forward pass in one task: no core waits for another.
        tasks = [rows[start : start + TASK_IMAGES] for start in range(0, len(rows), TASK_IMAGES)]
        found = spread(lambda task: forward.run(read_prepared(task, root, preprocess)), tasks)
        yield from zip(tasks, found, strict=True)
    else:
        batches = prepared_batches(rows, root, preprocess, batch_size=batch_size)
        yield from ((batch, forward.run(pixels)) for batch, pixels in batches)


def _flush(
    space: Space, pending: list[tuple[str, dict[str, np.ndarray]]], taps: Sequence[str]
) -> None:
    if pending:
        keys = [key for key, _ in pending]
        space.append(keys, {tap: np.stack([row[tap] for _, row in pending]) for tap in taps})
        pending.clear()
