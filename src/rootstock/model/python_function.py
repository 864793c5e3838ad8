"""A model directory as a Python function in MLflow's form.

A copy of this module, and of all that it imports at module level, is stored with each registered
version (`integrations/mlflow/model_files.py`). It runs in environments without Rootstock: it needs
numpy, Pillow, ONNX Runtime, and pandas and pydantic, which come with MLflow.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rootstock.model.predictor import Predictor

if TYPE_CHECKING:
    import pandas

IMAGE_COLUMN, ERROR_COLUMN, DETAILS = "image", "error", "details"


class PythonFunction:
    """A model that maps a table of encoded images to a table of answers.

    Raises:
        BundleError: the model directory is damaged, or fails its golden images.
    """

    def __init__(self, directory: Path) -> None:
        self.predictor = Predictor(directory, engine="onnx")

    def predict(
        self, model_input: Any, params: Mapping[str, Any] | None = None
    ) -> np.ndarray | pandas.DataFrame:
        """Return the decision on each image, such as its class; None for an unusable image.

        ``model_input`` is a table whose column `image` (or only column) contains the bytes of image
        files, raw or as base64 text, or a sequence of these. With the parameter `details` the
        result is a table: all columns of each answer, and `error` if there is none.
        """
        answers = self.predictor.predict([_read(one) for one in _column(model_input)], top_k=1)
        if (params or {}).get(DETAILS):
            import pandas

            rows = [
                dict.fromkeys(answer.columns()) | {ERROR_COLUMN: str(answer.error)}
                if answer.error
                else answer.columns() | {ERROR_COLUMN: None}
                for answer in answers
            ]
            return pandas.DataFrame(
                rows,
                index=model_input.index if isinstance(model_input, pandas.DataFrame) else None,
                dtype=object,
            )
        return np.array(
            [None if answer.error else next(iter(answer.columns().values())) for answer in answers],
            dtype=object,
        )


def _load_pyfunc(path: str) -> PythonFunction:
    """Return the model in the folder ``path``; MLflow looks for this name."""
    return PythonFunction(Path(path))


def _column(model_input: Any) -> list[Any]:
    columns = getattr(model_input, "columns", None)
    if columns is not None:
        name = IMAGE_COLUMN if IMAGE_COLUMN in columns else columns[0]
        return list(model_input[name])
    return [model_input] if isinstance(model_input, bytes | str) else list(model_input)


def _read(value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return base64.b64decode("".join(value.split()), validate=True)
        except ValueError:
            return value.encode()  # later refused like any content that is not an image
    return bytes(value)
