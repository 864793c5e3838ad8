"""Tensors of the Open Inference Protocol, in JSON or as bytes after it.

The binary tensor extension appends the tensors to the JSON in order. The header
Inference-Header-Content-Length is the length of the JSON. Numbers are little-endian; each element
of a BYTES tensor follows its length in four bytes.
https://github.com/triton-inference-server/server/tree/main/docs/protocol (extensions
`binary_tensor_data` and `classification`).
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Request
from fastapi.responses import Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rootstock.model.predictor import Predictor
from rootstock.service.http.problems import Problem
from rootstock.service.http.uploads import EXAMPLE, decode_base64, is_base64
from rootstock.service.inference.service import Caller
from rootstock.tasks.answer import Answer

MAX_NUMBERS = 2_000_000
"""Elements of a JSON body: 13 tensors of 224 pixels. For more, send bytes or files."""
MAX_OUTPUTS = 16
"""Maximum outputs that a request may name."""
MAX_VALUE = 1e6
"""Limit for tensor values: prepared pixels are below 10, and networks overflow far above it."""
LENGTH_HEADER = "Inference-Header-Content-Length"
_DTYPES = {"FP32": "<f4", "FP64": "<f8", "INT32": "<i4", "INT64": "<i8", "BOOL": "?"}


def _require_unicode(text: str) -> str:
    """Reject half a surrogate pair: JSON can carry one, but no answer can hold it."""
    text.encode()
    return text


_REQUEST: dict[str, Any] = {
    "id": "7",
    "inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "data": [EXAMPLE]}],
}


class InputParameters(BaseModel):
    """Parameters of an input; unknown ones are ignored."""

    binary_data_size: int | None = Field(
        None, ge=0, description="Bytes of this tensor after the JSON, instead of `data`."
    )


class InferInput(BaseModel):
    """Image files, or prepared images."""

    name: Literal["images", "tensor"]
    datatype: Literal["BYTES", "FP32"]
    shape: list[int] = Field(min_length=1, max_length=4, examples=[[1]])
    parameters: InputParameters | None = None
    data: list[Any] | None = Field(None, min_length=1, examples=[[EXAMPLE]])


class OutputParameters(BaseModel):
    """Parameters of a requested output; unknown ones are ignored."""

    binary_data: bool | None = Field(None, description="Send this tensor as bytes after the JSON.")
    classification: int = Field(
        0, ge=0, le=2**31, description="Return this many `value:index:label` instead of the tensor."
    )


class OutputName(BaseModel):
    """The name of a requested output."""

    name: str = Field(examples=["label"])
    parameters: OutputParameters = OutputParameters()


class RequestParameters(BaseModel):
    """Parameters of a request; unknown ones are ignored."""

    binary_data_output: bool = Field(False, description="Send all tensors as bytes.")


class InferRequest(BaseModel):
    """The body of an inference request."""

    model_config = ConfigDict(json_schema_extra={"examples": [_REQUEST]})

    id: Annotated[str, AfterValidator(_require_unicode)] | None = Field(None, max_length=256)
    parameters: RequestParameters | None = None
    inputs: list[InferInput] = Field(fail_fast=True, min_length=1, max_length=1)
    outputs: list[OutputName] | None = Field(fail_fast=True, default=None, max_length=MAX_OUTPUTS)


class InferOutput(BaseModel):
    """One output tensor, row by row."""

    name: str = Field(examples=["label"])
    datatype: str = Field(examples=["BYTES"])
    shape: list[int] = Field(examples=[[1]])
    data: list[Any] = Field(examples=[["tulip"]])


class InferAnswer(BaseModel):
    """The answer to an inference request."""

    model_name: str = Field(examples=["rootstock"])
    model_version: str = Field(examples=["3"])
    id: str | None = None
    outputs: list[InferOutput]


def split_body(request: Request, body: bytes) -> bytes:
    """Return a body's JSON, and keep the bytes after it for `read_images` and `read_tensor`.

    Raises:
        Problem: The header has no length within the body.
    """
    header = request.headers.get(LENGTH_HEADER)
    if header is None:
        return body
    length = int(header) if header.isascii() and header.isdigit() and len(header) < 12 else -1
    if not 0 < length <= len(body):
        raise Problem(
            "invalid-request", f"{LENGTH_HEADER} must be a length of at most {len(body)} bytes."
        )
    request.state.binary = body[length:]
    return body[:length]


def read_images(request: Caller, tensor: InferInput, max_images: int) -> list[bytes]:
    """Return the image files of a BYTES tensor [N] or [N, 1], base64 or (as bytes) not.

    Raises:
        Problem: The shape does not fit, there are too many images, or one is not base64.
    """
    binary = _read_binary(request, tensor)
    if binary is None:
        data = tensor.data or []
        # Nested like the shape, or flat.
        texts = [one[0] if isinstance(one, list) and len(one) == 1 else one for one in data]
        _require_fit(tensor, len(texts), max_images)
        if not all(isinstance(text, str) for text in texts):
            raise Problem("invalid-request", "`images` in JSON must be base64 strings.")
        return decode_base64(texts, "images", max_images)
    contents: list[bytes] = []
    while binary:
        length = int.from_bytes(binary[:4], "little")
        if len(binary) < 4 + length or len(contents) > max_images:
            break
        contents.append(binary[4 : 4 + length])
        binary = binary[4 + length :]
    _require_fit(tensor, len(contents) if not binary else -1, max_images)
    return [_undo_base64(content) for content in contents]


def read_tensor(
    request: Caller, predictor: Predictor, tensor: InferInput, max_images: int
) -> np.ndarray:
    """Return the network inputs float32[N,3,S,S] of an FP32 tensor.

    Raises:
        Problem: The data does not fit the shape, or has numbers beyond `MAX_VALUE`.
    """
    size = predictor.bundle.preprocess.input_size
    binary = _read_binary(request, tensor)
    if binary is None:
        max_images = min(max_images, MAX_NUMBERS // (3 * size * size))
    if tensor.shape[1:] != [3, size, size] or not 1 <= tensor.shape[0] <= max_images:
        raise Problem(
            "invalid-request",
            f"shape {tensor.shape} is not [N, 3, {size}, {size}] with N from 1 to {max_images}.",
        )
    try:
        values = (
            np.asarray(tensor.data, np.float64) if binary is None else np.frombuffer(binary, "<f4")
        ).reshape(tensor.shape)
    except (ValueError, TypeError, OverflowError):
        raise Problem("invalid-request", f"The data does not fit shape {tensor.shape}.") from None
    if not (np.abs(values) <= MAX_VALUE).all():  # NaN fails the comparison too
        raise Problem("invalid-request", f"The data has numbers beyond {MAX_VALUE:g}.")
    return values.astype(np.float32)


def check_outputs(predictor: Predictor, outputs: Sequence[OutputName]) -> None:
    """Check the names of the requested outputs before doing any work.

    Raises:
        Problem: The model has no such output, or the output cannot be ranked.
    """
    known = [spec.name for spec in predictor.task.tensor_specs(predictor.names)]
    ranked = predictor.task.rankings([], predictor.names, 1)
    for output in outputs:
        if output.name not in known:
            raise Problem(
                "invalid-request", f"No output {output.name!r}; the outputs are {', '.join(known)}."
            )
        if output.parameters.classification and output.name not in ranked:
            raise Problem("invalid-request", f"The output {output.name!r} does not list classes.")


def write_answer(
    predictor: Predictor, body: InferRequest, answers: Sequence[Answer]
) -> dict[str, Any] | Response:
    """Return the answer: JSON, or JSON and bytes if the request asks for them."""
    by_default = body.parameters is not None and body.parameters.binary_data_output
    asked = {output.name: output.parameters.binary_data for output in body.outputs or []}
    outputs, parts = make_outputs(predictor, body, answers), []
    for tensor in outputs:
        is_binary = asked.get(tensor["name"])
        if is_binary or (is_binary is None and by_default):
            parts.append(to_bytes(tensor["datatype"], tensor.pop("data")))
            tensor["parameters"] = {"binary_data_size": len(parts[-1])}
    info = predictor.info
    answer = {"model_name": info["name"], "model_version": info["version"], "id": body.id}
    answer |= {"outputs": outputs}
    return _with_bytes(answer, parts) if parts else answer


def make_outputs(
    predictor: Predictor, body: InferRequest, answers: Sequence[Answer]
) -> list[dict[str, Any]]:
    """Return the tensors that a request asks for: name, datatype, shape and data row by row."""
    data = predictor.task.tensors(answers, predictor.names)
    asked = {output.name: output.parameters for output in body.outputs or []}
    outputs = []
    for spec in predictor.task.tensor_specs(predictor.names):
        if asked and spec.name not in asked:
            continue
        wanted = asked.get(spec.name, OutputParameters())
        tensor: dict[str, Any] = {
            "name": spec.name,
            "datatype": spec.datatype,
            "shape": spec.shape(len(answers)),
            "data": data[spec.name],
        }
        if wanted.classification:
            count = min(wanted.classification, len(predictor.names))
            ranked = predictor.task.rankings(answers, predictor.names, count)[spec.name]
            tensor |= {"datatype": "BYTES", "shape": [len(answers), count]}
            tensor["data"] = [text for texts in ranked for text in texts]
        outputs.append(tensor)
    return outputs


def _with_bytes(answer: Mapping[str, Any], parts: Sequence[bytes]) -> Response:
    known = {name: value for name, value in answer.items() if value is not None}
    head = json.dumps(known, separators=(",", ":")).encode()
    return Response(
        b"".join([head, *parts]),
        media_type="application/octet-stream",
        headers={LENGTH_HEADER: str(len(head))},
    )


def to_bytes(datatype: str, values: Sequence[Any]) -> bytes:
    """Return a tensor's values as the binary extension has them."""
    if datatype == "BYTES":
        parts = [value if isinstance(value, bytes) else str(value).encode() for value in values]
        return b"".join(struct.pack("<I", len(part)) + part for part in parts)
    return np.asarray(values, _DTYPES[datatype]).tobytes()


