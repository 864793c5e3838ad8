"""The Open Inference Protocol (REST, v2): metadata and inference; health is in operation.py.

It takes one input: `images`, BYTES [N] or [N,1], each element an image file (in JSON in base64); or
`tensor`, FP32 [N,3,S,S], prepared as /v1/model describes. The task defines the outputs, such as
`label` BYTES [N] and `probabilities` FP32 [N,K] in the order of the classes. A tensor cannot
report an error per element, so one unusable image rejects the request; /v1/predict does not.
Errors are problem details with the member `error`.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated, Any

from fastapi import Body, Request
from fastapi.responses import Response
from pydantic import BaseModel

from rootstock.model.predictor import Predictor
from rootstock.service.http.access import Router
from rootstock.service.http.answers import answer_row, choose_model, classify_all
from rootstock.service.http.chosen import find_service
from rootstock.service.http.problems import Problem, document
from rootstock.service.http.uploads import bounded_route
from rootstock.service.http.v2_tensors import (
    MAX_NUMBERS,
    InferAnswer,
    InferRequest,
    check_outputs,
    read_images,
    read_tensor,
    split_body,
    write_answer,
)
from rootstock.service.inference.service import Caller, Service
from rootstock.service.inference.services import Services
from rootstock.tasks.answer import Answer
from rootstock.tasks.task import AnswerOptions

ALL_NAMES = AnswerOptions(top_k=sys.maxsize)
MAX_NESTED = 20_000
"""Maximum lists in a body; a tensor may be nested down to its rows."""
EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "statistics"]
_NANOSECONDS = 1_000_000_000


class IndexRequest(BaseModel):
    """Which models to list."""

    ready: bool = False


def make_v2_router(services: Services) -> Router:
    """Make the routes below /v2, except for its health checks."""
    router = Router(
        "predict",
        prefix="/v2",
        tags=["open inference protocol"],
        route_class=bounded_route(MAX_NUMBERS, nested=MAX_NESTED, split=split_body),
    )
    max_images = services.default.settings.max_images
    missing = document("not-found", "no-model")

    async def server_metadata() -> dict[str, Any]:
        """Return name, version, and extensions of the server."""
        return {"name": "rootstock", "version": "1", "extensions": EXTENSIONS}

    router.get("", summary="The server")(server_metadata)
    router.get("/", summary="The server", include_in_schema=False)(server_metadata)

    @router.get("/models/stats", summary="Statistics of the model", responses=missing)
    async def all_statistics() -> dict[str, Any]:
        """Images, batches and times since the service started."""
        if not services.several:
            return {"model_stats": [_statistics(services.default)]}
        return {"model_stats": [_statistics(one) for one in services if one.holder.ready]}

    @router.post("/repository/index", summary="The models")
    async def repository_index(
        _body: Annotated[IndexRequest | None, Body()] = None,
    ) -> list[dict[str, str]]:
        """List the models in use; empty if none is loaded."""
        infos = [one.holder.predictor.info for one in services if one.holder.ready]
        return [
            {"name": info["name"], "version": info["version"], "state": "READY", "reason": ""}
            for info in infos
        ]

    async def model_metadata(request: Request, name: str, version: str = "") -> dict[str, Any]:
        """Inputs and outputs of the model."""
        return describe_model(require_version(find_service(services, request, name), version))

    async def model_config(request: Request, name: str, version: str = "") -> dict[str, Any]:
        """The same in the form of Triton's model configuration."""
        metadata = await model_metadata(request, name, version)
        return {
            "name": metadata["name"],
            "platform": metadata["platform"],
            "backend": "rootstock",
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": max_images,
            "input": [_configure(tensor) for tensor in metadata["inputs"]],
            "output": [_configure(tensor) for tensor in metadata["outputs"]],
        }

    async def model_statistics(request: Request, name: str, version: str = "") -> dict[str, Any]:
        """Images, batches and times since the service started, of every version together."""
        service = find_service(services, request, name)
        require_version(service, version)
        return {"model_stats": [_statistics(service)]}

    async def model_ready(request: Request, name: str, version: str = "") -> dict[str, Any]:
        """200 if the model of this name (and version) is in use."""
        predictor = require_version(find_service(services, request, name), version)
        return {"name": predictor.info["name"], "ready": True}

    async def infer(
        request: Request, name: str, body: InferRequest, version: str = ""
    ) -> dict[str, Any] | Response:
        """Classify images; one unusable image refuses the request."""
        service = find_service(services, request, name)
        predictor, answers = await infer_tensors(request, service, body, version)
        return write_answer(predictor, body, answers)

    for path, suffix in (("/models/{name}", ""), ("/models/{name}/versions/{version}", "_version")):
        for end, read, summary in (
            ("", model_metadata, "The model"),
            ("/config", model_config, "The model's configuration"),
            ("/stats", model_statistics, "Statistics of the model"),
            ("/ready", model_ready, "Is the model ready?"),
        ):
            name = f"{read.__name__}{suffix}"
            router.get(f"{path}{end}", summary=summary, responses=missing, name=name)(read)
        router.post(
            f"{path}/infer",
            summary="Classify images",
            name=f"infer{suffix}",
            response_model=InferAnswer,
            response_model_exclude_none=True,
            responses=missing | document("unusable-image"),
        )(infer)
    return router


