"""Part of the stage `assess`: review the data set with cached features, on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rootstock.assess.profile import DatasetProfile
from rootstock.backbones.load import LAST
from rootstock.config.choices import Strategy
from rootstock.data.manifest import ImageRow
from rootstock.features.reader import FeatureReader
from rootstock.plots.review import plot_feature_map, plot_learning_curve
from rootstock.plots.sheet import plot_captioned
from rootstock.review.borders import Borders
from rootstock.review.build import build_review
from rootstock.review.record import CurvePoint, DataReview
from rootstock.review.report import render_review
from rootstock.system.files import write_atomic
from rootstock.tasks.dataset import Dataset

FOLDER = "plots/review"
INDEXED = {
    "sheet": "plots/data/contact_sheet.png",
    "classes": "plots/data/classes.png",
    "sizes": "plots/data/sizes.png",
}
"""Pictures that the stage `index` draws."""
BORDER_IMAGES = 300
"""Images whose borders are examined, and the minimum per class."""
BORDER_IMAGES_PER_CLASS = 12


def review_data(
    dataset: Dataset,
    profile: DatasetProfile,
    reader: FeatureReader,
    *,
    rows: Sequence[ImageRow],
    borders: Borders,
    batch_size: int,
    target_accuracy: float | None,
    folds: int,
    seed: int,
    minutes: Mapping[Strategy, float],
    artifact: Path,
    reports: Path,
) -> DataReview:
    """Write the review as JSON to ``artifact``, and data.md with its pictures to ``reports``.

    ``rows`` are the images to review; ``minutes`` are the training times per strategy.
    """
    reader.extract(rows, [LAST], batch_size=batch_size)
    features = reader.read(rows, LAST).astype(np.float32)
    review = build_review(
        dataset,
        profile,
        rows=rows,
        features=features,
        borders=(borders.rows, borders.read(reader.root, reader.preprocess.rendering)),
        target_accuracy=target_accuracy,
        folds=folds,
        seed=seed,
    )
    review.write(artifact)
    pictures = _draw(review, rows, features, reports, reader.root)
    text = render_review(review, profile, pictures=pictures, minutes=minutes)
    with write_atomic(reports / "data.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return review


def _draw(
    review: DataReview,
    rows: Sequence[ImageRow],
    features: np.ndarray,
    reports: Path,
    root: Path,
) -> dict[str, str]:
    """Draw the pictures; return their paths, relative to the reports, by name."""
    pictures = {name: file for name, file in INDEXED.items() if (reports / file).exists()}
    pictures["map"] = f"{FOLDER}/map.png"
    suspects = {suspect.path for suspect in review.suspects}
    plot_feature_map(
        features,
        [row.stratum for row in rows],
        reports / pictures["map"],
        marked=[i for i, row in enumerate(rows) if row.path in suspects],
    )
    curve = review.feasibility
    if curve:
        pictures["curve"] = f"{FOLDER}/curve.png"
        plot_learning_curve(
            [_point(point) for point in curve.measured],
            [_point(point) for point in curve.extrapolated],
            reports / pictures["curve"],
            ceiling=curve.ceiling,
            targets=[target.accuracy for target in curve.targets],
            score_name=curve.score_name,
        )
    sheets = {
        "suspects": (
            [(s.path, s.label, f"→ {s.suggested} {s.confidence:.0%}") for s in review.suspects],
            ("Labels in doubt", f"{len(review.suspects)} in total, the clearest first"),
        ),
        "outliers": (
            [(o.path, o.label, f"{o.score:.0f} deviations") for o in review.outliers],
            (
                "Images unlike all others",
                f"{len(review.outliers)} in total, the most unusual first",
            ),
        ),
    }
    for name, (items, headlines) in sheets.items():
        if items:
            pictures[name] = f"{FOLDER}/{name}.png"
            plot_captioned(items, reports / pictures[name], root=root, headlines=headlines)
    return pictures


def _point(point: CurvePoint) -> tuple[int, float, float, float]:
    return point.n_images, point.accuracy, point.low, point.high
