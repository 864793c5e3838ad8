"""Stage `index`: images in, Manifest and pictures out."""

from __future__ import annotations

import gc
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from heapq import nsmallest
from pathlib import Path
from typing import Any, cast

from rootstock.config.paths import Paths
from rootstock.config.schema import Config, DataConfig
from rootstock.data.apply_corrections import check_corrections
from rootstock.data.build_manifest import build_manifest
from rootstock.data.inspect import Inspected
from rootstock.data.label_corrections import (
    REMOVE,
    Correction,
    current,
    read_corrections_of,
)
from rootstock.data.layout import Layout, find_images
from rootstock.data.manifest import Manifest
from rootstock.data.notices import list_notices
from rootstock.data.splits import SPLITS
from rootstock.data.target_rules import TargetRules
from rootstock.errors import ArtifactError, DataError
from rootstock.plots.background import BackgroundPlots, background_plots
from rootstock.plots.data import plot_class_counts, plot_image_sizes
from rootstock.plots.sheet import MAX_COLUMNS, plot_contact_sheet
from rootstock.system.cpu import usable_cores
from rootstock.system.escape import escape_log
from rootstock.system.files import write_json
from rootstock.system.progress import say
from rootstock.tasks.recognise import find_task
from rootstock.tasks.task import Task
from rootstock.workflow.listed import read_limits, read_roles
from rootstock.workflow.start import check_place, check_start
from rootstock.workflow.task_settings import check_task

_log = logging.getLogger(__name__)
PICTURES = "plots/data"
MIN_DRAWN_ASIDE_IMAGES = 10_000
"""From this many images on, drawing in a separate process saves time."""


def index_and_warn(config: Config, paths: Paths) -> Manifest:
    """Index for a run of all stages: check everything that can be checked now, log warnings."""
    check_start(config, paths)
    manifest = index_images(config, paths)
    log_notices(manifest)
    return manifest


def log_notices(manifest: Manifest) -> None:
    """Log warnings about the images before work continues."""
    for notice in list_notices(manifest):
        _log.warning("warning: %s", escape_log(notice))


def index_images(config: Config, paths: Paths) -> Manifest:
    """Decode every image once; write the manifest, reports/data.json and three pictures."""
    found = find_task(config.task.name, paths.below(config.data.root), read_roles(config.data))
    check_task(config, found.task)
    with _no_garbage():
        return _index(config, paths, found.task, recognised=found.reason)


def list_images(config: Config, paths: Paths) -> Manifest:
    """Return the manifest of `index_images` with the current corrections.

    Nothing is written, except the record of inspected files.
    """
    root = paths.below(config.data.root)
    task = find_task(config.task.name, root, read_roles(config.data)).task
    layout = find_images(
        root, target=task, roles=read_roles(config.data), reading=config.data.layout
    )
    corrections = read_corrections_of(root)
    check_corrections(corrections, task)
    with _no_garbage():
        previous = _read_manifest(paths.manifest) or _recall_manifest(paths)
        return _build(config, paths, layout, task, corrections=corrections, previous=previous)


def index_labelled(config: Config, paths: Paths, task: Task) -> Manifest:
    """Index images for measuring a model of ``task``, whatever task the settings name.

    They need not be enough to learn from: one class, one image, or a test split without a training
    split is enough. Images without a given split are in the split `train`.
    """
    shares = {"val_fraction": 0.0, "test_fraction": 0.0}
    unsplit = {**shares, "duplicates": "off", "group": None, "time": None}
    data = config.data.model_copy(update=unsplit)
    with _no_garbage():
        return _index(config.model_copy(update={"data": data}), paths, task, learn=False)


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Disable the garbage collection of Python, which scans all objects again as they grow.

    The rows of an index all stay; for 100,000 rows the scan took an eighth of the stage's time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _index(
    config: Config, paths: Paths, task: Task, *, learn: bool = True, recognised: str = ""
) -> Manifest:
    data = config.data
    root = paths.below(data.root)
    if data.time and root.is_dir():
        raise DataError(
            f"data.time is {data.time!r}, but {root} is a folder",
            hint="set data.root to a table with this column, or data.time to null",
        )
    layout = find_images(
        root, target=task, roles=read_roles(data), reading=data.layout, need_train=learn
    )
    check_place(root, paths.root)
    corrections = read_corrections_of(root)
    check_corrections(corrections, task)
    folder = paths.reports / PICTURES
    workers = _count_workers(data)
    # If there is a manifest already, there may be nothing to draw.
    in_process = (
        len(layout.entries) >= MIN_DRAWN_ASIDE_IMAGES
        and workers > 1
        and not paths.manifest.exists()
    )
    written = _read_manifest(paths.manifest)
    with background_plots(in_process=in_process) as plots:
        manifest = _build(
            config,
            paths,
            layout,
            task if learn else cast(TargetRules, _MeasureRules(task)),
            recognised=recognised,
            on_inspected=partial(_begin_with_images, plots, layout, task, folder, corrections),
            previous=written or _recall_manifest(paths) if learn else None,
            corrections=corrections,
        )
        if learn:
            _check_every_split(manifest, root)
        # An earlier run may have left this same manifest, written last, with its pictures.
        if manifest != written or not any(folder.glob("*.png")):
            summary = manifest.summary()
            plots.draw(plot_class_counts, summary["classes"], folder / "classes.png")
            write_json(paths.reports / "data.json", summary)
            plots.finish()
            manifest.write(paths.manifest)
    splits = ", ".join(
        f"{len(manifest.rows(split)):,} {split}" for split in ("train", "val", "test")
    )
    out = f"; {n} quarantined" if (n := len(manifest.quarantined)) else ""
    out += f"; {n} corrected or removed" if (n := len(manifest.originals)) else ""
    say(f"index: {len(manifest.rows()):,} usable images ({splits}){out}")
    return manifest


