"""Stage `features`: compute the bottleneck features that the plan needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rootstock.backbones.card import pool_tap
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.data.manifest import ImageRow
from rootstock.data.rendering import Rendering
from rootstock.features.reader import ExtractionReport, FeatureReader
from rootstock.features.store.compaction import compact
from rootstock.features.store.store import FeatureStore
from rootstock.plan.transfer_plan import TransferPlan
from rootstock.ports.spread import InProcess, Spreader
from rootstock.system.progress import Progress, say
from rootstock.tasks import get_task
from rootstock.workflow.calibration import feature_calibration
from rootstock.workflow.planned_backbone import load_planned_backbone
from rootstock.workflow.project import Project

COMPACT_PARTS = 32
"""Segments are merged between parts: each part adds a few, and every later part opens all."""
SPLITS = ("train", "val")
PART_IMAGES = 2048
"""Images per piece of work: seconds to a minute, which is lost in a crash."""


@dataclass(frozen=True)
class PartJob:
    """Extracts a part of the images. It can be pickled, to run where the files are visible."""

    plan: TransferPlan
    task: str
    root: Path
    store: Path
    device: str
    batch_size: int
    n_images: int
    rendering: Rendering
    calibration: tuple[ImageRow, ...] = ()

    @cached_property
    def reader(self) -> FeatureReader:
        """The reader, which loads its backbone once per process."""
        backbone = load_planned_backbone(self.plan, device=self.device)
        preprocess = backbone.card.preprocess(
            self.plan.input_size, self.rendering, self.plan.geometry
        )
        store = FeatureStore(self.store)
        return FeatureReader(self.root, backbone, preprocess, store, calibration=self.calibration)

    @property
    def taps(self) -> list[str]:
        """Names of the taps that heads of the task read, at the depths of the plan."""
        depths = self.reader.backbone.tap_names
        taps = [get_task(self.task).read_tap(depth, depths) for depth in self.plan.taps]
        return [pool_tap(tap, self.plan.pooling) for tap in taps]

    def __getstate__(self) -> dict[str, object]:
        """Return the state without the network: another machine may have another device for it."""
        return {name: value for name, value in vars(self).items() if name != "reader"}

    def __call__(self, rows: Sequence[ImageRow]) -> ExtractionReport:
        """Compute the features of these rows that the store lacks."""
        return self.reader.extract(
            rows,
            self.taps,
            batch_size=self.batch_size,
            n_images=self.n_images,
            measure=True,
        )


def cache_features(
    config: Config, paths: Paths, *, spreader: Spreader | None = None
) -> ExtractionReport:
    """Compute the features that the store lacks; write artifacts/features.json."""
    project, plan = Project(config, paths), TransferPlan.read(paths.plan)
    rows = [row for split in SPLITS for row in project.manifest.rows(split)]
    # Copies of an image in two parts would be computed twice.
    unique = list({row.sha256: row for row in rows}.values())
    job = PartJob(
        plan,
        project.manifest.task,
        project.root,
        project.store,
        config.features.device,
        config.features.batch_size,
        n_images=len(unique),
        rendering=project.manifest.rendering,
        calibration=feature_calibration(config.features.precision, plan, project.manifest),
    )
    if config.features.precision == "int8" and plan.finetune:
        say("features: in float32, because the plan fine-tunes the network")
    space = job.reader.space
    parts = [unique[at : at + PART_IMAGES] for at in range(0, len(unique), PART_IMAGES)]
    with (
        (spreader or InProcess()).spread(job, parts) as reports,
        Progress("features in total", len(unique), "image") as progress,
    ):
        done = []
        for report in reports:
            done.append(report)
            progress.update(report.computed + report.reused)
            # Here, in one process: parts on many machines would merge the same small segments.
            if len(done) % COMPACT_PARTS == 0 or len(done) == len(parts):
                compact(space)
    job.reader.write_index(paths.features, rows, job.taps)
    total = ExtractionReport(
        sum(report.computed for report in done),
        sum(report.reused for report in done),
        sum(report.seconds for report in done),
    )
    engines = sorted({report.engine for report in done if report.engine})
    by = f" by {' and '.join(engines)}" if engines else ""
    say(f"features: {total.computed:,} computed{by}, {total.reused:,} already in the store")
    return total
