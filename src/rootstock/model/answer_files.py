"""Answer many files: each core decodes and answers some images at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rootstock.data.read import read_file
from rootstock.errors import ImageError
from rootstock.model.engine import PrecisionChoice
from rootstock.model.predictor import DEFAULT_OPTIONS, Predictor, Prepared
from rootstock.runtimes.engines import installed_engines
from rootstock.system.threads import spread
from rootstock.tasks import answer_type
from rootstock.tasks.answer import Answer, AnswerError
from rootstock.tasks.task import AnswerOptions

PYTORCH_IMAGES = 32
"""Images that PyTorch takes at once, on a GPU or with all cores."""
CORE_IMAGES = 4
"""Images that a core decodes and answers at once: a processor's forward pass gains nothing from
larger batches, and its caches lose."""
Found = tuple[Answer, np.ndarray | None]


def open_for_files(directory: Path, precision: PrecisionChoice = "float32") -> Predictor:
    """Open a model as `answer_files` needs it: each core runs its own images."""
    threads = None if installed_engines()[0] == "torch" else 1
    return Predictor(directory, precision=precision, threads=threads)


def answer_files(
    predictor: Predictor, paths: Sequence[Path], options: AnswerOptions = DEFAULT_OPTIONS
) -> Iterator[Found]:
    """Yield the answer for each file, in order, and its features float32[D].

    The answer for an unusable file has an ``error``, and no features.
    """

    def prepare(path: Path) -> Prepared | AnswerError:
        try:
            return predictor.prepare_sized(read_file(path, predictor.limits).content)
        except ImageError as error:
            return AnswerError(error.message, error.reason)

    def answer(names: Sequence[Path]) -> list[Found]:
        prepared = [prepare(name) for name in names]
        return list(_answer_prepared(predictor, names, prepared, options))

    if predictor.engine != "torch":
        groups = [paths[n : n + CORE_IMAGES] for n in range(0, len(paths), CORE_IMAGES)]
        for found in spread(answer, groups):
            yield from found
        return
    prepared = spread(prepare, paths)
    for start in range(0, len(paths), PYTORCH_IMAGES):
        names = paths[start : start + PYTORCH_IMAGES]
        yield from _answer_prepared(predictor, names, [next(prepared) for _ in names], options)


def _answer_prepared(
    predictor: Predictor,
    names: Sequence[Path],
    batch: Sequence[Prepared | AnswerError],
    options: AnswerOptions,
) -> Iterator[Found]:
    kind = answer_type(predictor.task.name)
    usable = [one.views for one in batch if isinstance(one, Prepared)]
    rows = iter(zip(*predictor.infer(usable), strict=True))
    for name, image in zip(names, batch, strict=True):
        if isinstance(image, AnswerError):
            yield kind(filename=str(name), error=image), None
            continue
        decision, features = next(rows)
        answer = predictor.answer(decision, features, options._replace(size=image.size))
        yield replace(answer, filename=str(name)), features
