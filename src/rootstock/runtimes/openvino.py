"""Open an ONNX file with OpenVINO, without torch and without telemetry."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from rootstock.errors import BundleError


def import_openvino() -> Any:
    """Return the package; it must be installed."""
    # Importing OpenVINO sends a report to its maker, unless this package is missing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def openvino_model(path: Path, *, threads: int | None = None, passes: int = 1) -> Any:
    """Compile for the processor; ``passes`` at once share ``threads`` (None: every core).

    Raises:
        BundleError: OpenVINO cannot load the file.
    """
    openvino = import_openvino()
    # float32, because the bf16 that OpenVINO would choose changes logits by hundredths.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        settings |= {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": passes}
    if passes > 1:
        settings["ENABLE_CPU_PINNING"] = False  # the cores decode images in between
    try:
        return openvino.Core().compile_model(str(path), "CPU", settings)
    except RuntimeError as error:
        raise BundleError(
            f"OpenVINO {openvino.__version__} cannot load {path}: {str(error).splitlines()[0]}",
            hint="download or train the model again",
        ) from error


def make_caller(model: Any, outputs: Sequence[str]) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Return a function from images float32[N,3,S,S] to copies of the named outputs.

    Any number of threads may call it.
    """
    # Two threads must not share a request, and threads come and go.
    idle: SimpleQueue[Any] = SimpleQueue()

    def call(images: np.ndarray) -> list[np.ndarray]:
        try:
            request = idle.get_nowait()
        except Empty:
            request = model.create_infer_request()
        results = request.infer({"images": images})
        arrays = [results[name].copy() for name in outputs]
        idle.put(request)
        return arrays

    return call