def _build(
    config: Config,
    paths: Paths,
    layout: Layout,
    rules: TargetRules,
    *,
    corrections: Sequence[Correction],
    previous: Manifest | None,
    recognised: str = "",
    on_inspected: Callable[[list[Inspected]], None] | None = None,
) -> Manifest:
    """Return the manifest of a layout with the settings."""
    data = config.data
    return build_manifest(
        layout,
        rules=rules,
        limits=read_limits(config),
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        near_duplicate_bits=data.near_duplicate_bits,
        duplicates=data.duplicates,
        group=data.group,
        time=data.time,
        recognised=recognised,
        min_per_class=data.min_per_class,
        seed=config.seed,
        workers=_count_workers(data),
        cache_file=paths.seen,
        on_inspected=on_inspected,
        previous=previous,
        corrections=corrections,
    )


def _count_workers(data: DataConfig) -> int:
    return usable_cores() if data.workers == "auto" else data.workers


def _check_every_split(manifest: Manifest, root: Path) -> None:
    for split in SPLITS:
        if not manifest.rows(split):
            raise DataError(
                f"no image of {root} is in the split `{split}`: copies, and images that "
                "`data.group` joins, stay in one split",
                hint="add images that are not copies of each other, at least three in one class; "
                "or define the split; or raise data.val_fraction or data.test_fraction if it is 0",
            )


class _MeasureRules:
    """The rules of a task, for images that need not be enough to learn from."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def check(self, root: Path, texts: Sequence[str], listed: Sequence[str], _: int) -> None:
        """Refuse a set without a usable image."""
        if not texts:
            raise DataError(f"none of the {len(listed)} files in {root} is a usable image")

    def check_splits(self, *_: object) -> list[str]:
        """Accept any splits."""
        return []


def _recall_manifest(paths: Paths) -> Manifest | None:
    """Return the manifest of the last index; in a DVC experiment, that of the project."""
    home = Paths(paths.home)
    for path in (paths.last_manifest, home.manifest, home.last_manifest):
        if manifest := _read_manifest(path):
            return manifest
    return None


def _read_manifest(path: Path) -> Manifest | None:
    with suppress(ArtifactError):
        return Manifest.read(path)
    return None


def _begin_with_images(
    plots: BackgroundPlots,
    layout: Layout,
    task: Task,
    folder: Path,
    corrections: Sequence[Correction],
    inspected: Sequence[Inspected],
) -> None:
    """Draw the two pictures that need no splits."""
    sizes = [(image.width, image.height) for image in inspected if not image.reason]
    if not sizes:
        return
    plots.draw(plot_image_sizes, *zip(*sizes, strict=True), folder / "sizes.png")
    pairs = zip(layout.entries, inspected, strict=True)
    usable = [(entry, image.sha256) for entry, image in pairs if not image.reason]
    in_force = {sha256: row.new for sha256, row in current(corrections).items()}
    usable = [pair for pair in usable if in_force.get(pair[1]) != REMOVE]
    strata = task.strata([in_force.get(sha256, entry.target) for entry, sha256 in usable])
    by_stratum: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for stratum, (entry, sha256) in zip(strata, usable, strict=True):
        by_stratum[stratum].append((sha256, entry.path))
    plots.draw(
        plot_contact_sheet,
        {
            name: [path for _, path in nsmallest(MAX_COLUMNS, pairs)]
            for name, pairs in by_stratum.items()
        },
        folder / "contact_sheet.png",
        root=layout.base,
        quarantined=len(inspected) - len(sizes),
    )
