"""Stage `index`: images in, Manifest and its pictures out."""

from __future__ import annotations

from rootstock import plots
from rootstock.config import Config, Paths
from rootstock.data.decode import DecodeLimits
from rootstock.data.files import write_json
from rootstock.data.manifest import Manifest, build_manifest


def index_images(config: Config, paths: Paths) -> Manifest:
    """Decode every image once; write the manifest, reports/data.json and three pictures."""
    data = config.data
    root = paths.below(data.root)
    manifest = build_manifest(
        root,
        limits=DecodeLimits(data.max_bytes, data.max_pixels, data.max_aspect_ratio),
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        near_duplicate_bits=data.near_duplicate_bits,
        min_per_class=data.min_per_class,
        seed=config.seed,
        workers=None if data.workers == "auto" else data.workers,
    )
    manifest.write(paths.manifest)
    write_json(paths.reports / "data.json", manifest.summary())
    return manifest
