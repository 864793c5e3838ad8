"""Answer many files, with parallel decoding and batched inference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rootstock.data.read import read_file
from rootstock.errors import ImageError
from rootstock.model.predictor import DEFAULT_OPTIONS, Predictor, Prepared
from rootstock.system.threads import spread
from rootstock.tasks import answer_type
from rootstock.tasks.answer import Answer, AnswerError
from rootstock.tasks.task import AnswerOptions

BATCH_IMAGES = 32


def answer_files(
    predictor: Predictor, paths: Sequence[Path], options: AnswerOptions = DEFAULT_OPTIONS
) -> Iterator[tuple[Answer, np.ndarray | None]]:
    """Yield the answer for each file, in order, and its features float32[D].

    The answer for an unusable file has an ``error``, and no features.
    """

    def prepare(path: Path) -> Prepared | AnswerError:
        try:
            return predictor.prepare_sized(read_file(path, predictor.limits).content)
        except ImageError as error:
            return AnswerError(error.message, error.reason)

    kind, prepared = answer_type(predictor.task.name), spread(prepare, paths)
    for start in range(0, len(paths), BATCH_IMAGES):
        names = paths[start : start + BATCH_IMAGES]
        batch = [next(prepared) for _ in names]
        rows = iter(
            zip(
                *predictor.infer([one.views for one in batch if isinstance(one, Prepared)]),
                strict=True,
            )
        )
        for name, image in zip(names, batch, strict=True):
            if isinstance(image, AnswerError):
                yield kind(filename=str(name), error=image), None
                continue
            decision, features = next(rows)
            answer = predictor.answer(decision, features, options._replace(size=image.size))
            yield replace(answer, filename=str(name)), features
