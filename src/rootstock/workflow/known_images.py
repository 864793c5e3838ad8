"""Name the training images that a model stores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rootstock.data.manifest import ImageRow
from rootstock.features.loading import read_indexed
from rootstock.features.reader import FeatureReader
from rootstock.model.known_images import KnownImage, KnownImages, make_thumbnail
from rootstock.tasks.task import Task


def name_images(
    rows: Sequence[ImageRow], features: np.ndarray, reader: FeatureReader, task: Task, keep: str
) -> KnownImages | None:
    """Return the images of the reference, from their rows [N] and features [N,D].

    ``keep`` is `registry.reference`; the result is None if only features are stored.
    """
    if keep == "features":
        return None
    lengths = np.linalg.norm(features.astype(np.float32), axis=1)
    images = []
    for row in rows:
        thumbnail = ""
        if keep == "thumbnails":
            content = read_indexed(row, reader.root)
            thumbnail = make_thumbnail(reader.preprocess.decode(content).pixels)
        images.append(KnownImage(row.path, task.caption(row.target), row.sha256, thumbnail))
    return KnownImages(images, lengths)
