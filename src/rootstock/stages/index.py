"""Stage `index`: images in, Manifest and its pictures out."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rootstock.config import Config
from rootstock.data.decode import DecodeLimits
from rootstock.data.files import write_json
from rootstock.data.layout import base_folder
from rootstock.data.manifest import Manifest, build_manifest
from rootstock.errors import ArtifactError
from rootstock.paths import Paths

PICTURES = "plots/data"


def index_images(config: Config, paths: Paths) -> Manifest:
    """Decode every image once; write the manifest, reports/data.json and three pictures."""
    with _no_garbage():
        return _index(config, paths)


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Python looks through all objects for garbage again and again as they grow in number.

    The rows of an index all stay; of 100,000 the search took an eighth of the stage's time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _index(config: Config, paths: Paths) -> Manifest:
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
        memory=paths.seen,
    )
    if not _is_written(manifest, paths):
        summary = manifest.summary()
        write_json(paths.reports / "data.json", summary)
        _draw(manifest, summary["classes"], base_folder(root), paths.reports / PICTURES)
        manifest.write(paths.manifest)
    return manifest


def _is_written(manifest: Manifest, paths: Paths) -> bool:
    """Whether an earlier run has left this very manifest, written last, with its pictures."""
    with suppress(ArtifactError):
        drawn = any((paths.reports / PICTURES).glob("*.png"))
        return drawn and Manifest.read(paths.manifest) == manifest
    return False


def _draw(manifest: Manifest, classes: dict[str, dict[str, int]], base: Path, folder: Path) -> None:
    # Matplotlib takes half a second, which a run without news need not wait for.
    from rootstock.plots.data import plot_class_counts, plot_image_sizes
    from rootstock.plots.sheet import plot_contact_sheet

    rows = manifest.rows()
    plot_class_counts(classes, folder / "classes.png")
    plot_image_sizes(
        [row.width for row in rows], [row.height for row in rows], folder / "sizes.png"
    )
    samples: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: row.sha256):
        samples.setdefault(row.label, []).append(row.path)
    plot_contact_sheet(
        dict(sorted(samples.items())),
        folder / "contact_sheet.png",
        root=base,
        quarantined=len(manifest.quarantined),
    )
