"""The project's model's opinion on an image: its answer, its heat map, and similar images."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rootstock.data.manifest import ImageRow
from rootstock.errors import BundleError
from rootstock.explain.heat_map import explain_images
from rootstock.explain.overlay import draw_overlay, encode_png
from rootstock.features.loading import read_indexed
from rootstock.model.predictor import Predictor
from rootstock.studio.project import Stamp, stamp_of
from rootstock.tasks.task import AnswerOptions

KEPT_OPINIONS = 200
PROPOSALS, NEIGHBOURS = 9, 6


@dataclass(frozen=True)
class Opinion:
    """The answer as JSON, the heat map as PNG and its subject, and the size in pixels."""

    answer: Mapping[str, Any]
    heat_map: bytes
    explained: str
    size: tuple[int, int]


class Opinions:
    """Opinions of the model in ``folder``, which is opened again after a new training run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._model: tuple[Stamp, Predictor] | None = None
        self._kept: OrderedDict[str, Opinion] = OrderedDict()

    @property
    def predictor(self) -> Predictor:
        """The model.

        Raises:
            BundleError: There is no model, or it cannot be used.
        """
        stamp = stamp_of(self._folder / "bundle.json")
        if not stamp:
            raise BundleError(
                f"no model in {self._folder}",
                hint="train one: dvc repro, or rootstock train",
            )
        if self._model is None or self._model[0] != stamp:
            self._kept.clear()
            self._model = (stamp, Predictor(self._folder, threads=1))
        return self._model[1]

    def open(self) -> Predictor:
        """Return the model, which several threads may use at once.

        Raises:
            BundleError: there is none, or it cannot be used.
        """
        with self._lock:
            return self.predictor

    def get(self, row: ImageRow, root: Path) -> Opinion:
        """Return the model's opinion on an image.

        Raises:
            DataError: The image has changed or vanished since it was indexed.
            BundleError: There is no usable model.
            ImageError: The model does not accept this image.
        """
        with self._lock:
            predictor = self.predictor
            if row.sha256 in self._kept:
                self._kept.move_to_end(row.sha256)
                return self._kept[row.sha256]
            opinion = _ask(predictor, read_indexed(row, root))
            self._kept[row.sha256] = opinion
            while len(self._kept) > KEPT_OPINIONS:
                self._kept.popitem(last=False)
            return opinion


def _ask(predictor: Predictor, content: bytes) -> Opinion:
    prepared = predictor.prepare_sized(content)
    (explained,) = explain_images(predictor, [prepared.views])
    options = AnswerOptions(PROPOSALS, neighbours=NEIGHBOURS, size=prepared.size)
    try:
        answer = predictor.answer(explained.decision, explained.features, options)
    except BundleError:  # the model does not list its training images
        options = options._replace(neighbours=0)
        answer = predictor.answer(explained.decision, explained.features, options)
    if answer.neighbours:
        answer = replace(
            answer, neighbours=tuple(replace(one, thumbnail=None) for one in answer.neighbours)
        )
    picture = encode_png(draw_overlay(explained.heat_map))
    return Opinion(answer.to_json(), picture, explained.heat_map.output, prepared.size)
