"""Part of stage `assess`: the data set reviewed through cached features, on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rootstock.assess.build import sample_rows
from rootstock.assess.profile import DatasetProfile
from rootstock.backbones.load import LAST, Backbone
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.data.layout import base_folder
from rootstock.data.manifest import ImageRow, Manifest
from rootstock.features.loading import read_pixels, spread
from rootstock.features.reader import FeatureReader
from rootstock.features.store.store import FeatureStore
from rootstock.plots.review import plot_feature_map, plot_learning_curve
from rootstock.plots.sheet import plot_captioned
from rootstock.review.build import build_review
from rootstock.review.record import CurvePoint, DataReview
from rootstock.review.report import render_review
from rootstock.review.shortcuts import border_facts
from rootstock.system.files import write_atomic
from rootstock.workflow.estimates import estimate_minutes

FOLDER = "plots/review"
BORDER_IMAGES = 300
"""Images decoded once more for their borders."""


def review_data(
    config: Config, paths: Paths, manifest: Manifest, profile: DatasetProfile, backbone: Backbone
) -> DataReview:
    """Write artifacts/review.json, reports/data.md and its pictures."""
    root = base_folder(paths.below(config.data.root))
    rows = sample_rows(manifest.rows(), config.assess.review_images)
    features = _features(config, paths, rows, root, backbone)
    border_rows = sample_rows(rows, BORDER_IMAGES)
    review = build_review(
        manifest,
        profile,
        rows=rows,
        features=features,
        borders=(border_rows, _borders(border_rows, root)),
        target_accuracy=config.assess.target_accuracy,
        folds=config.assess.probe_folds,
        seed=config.seed,
    )
    review.write(paths.review)
    pictures = _draw(review, rows, features, paths.reports, root)
    minutes = estimate_minutes(config, paths, profile, backbone)[1]
    text = render_review(review, profile, pictures=pictures, minutes=minutes)
    with write_atomic(paths.reports / "data.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return review


def _features(
    config: Config, paths: Paths, rows: Sequence[ImageRow], root: Path, backbone: Backbone
) -> np.ndarray:
    store = FeatureStore(paths.below(config.features.store))
    reader = FeatureReader(root, backbone, backbone.card.preprocess(), store)
    reader.extract(rows, [LAST], batch_size=config.features.batch_size)
    return reader.read(rows, LAST).astype(np.float32)


def _borders(rows: Sequence[ImageRow], root: Path) -> np.ndarray:
    return np.stack(list(spread(lambda row: border_facts(read_pixels(row, root)), rows)))


def _draw(
    review: DataReview,
    rows: Sequence[ImageRow],
    features: np.ndarray,
    reports: Path,
    root: Path,
) -> dict[str, str]:
    """Paths of the pictures relative to the reports, by name."""
    drawn = {"map": f"{FOLDER}/map.png"}
    doubted = {suspect.path for suspect in review.suspects}
    plot_feature_map(
        features,
        [row.label for row in rows],
        reports / drawn["map"],
        marked=[i for i, row in enumerate(rows) if row.path in doubted],
    )
    curve = review.feasibility
    if curve:
        drawn["curve"] = f"{FOLDER}/curve.png"
        plot_learning_curve(
            [_point(point) for point in curve.measured],
            [_point(point) for point in curve.extrapolated],
            reports / drawn["curve"],
            ceiling=curve.ceiling,
            targets=[target.accuracy for target in curve.targets],
        )
    sheets = {
        "suspects": (
            [(s.path, s.label, f"→ {s.suggested} {s.confidence:.0%}") for s in review.suspects],
            ("Labels in doubt", f"{len(review.suspects)} in all, the surest doubts first"),
        ),
        "outliers": (
            [(o.path, o.label, f"{o.score:.0f} deviations") for o in review.outliers],
            ("Images unlike all others", f"{len(review.outliers)} in all, the farthest first"),
        ),
    }
    for name, (items, headlines) in sheets.items():
        if items:
            drawn[name] = f"{FOLDER}/{name}.png"
            plot_captioned(items, reports / drawn[name], root=root, headlines=headlines)
    return drawn


def _point(point: CurvePoint) -> tuple[int, float, float, float]:
    return point.n_images, point.accuracy, point.low, point.high
