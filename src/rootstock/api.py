"""The Python interface: train, load, predict, evaluate and serve."""

from __future__ import annotations

import io
import json
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rootstock.cli.common import open_model, own_params
from rootstock.cli.predict import list_images
from rootstock.cli.train import default_folder, run_connected
from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.data.read import read_file
from rootstock.errors import ConfigError, ImageError
from rootstock.model.predictor import Predictor
from rootstock.system.threads import spread
from rootstock.tasks import answer_type
from rootstock.tasks.answer import Answer, AnswerError

IMAGE_COLUMNS = ("path", "image")
"""Columns of a data frame that may hold the images; the first one present is used."""


def train(
    images: str | Path,
    out: str | Path | None = None,
    *,
    params: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Model:
    """Run all stages on a folder or table of labelled images, like `rootstock train`.

    Artifacts and reports are written to ``out``, by default `runs/NAME-OF-DATA`.
    ``settings`` maps keys of params.yaml to values, such as
    ``{"plan.strategy": "linear_probe"}``. ``params`` is the path of a params.yaml; by default
    the one in the current folder is used.
    Raises:
        RootstockError: the images, the settings or the machine do not allow it.
    """
    given = {"data.root": str(Path(images).absolute()), **(settings or {})}
    overrides = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    config = load_config(Path(params) if params else own_params(), overrides=overrides)
    paths = Paths(Path(out or default_folder(Path(images))).resolve())
    return load(run_connected(config, paths).directory)


def load(model: str | Path = "") -> Model:
    """Open a model from a directory or an address such as ``models:/rootstock@champion``.

    The default is the champion of the project in the current folder.
    Raises:
        BundleError: the model is damaged, or its answers differ from those after training.
        NoModelError: the registry has no such model.
    """
    return Model(str(model))


class Model:
    """A trained model. It can be pickled: a copy opens the model again from its address."""

    def __init__(self, model: str) -> None:
        self._address = model
        with ExitStack() as stack:
            self.directory = stack.enter_context(open_model(model))
            self.predictor = Predictor(self.directory)
            # A downloaded model is deleted together with the object.
            weakref.finalize(self, stack.pop_all().close)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Model, (self._address,)

    def __repr__(self) -> str:
        info = self.predictor.info
        return f"<Model {info['name']} {info['version']} ({info['task']})>"

    @cached_property
    def classes_(self) -> np.ndarray:
        """Names of the outputs, object[K], in the order of `predict_proba`."""
        return np.array(self.predictor.names, dtype=object)

    @property
    def card(self) -> str:
        """The model card as Markdown; empty if the model has none."""
        return self.predictor.bundle.model_card or ""

    def predict(
        self, images: Any, *, top_k: int = 5, coverage: float | None = None
    ) -> list[Answer]:
        """Return an answer for each image; the answer for an unusable image has an ``error``.

        ``images`` is one item or a sequence of items: paths of files or folders, bytes of image
        files, Pillow images, arrays uint8[H,W,3] or uint8[H,W]; or a data frame with a column
        `path` or `image`.
        Raises:
            TypeError: ``images`` is anything else.
        """
        contents = list(self._contents(images))
        usable = [one for one in contents if isinstance(one, bytes)]
        answers = iter(self.predictor.predict(usable, top_k=top_k, coverage=coverage))
        kind = answer_type(self.predictor.task.name)
        return [
            next(answers)
            if isinstance(one, bytes)
            else kind(error=AnswerError(one.message, one.reason))
            for one in contents
        ]

    def predict_proba(self, images: Any) -> np.ndarray:
        """Return probabilities float64[N,K] in the order of `classes_`.

        Raises:
            ConfigError: the answers of this task are not probabilities.
            ImageError: an image cannot be used.
        """
        if self.predictor.task.name not in ("single_label", "multi_label"):
            raise ConfigError(
                f"a model of the task {self.predictor.task.name} does not predict probabilities "
                "of classes",
                hint="use predict",
            )
        prepared = []
        for one in self._contents(images):
            if isinstance(one, ImageError):
                raise one
            prepared.append(self.predictor.prepare(one))
        return self.predictor.infer(prepared).decisions.astype(np.float64)

    def evaluate(self, images: str | Path, out: str | Path | None = None) -> dict[str, float]:
        """Return the metrics on labelled images; write reports to ``out`` if it is given."""
        from rootstock.cli.common import workspace
        from rootstock.workflow.evaluate import evaluate_folder

        root = json.dumps(str(Path(images).absolute()))
        config = load_config(own_params(), overrides=[f"data.root={root}"])
        with workspace(Path(out) if out else None) as paths:
            return evaluate_folder(config, paths, model=self.directory).metrics

    def serve(self, *, host: str = "127.0.0.1", port: int = 8000) -> int:
        """Serve the model over HTTP until the process ends; return the exit status."""
        from rootstock.service.serve import serve

        return serve(host=host, port=port, model=str(self.directory))

    def _contents(self, images: Any) -> Iterator[bytes | ImageError]:
        def read(path: Path) -> bytes | ImageError:
            try:
                return read_file(path, self.predictor.limits).content
            except ImageError as error:
                return error

        for one in _one_by_one(images):
            if isinstance(one, str | Path):
                yield from spread(read, list(list_images(Path(one))))
            else:
                yield _encode(one)


def _one_by_one(images: Any) -> Sequence[Any]:
    columns = getattr(images, "columns", None)
    if columns is not None:
        name = next((name for name in IMAGE_COLUMNS if name in columns), None)
        if name is None:
            raise TypeError(f"the data frame has no column {' or '.join(IMAGE_COLUMNS)}")
        return list(images[name])
    if isinstance(images, str | Path | bytes | bytearray | Image.Image):
        return [images]
    if isinstance(images, np.ndarray) and (images.ndim == 2 or images.shape[-1:] == (3,)):
        return [images] if images.ndim < 4 else list(images)
    return list(images)


def _encode(image: Any) -> bytes:
    """Return a lossless image file of these pixels as bytes."""
    if isinstance(image, bytes | bytearray):
        return bytes(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise TypeError(f"an array of pixels must be uint8, not {image.dtype}")
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise TypeError(
            f"{type(image).__name__} is not an image, a path or the bytes of an image file"
        )
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