def _read_binary(request: Caller, tensor: InferInput) -> bytes | None:
    """Return the bytes of the only input, or None if its data is in the JSON."""
    size = tensor.parameters.binary_data_size if tensor.parameters else None
    binary: bytes | None = getattr(request.state, "binary", None) or None
    if (size, binary) == (None, None) and tensor.data is not None:
        return None
    if tensor.data is not None or size is None or size != len(binary or b""):
        raise Problem(
            "invalid-request",
            f"{tensor.name}: send either `data`, or the parameter `binary_data_size` with that "
            f"many bytes after the JSON, whose length is in {LENGTH_HEADER}.",
        )
    return binary or b""


def _undo_base64(content: bytes) -> bytes:
    """Return the image file in these bytes, which may be base64."""
    if is_base64(content):
        with contextlib.suppress(Problem):
            return decode_base64([content.decode("latin-1")], "images", 1)[0]
    return content


def _require_fit(tensor: InferInput, elements: int, max_images: int) -> None:
    if tensor.shape not in ([elements], [elements, 1]):
        count = "the" if elements < 0 else str(elements)
        raise Problem("invalid-request", f"shape {tensor.shape} does not fit {count} elements.")
    if elements > max_images:
        raise Problem("invalid-request", f"{elements} images; at most {max_images}.")
