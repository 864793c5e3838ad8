"""Open an ONNX file with ONNX Runtime, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rootstock.errors import BundleError

_PRODUCT = (
    b'\x08\x08:b\n\x18\n\x01A\n\x01B\x12\x01Y"\rMatMulInteger\x12\x01gZ\x15\n\x01A\x12\x10\n\x0e\x08'
    b"\x02\x12\n\n\x03\x12\x01M\n\x03\x12\x01KZ\x15\n\x01B\x12\x10\n\x0e\x08\x03\x12\n\n\x03\x12\x01K\n"
    b"\x03\x12\x01Nb\x15\n\x01Y\x12\x10\n\x0e\x08\x06\x12\n\n\x03\x12\x01M\n\x03\x12\x01NB\x04\n\x00\x10\r"
)
"""An ONNX file with one node, MatMulInteger of A uint8[M,K] and B int8[K,N]: to write it, a service
would need the package onnx."""


def onnx_session(path: Path, *, threads: int | None = None) -> Any:
    """Open an ONNX Runtime CPU session; ``threads`` None: every core.

    Raises:
        BundleError: ONNX Runtime cannot load the file.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    try:
        return _open(str(path), threads)
    except (states.Fail, states.InvalidGraph, states.InvalidProtobuf) as error:
        raise BundleError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {error}",
            hint="download or train the model again",
        ) from error


def product_session() -> Any:
    """Open a session that multiplies A uint8[M,K] and B int8[K,N] to int32[M,N]."""
    return _open(_PRODUCT, None)


def _open(model: str | bytes, threads: int | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads would take cores from the threads that decode images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        model, sess_options=options, providers=["CPUExecutionProvider"]
    )
