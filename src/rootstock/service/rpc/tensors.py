"""Requests and answers of gRPC as those of HTTP with binary tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from rootstock.model.predictor import Predictor
from rootstock.service.http.problems import Problem, validation_problem
from rootstock.service.http.v2_tensors import InferRequest, make_outputs, to_bytes
from rootstock.service.rpc.messages import MESSAGES
from rootstock.tasks.answer import Answer

_CONTENTS = {
    "BYTES": "bytes_contents",
    "BOOL": "bool_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
"""The field of `InferTensorContents` that holds values of a type."""


def read_request(message: Any) -> tuple[InferRequest, bytes]:
    """Return a ModelInferRequest as an HTTP request, and the bytes of its only input.

    Raises:
        Problem: A field has a value that is unknown to the protocol or this service.
    """
    inputs = [
        {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)}
        for one in message.inputs
    ]
    outputs = [
        {"name": one.name, "parameters": _read_parameters(one.parameters)}
        for one in message.outputs
    ]
    try:
        body = InferRequest.model_validate(
            {"id": message.id or None, "inputs": inputs, "outputs": outputs or None}
        )
    except ValidationError as error:
        raise validation_problem(error.errors()) from None
    binary = _read_contents(message)
    tensor = body.inputs[0].model_dump() | {"parameters": {"binary_data_size": len(binary)}}
    return InferRequest.model_validate(body.model_dump() | {"inputs": [tensor]}), binary


def write_response(
    predictor: Predictor, body: InferRequest, answers: Sequence[Answer], *, raw: bool
) -> Any:
    """Return the ModelInferResponse; ``raw``: its tensors are bytes, not lists."""
    response = MESSAGES["ModelInferResponse"](
        model_name=predictor.info["name"], model_version=predictor.info["version"], id=body.id or ""
    )
    for output in make_outputs(predictor, body, answers):
        data, datatype = output.pop("data"), output["datatype"]
        tensor = response.outputs.add(**output)
        if raw:
            response.raw_output_contents.append(to_bytes(datatype, data))
        elif datatype == "BYTES":
            tensor.contents.bytes_contents.extend(str(value).encode() for value in data)
        else:
            getattr(tensor.contents, _CONTENTS[datatype]).extend(data)
    return response


def _read_contents(message: Any) -> bytes:
    """Return the bytes of the only input, sent in either form."""
    tensor, parts = message.inputs[0], message.raw_input_contents
    name = _CONTENTS.get(tensor.datatype, "")
    if parts and (len(parts) > 1 or tensor.contents.ByteSize()):
        raise Problem(
            "invalid-request",
            f"{tensor.name}: send one tensor, in `contents` or in `raw_input_contents`.",
        )
    if parts:
        return bytes(parts[0])
    if any(listed.name != name for listed, _ in tensor.contents.ListFields()):
        raise Problem("invalid-request", f"{tensor.name}: {tensor.datatype} is sent in `{name}`.")
    return to_bytes(tensor.datatype, getattr(tensor.contents, name))


def _read_parameters(parameters: Any) -> dict[str, Any]:
    """Return the parameters of an output that this service knows."""
    known = {}
    for name, value in parameters.items():
        kind = value.WhichOneof("parameter_choice")
        if name == "classification" and kind:
            known[name] = getattr(value, kind)
    return known
