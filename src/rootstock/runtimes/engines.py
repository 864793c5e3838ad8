"""The installed engines that run a network, and a way to compute features with each.

Needs no torch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from rootstock.runtimes.onnx import onnx_session
from rootstock.runtimes.openvino import make_caller, openvino_model

Engine = Literal["onnx", "openvino", "torch"]
Precision = Literal["float32", "int8"]
PACKAGES: dict[Engine, str] = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}
EXTRAS: dict[Engine, str] = {"onnx": "serve", "openvino": "openvino", "torch": "gpu"}
"""The extra of rootstock-vision that installs the package."""


def installed_engines() -> list[Engine]:
    """Return the engines whose packages are installed, the preferred one first."""
    return [engine for engine in get_args(Engine) if importlib.util.find_spec(PACKAGES[engine])]


def open_features(engine: Engine, path: Path, *, cores: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from images float32[N,3,S,S] to the output ``features`` float32[N,C].

    A call uses one core; make up to ``cores`` calls at the same time.
    Raises:
        BundleError: the engine cannot load the file.
    """
    if engine == "openvino":
        call = make_caller(openvino_model(path, threads=cores, passes=cores), ["features"])
        return lambda images: call(images)[0]
    session = onnx_session(path, threads=1)
    return lambda images: session.run(["features"], {"images": images})[0]
