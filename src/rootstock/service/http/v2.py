"""The Open Inference Protocol (REST, v2): metadata and inference; operation.py has its health.

One input: `images`, BYTES [N], each element an image file in base64; or `tensor`, FP32 [N,3,S,S],
prepared as /v1/model describes. The task defines the outputs, such as `label` BYTES [N] and
`probabilities` FP32 [N,K] in the order of the classes. A tensor has no room for the error of one
element, so one unusable image refuses the request; /v1/predict does not. Errors are problem details
with the member `error`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rootstock.model.predictor import Predictor
from rootstock.service.http.access import Router
from rootstock.service.http.answers import choose_model, classify_all
from rootstock.service.http.problems import Problem, document
from rootstock.service.http.uploads import EXAMPLE, bounded_route, decode_base64
from rootstock.service.inference.service import Service
from rootstock.tasks.answer import Answer
from rootstock.tasks.task import AnswerOptions

ALL_NAMES = AnswerOptions(top_k=sys.maxsize)
MAX_NUMBERS = 2_000_000
"""Elements of a body: 13 tensors of 224 pixels. Clients with more send the image files."""
MAX_NESTED = 20_000
"""Lists in a body; a tensor may be nested down to its rows."""
MAX_OUTPUTS = 16
"""Outputs that a request may name."""
MAX_VALUE = 1e6
"""Of a tensor; prepared pixels are below 10, and far above the limit networks overflow."""


def _require_unicode(text: str) -> str:
    """Refuse half a surrogate pair: JSON can send it, but no answer can hold it."""
    text.encode()
    return text


_REQUEST: dict[str, Any] = {
    "id": "7",
    "inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "data": [EXAMPLE]}],
}


class InferInput(BaseModel):
    """Image files in base64, or prepared images."""

    name: Literal["images", "tensor"]
    datatype: Literal["BYTES", "FP32"]
    shape: list[int] = Field(min_length=1, max_length=4, examples=[[1]])
    data: list[Any] = Field(min_length=1, examples=[[EXAMPLE]])


class OutputName(BaseModel):
    """The name of a requested output."""

    name: str = Field(examples=["label"])


class InferRequest(BaseModel):
    """The body of an inference request."""

    model_config = ConfigDict(json_schema_extra={"examples": [_REQUEST]})

    id: Annotated[str, AfterValidator(_require_unicode)] | None = Field(None, max_length=256)
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


def make_v2_router(service: Service) -> Router:
    """Make the routes below /v2, except for its health checks."""
    router = Router(
        "predict",
        prefix="/v2",
        tags=["open inference protocol"],
        route_class=bounded_route(MAX_NUMBERS, nested=MAX_NESTED),
    )
    holder = service.holder
    missing = document("not-found", "no-model")

    @router.get("", summary="The server")
    async def server() -> dict[str, Any]:
        """Name, version and extensions (none) of the server."""
        return {"name": "rootstock", "version": "1", "extensions": []}

    async def metadata(name: str, version: str = "") -> dict[str, Any]:
        """Inputs and outputs of the model."""
        predictor = _require_named(holder.predictor, name, version)
        info, size = predictor.info, predictor.bundle.preprocess.input_size
        return {
            "name": info["name"],
            "versions": [info["version"]],
            "platform": f"rootstock_{predictor.engine}",
            "inputs": [
                {"name": "images", "datatype": "BYTES", "shape": [-1]},
                {"name": "tensor", "datatype": "FP32", "shape": [-1, 3, size, size]},
            ],
            "outputs": [
                {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape(-1)}
                for spec in predictor.task.tensor_specs(predictor.names)
            ],
        }

    async def model_ready(name: str, version: str = "") -> dict[str, Any]:
        """200 if the model of this name (and version) is in use."""
        return {"name": _require_named(holder.predictor, name, version).info["name"], "ready": True}

    async def infer(
        request: Request, name: str, body: InferRequest, version: str = ""
    ) -> dict[str, Any]:
        """Classify images; one unusable image refuses the request."""
        predictor = _require_named(holder.predictor, name, version)
        tensor = body.inputs[0]
        if tensor.name == "images" and not version:
            chosen = choose_model(service)
            # A request names a model; the challenger may have another name.
            if chosen.info["name"] == predictor.info["name"]:
                predictor = chosen
        _require_outputs(predictor, body.outputs or [])
        predictor, answers = await _infer(request, service, predictor, tensor)
        outputs = _outputs(predictor, answers)
        names: set[str] = {output.name for output in body.outputs or []} or set(outputs)
        return {
            "model_name": predictor.info["name"],
            "model_version": predictor.info["version"],
            "id": body.id,
            "outputs": [tensor for key, tensor in outputs.items() if key in names],
        }

    for path in ("/models/{name}", "/models/{name}/versions/{version}"):
        router.get(path, summary="The model", responses=missing)(metadata)
        router.get(f"{path}/ready", summary="Is the model ready?", responses=missing)(model_ready)
        router.post(
            f"{path}/infer",
            summary="Classify images",
            response_model=InferAnswer,
            response_model_exclude_none=True,
            responses=missing | document("unusable-image"),
        )(infer)
    return router


def _require_named(predictor: Predictor, name: str, version: str) -> Predictor:
    info = predictor.info
    if name != info["name"] or version not in ("", info["version"]):
        raise Problem(
            "not-found", f"The model in use is {info['name']!r} version {info['version']!r}."
        )
    return predictor


def _require_outputs(predictor: Predictor, outputs: Sequence[OutputName]) -> None:
    known = [spec.name for spec in predictor.task.tensor_specs(predictor.names)]
    unknown = [output.name for output in outputs if output.name not in known]
    if unknown:
        raise Problem("invalid-request", f"The outputs are {', '.join(known)}, not {unknown[0]!r}.")


async def _infer(
    request: Request, service: Service, predictor: Predictor, tensor: InferInput
) -> tuple[Predictor, list[Answer]]:
    """Return the model that answered, and its answers, which hold all names."""
    if (tensor.name == "images") != (tensor.datatype == "BYTES"):
        raise Problem("invalid-request", "`images` is BYTES, `tensor` is FP32.")
    if tensor.datatype == "FP32":
        rows = await service.infer_tensor(
            request, predictor, _read_tensor(predictor, tensor, service)
        )
        service.telemetry.count_images("ok", len(rows))
        return predictor, [predictor.answer(*row, ALL_NAMES) for row in rows]
    if tensor.shape != [len(tensor.data)] or not all(isinstance(x, str) for x in tensor.data):
        raise Problem(
            "invalid-request", f"shape {tensor.shape} does not fit {len(tensor.data)} elements."
        )
    contents = decode_base64(tensor.data, "images", service.settings.max_images)
    return await classify_all(
        service, request, predictor, contents, column="images", options=ALL_NAMES
    )


def _read_tensor(predictor: Predictor, tensor: InferInput, service: Service) -> np.ndarray:
    size = predictor.bundle.preprocess.input_size
    max_images = min(service.settings.max_images, MAX_NUMBERS // (3 * size * size))
    if tensor.shape[1:] != [3, size, size] or not 1 <= tensor.shape[0] <= max_images:
        raise Problem(
            "invalid-request",
            f"shape {tensor.shape} is not [N, 3, {size}, {size}] with N from 1 to {max_images}.",
        )
    try:
        values = np.asarray(tensor.data, np.float64).reshape(tensor.shape)
    except (ValueError, TypeError, OverflowError):
        raise Problem("invalid-request", f"The data does not fit shape {tensor.shape}.") from None
    if not (np.abs(values) <= MAX_VALUE).all():  # NaN fails the comparison too
        raise Problem("invalid-request", f"The data has numbers beyond {MAX_VALUE:g}.")
    return values.astype(np.float32)


def _outputs(predictor: Predictor, answers: Sequence[Answer]) -> dict[str, dict[str, Any]]:
    data = predictor.task.tensors(answers, predictor.names)
    return {
        spec.name: {
            "name": spec.name,
            "datatype": spec.datatype,
            "shape": spec.shape(len(answers)),
            "data": data[spec.name],
        }
        for spec in predictor.task.tensor_specs(predictor.names)
    }
