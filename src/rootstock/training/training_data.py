"""The data of a training: images of two splits, as pixels and as features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rootstock.data.manifest import ImageRow
from rootstock.data.preprocess import Preprocess
from rootstock.data.views import Views, cut_views
from rootstock.features.loading import read_pixels
from rootstock.features.reader import FeatureReader
from rootstock.system.files import write_atomic
from rootstock.tasks.dataset import Dataset
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import Task
from rootstock.training.images import ImageSet, prepare_images, training_preprocess


@dataclass(frozen=True)
class TrainingData:
    """Images, and the files in ``directory`` that all trials share."""

    dataset: Dataset
    reader: FeatureReader
    batch_size: int
    directory: Path

    @property
    def task(self) -> Task:
        """The task of the targets."""
        return self.dataset.task

    def rows(self, split: str) -> list[ImageRow]:
        """Return the rows of a split."""
        return self.dataset.manifest.rows(split)

    def targets(self, split: str) -> Targets:
        """Return the targets of a split."""
        return self.dataset.targets(split)

    def training_images(self) -> ImageSet:
        """Return the training images, with a margin for the augmentation."""
        return self._images("train", training_preprocess(self.reader.preprocess))

    def validation_images(self) -> ImageSet:
        """Return the validation images, prepared as in the service."""
        return self._images("val", self.reader.preprocess)

    def _images(self, split: str, preprocess: Preprocess) -> ImageSet:
        return prepare_images(
            self.rows(split),
            self.targets(split),
            root=self.reader.root,
            preprocess=preprocess,
            cache=self.directory / f"pixels-{split}.npy",
        )

    def reference_images(self, numbers: np.ndarray) -> ImageSet:
        """Return the training images int[M] of these numbers, prepared as in the service."""
        rows = self.rows("train")
        sample = [rows[number] for number in numbers]
        targets = self.dataset.targets_of(sample)
        return ImageSet(tuple(sample), targets, self.reader.root, self.reader.preprocess, None)

    def sample_pixels(self, count: int) -> np.ndarray:
        """Return ``count`` training images uint8[n,P,P,3], evenly drawn, with their margin."""
        rows = self.rows("train")
        sample = rows[:: max(1, len(rows) // count)][:count]
        targets, preprocess = self.dataset.targets_of(sample), self.reader.preprocess
        images = ImageSet(
            tuple(sample), targets, self.reader.root, training_preprocess(preprocess), None
        )
        return images.pixels(range(len(sample)))

    def view_inputs(self, row: ImageRow, views: Views) -> np.ndarray:
        """Return the views float32[V,3,S,S] of an image, prepared."""
        preprocess = self.reader.preprocess
        pixels = read_pixels(
            row,
            self.reader.root,
            short_side=preprocess.decoded_side,
            rendering=preprocess.rendering,
        )
        return preprocess.normalise(cut_views(preprocess, pixels, views))

    def feature_file(self, split: str, tap: str) -> Path:
        """Return a .npy file of the features float16[N,C] at ``tap``, written now if needed."""
        path = self.directory / f"features-{split}-{tap}.npy"
        if path.exists():
            return path
        rows = self.rows(split)
        # The store is a cache: it may have been cleared or damaged since the stage `features`.
        self.reader.extract(rows, [tap], batch_size=self.batch_size)
        with write_atomic(path) as temporary, temporary.open("wb") as file:
            self.reader.save(file, rows, tap)
        return path

    def features(self, split: str, tap: str) -> np.ndarray:
        """Return the features float16[N,C] of a split at ``tap``, mapped into memory."""
        return np.load(self.feature_file(split, tap), mmap_mode="r")