def require_version(service: Service, version: str) -> Predictor:
    """Return the model in use.

    Raises:
        NotLoadedError: No model is loaded yet.
        Problem: It has another version. An empty version means any.
    """
    predictor = service.holder.predictor
    info = predictor.info
    if version not in ("", info["version"]):
        raise Problem(
            "not-found", f"The model in use is {info['name']!r} version {info['version']!r}."
        )
    return predictor


def describe_model(predictor: Predictor) -> dict[str, Any]:
    """Return the protocol's metadata of a model."""
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


async def infer_tensors(
    request: Caller, service: Service, body: InferRequest, version: str
) -> tuple[Predictor, list[Answer]]:
    """Return the model that answered a request, and its answers, which include all names.

    Raises:
        Problem: The request is wrong, an image is unusable, or as in `Service.answer`.
    """
    predictor = require_version(service, version)
    tensor = body.inputs[0]
    if tensor.name == "images" and not version:
        chosen = choose_model(service)
        # A request names a model; the challenger may have another name.
        if chosen.info["name"] == predictor.info["name"]:
            predictor = chosen
    check_outputs(predictor, body.outputs or [])
    if (tensor.name == "images") != (tensor.datatype == "BYTES"):
        raise Problem("invalid-request", "`images` is BYTES, `tensor` is FP32.")
    max_images = service.settings.max_images
    if tensor.datatype == "FP32":
        images = read_tensor(request, predictor, tensor, max_images)
        rows = await service.infer_tensor(request, predictor, images)
        service.telemetry.count_images(service.name, "ok", len(rows))
        return predictor, [answer_row(predictor, row, ALL_NAMES) for row in rows]
    contents = read_images(request, tensor, max_images)
    return await classify_all(
        service, request, predictor, contents, column="images", options=ALL_NAMES
    )


def _configure(tensor: dict[str, Any]) -> dict[str, Any]:
    """Return a metadata tensor as in a configuration, without the batch dimension."""
    types = {"BYTES": "TYPE_STRING"}
    return {
        "name": tensor["name"],
        "data_type": types.get(tensor["datatype"], f"TYPE_{tensor['datatype']}"),
        "dims": tensor["shape"][1:] or [1],
    }


def _statistics(service: Service) -> dict[str, Any]:
    """Return counters of /metrics as Triton's statistics."""
    info = service.holder.predictor.info
    read = partial(service.telemetry.read, service.name)

    def stage(name: str) -> dict[str, int]:
        labels = {"stage": name}
        seconds = read("rootstock_stage_duration_seconds_sum", labels)
        count = read("rootstock_stage_duration_seconds_count", labels)
        return {"count": int(count), "ns": int(_NANOSECONDS * seconds)}

    stages = {"queue": "queue", "compute_input": "decode", "compute_infer": "infer"}
    times = {name: stage(own) for name, own in stages.items()}
    images = int(read("rootstock_images_total", {"outcome": "ok"}))
    nothing = {"count": 0, "ns": 0}
    return {
        "name": info["name"],
        "version": info["version"],
        "inference_count": images,
        "execution_count": int(read("rootstock_batch_size_count", {})),
        "inference_stats": {
            "success": {"count": images, "ns": sum(one["ns"] for one in times.values())},
            "fail": nothing,
            **times,
            "compute_output": nothing,
        },
        "batch_stats": [],
    }
