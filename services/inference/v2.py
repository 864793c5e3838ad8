"""The Open Inference Protocol (REST, v2): health, metadata, and inference on encoded images.

One input `images`, BYTES [N], each element an image file in base64; outputs `label` BYTES [N]
and `probabilities` FP32 [N,K] in the order of the classes. A tensor has no room for the error
of one element, so one unusable image refuses the request; /v1/predict is finer. Errors are
problem details that also carry the protocol's member `error`.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from rootstock.errors import ImageError
from rootstock.predict import Predictor
from services.inference.problems import Problem, document, image_problem
from services.inference.service import Service


class InferInput(BaseModel):
    """The tensor of images."""

    name: Literal["images"]
    datatype: Literal["BYTES"]
    shape: list[int] = Field(min_length=1, max_length=1, examples=[[1]])
    data: list[str] = Field(min_length=1, examples=[["/9j/4AAQSkZJRg=="]])


class OutputName(BaseModel):
    """An output that is asked for."""

    name: Literal["label", "probabilities"]


class InferRequest(BaseModel):
    """The body of an inference request."""

    id: str | None = None
    inputs: list[InferInput] = Field(min_length=1, max_length=1)
    outputs: list[OutputName] | None = None


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


def make_v2_router(service: Service) -> APIRouter:
    """The routes below /v2."""
    router = APIRouter(prefix="/v2", tags=["open inference protocol"])
    holder = service.holder
    missing = document("not-found", "no-model")

    @router.get("", summary="The server")
    async def server() -> dict[str, Any]:
        """Name, version and extensions (none) of the server."""
        return {"name": "rootstock", "version": "1", "extensions": []}

    @router.get("/health/live", summary="Is the process alive?")
    async def live() -> dict[str, bool]:
        """200 as long as the process answers at all."""
        return {"live": True}

    @router.get("/health/ready", summary="Is there a model?", responses=document("no-model"))
    async def ready() -> dict[str, bool]:
        """200 once a model is loaded, else 503."""
        _ = holder.predictor
        return {"ready": True}

    async def metadata(name: str, version: str = "") -> dict[str, Any]:
        """Inputs and outputs of the model."""
        info = _named(holder.predictor, name, version).info
        return {
            "name": info["name"],
            "versions": [info["version"]],
            "platform": "onnx_onnxruntime",
            "inputs": [{"name": "images", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(info["classes"])]},
            ],
        }

    async def model_ready(name: str, version: str = "") -> dict[str, Any]:
        """200 if the model of this name (and version) is in use."""
        return {"name": _named(holder.predictor, name, version).info["name"], "ready": True}

    async def infer(name: str, body: InferRequest, version: str = "") -> dict[str, Any]:
        """Classify images; one that cannot be used refuses the request."""
        predictor = _named(holder.predictor, name, version)
        service.refuse_overload()
        contents = _decode(body.inputs[0], service.settings.max_images)
        results = await service.classify(predictor, contents, len(predictor.classes))
        outputs = _outputs(predictor, [_usable(n, found) for n, found in enumerate(results)])
        wanted: set[str] = {output.name for output in body.outputs or []} or set(outputs)
        return {
            "model_name": predictor.info["name"],
            "model_version": predictor.info["version"],
            "id": body.id,
            "outputs": [tensor for key, tensor in outputs.items() if key in wanted],
        }

    for path in ("/models/{name}", "/models/{name}/versions/{version}"):
        router.get(path, summary="The model", responses=missing)(metadata)
        router.get(f"{path}/ready", summary="Is the model ready?", responses=missing)(model_ready)
        router.post(
            f"{path}/infer",
            summary="Classify images",
            response_model=InferAnswer,
            response_model_exclude_none=True,
            responses=missing | document("too-large", "unusable-image", "invalid-request"),
        )(infer)
    return router


def _named(predictor: Predictor, name: str, version: str) -> Predictor:
    info = predictor.info
    if name != info["name"] or version not in ("", info["version"]):
        raise Problem(
            "not-found", f"The model in use is {info['name']!r} version {info['version']!r}."
        )
    return predictor


def _decode(tensor: InferInput, max_images: int) -> list[bytes]:
    if tensor.shape[0] != len(tensor.data):
        raise Problem(
            "invalid-request", f"shape {tensor.shape} does not fit {len(tensor.data)} elements."
        )
    if len(tensor.data) > max_images:
        raise Problem("invalid-request", f"{len(tensor.data)} images; at most {max_images}.")
    try:
        return [base64.b64decode(text, validate=True) for text in tensor.data]
    except (binascii.Error, ValueError):
        raise Problem("invalid-request", "An element of `images` is not base64.") from None


def _usable(number: int, result: Any) -> dict[str, float]:
    if isinstance(result, ImageError):
        problem = image_problem(result)
        problem.detail = f"images[{number}]: {problem.detail}"
        raise problem
    return dict(result.top)


def _outputs(predictor: Predictor, rows: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    # The first key is the most probable label.
    labels = [next(iter(row)) for row in rows]
    shares = [row[label] for row in rows for label in predictor.classes]
    size = [len(rows), len(predictor.classes)]
    return {
        "label": {"name": "label", "datatype": "BYTES", "shape": size[:1], "data": labels},
        "probabilities": {
            "name": "probabilities",
            "datatype": "FP32",
            "shape": size,
            "data": shares,
        },
    }
