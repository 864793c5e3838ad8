"""Features of six sets, computed once: images to label, test images, and corrupted test images."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from few_images import CLASSES, Arrays, link_few
from sets import find_sets, list_images

from rootstock.backbones.load import load_backbone
from rootstock.backbones.packaged import DEFAULT_NAME
from rootstock.data.manifest import ImageRow
from rootstock.explain.corruptions import CORRUPTIONS
from rootstock.features.loading import read_pixels
from rootstock.features.reader import FeatureReader
from rootstock.features.store.store import FeatureStore

SETS = ("ants_bees", "brain_mri", "cifar10", "flowers12", "sign_digits", "tiny_imagenet")
INPUT_PIXELS = 128
POOL_IMAGES, TEST_IMAGES, CORRUPTED_IMAGES = 1_000, 400, 300
SHIFTS = (
    ("noise", 2),
    ("blur", 3),
    ("JPEG", 3),
    ("brightness", 3),
    ("contrast", 3),
    ("rotation", 3),
)
"""Corruption and severity of each shifted test set."""


def read_set(name: str, root: Path, cache: Path) -> Arrays:
    """Return labels and features of `pool`, `test`, and each shift; {} without the set."""
    file = cache / f"{name}.npz"
    if not file.exists():
        with tempfile.TemporaryDirectory() as scratch:
            for _, folder in find_sets(root, [name], Path(scratch)):
                part = link_few(folder, Path(scratch) / "few", CLASSES.get(name))
                np.savez(file, **_compute(part, Path(scratch)))
    return dict(np.load(file)) if file.exists() else {}


def _compute(folder: Path, scratch: Path) -> Arrays:
    manifest = list_images(folder, seed=0)
    backbone = load_backbone("packaged", DEFAULT_NAME)
    preprocess = backbone.card.preprocess(None, manifest.rendering).with_size(INPUT_PIXELS)
    reader = FeatureReader(folder, backbone, preprocess, FeatureStore(scratch / "store"))
    parts = {
        "pool": _draw([*manifest.rows("train"), *manifest.rows("val")], POOL_IMAGES),
        "test": _draw(manifest.rows("test"), TEST_IMAGES),
    }
    arrays: Arrays = {}
    for part, rows in parts.items():
        reader.extract(rows, ["last"])
        arrays[part] = reader.read(rows, "last")
        arrays[f"{part}_y"] = np.array([manifest.strata.index(row.target) for row in rows])
    some = parts["test"][:CORRUPTED_IMAGES]
    forward = reader._choose_pass(
        some, ["last"], len(some) * len(SHIFTS), measure=False, batch_size=32
    )
    side, rendering = preprocess.decoded_side, preprocess.rendering
    decoded = [read_pixels(row, folder, short_side=side, rendering=rendering) for row in some]
    for corruption, severity in SHIFTS:
        changed = [preprocess.fit(CORRUPTIONS[corruption](one, severity)) for one in decoded]
        features = [
            forward.run(np.stack(changed[at : at + 32]))["last"] for at in range(0, len(some), 32)
        ]
        arrays[f"{corruption} {severity}"] = np.concatenate(features)
    return arrays


def _draw(rows: list[ImageRow], limit: int) -> list[ImageRow]:
    """Return at most ``limit`` rows in the order of their hash, which is random."""
    unique = {row.sha256: row for row in rows}
    return sorted(unique.values(), key=lambda row: row.sha256)[:limit]


if __name__ == "__main__":
    import sys

    for name in SETS:
        arrays = read_set(name, Path(sys.argv[1]), Path(sys.argv[2]))
        print(name, {key: value.shape for key, value in arrays.items()}, flush=True)
