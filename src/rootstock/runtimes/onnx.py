"""Open an ONNX file by ONNX Runtime, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rootstock.errors import BundleError


def onnx_session(path: Path, *, threads: int | None = None) -> Any:
    """Open an ONNX Runtime CPU session; ``threads`` None: every core.

    Raises:
        BundleError: ONNX Runtime cannot load the file.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A spinning pool takes the cores from the threads that decode images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except (states.Fail, states.InvalidGraph, states.InvalidProtobuf) as error:
        raise BundleError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {error}",
            hint="download or train the model again",
        ) from error
