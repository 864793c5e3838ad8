"""MLflow's scoring route, for use with MLflow clients.

The input column is `image`; each value is an image file in base64. All four of MLflow's forms are
accepted: `dataframe_split`, `dataframe_records`, `instances`, and `inputs`.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field

from rootstock.service.http.access import Router
from rootstock.service.http.answers import choose_model, classify_all
from rootstock.service.http.chosen import find_service
from rootstock.service.http.problems import Problem, document
from rootstock.service.http.uploads import EXAMPLE, bounded_route, count_elements, decode_base64
from rootstock.service.inference.services import Services
from rootstock.tasks.task import AnswerOptions

COLUMN = "image"


class Split(BaseModel):
    """A data frame in pandas' `split` orientation."""

    columns: list[str] = Field(fail_fast=True, examples=[[COLUMN]])
    data: list[list[Any]] = Field(fail_fast=True, min_length=1, examples=[[[EXAMPLE]]])


class Invocation(BaseModel):
    """A request in one of MLflow's four forms."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"dataframe_split": {"columns": [COLUMN], "data": [[EXAMPLE]]}}]
        }
    )

    dataframe_split: Split | None = None
    dataframe_records: list[dict[str, Any]] | None = Field(
        fail_fast=True, default=None, min_length=1
    )
    instances: list[Any] | None = Field(None, min_length=1)
    inputs: list[Any] | dict[str, Any] | None = None


class InvocationAnswer(BaseModel):
    """One row per image, in order: the columns of the answer."""

    predictions: list[dict[str, str | float | bool | None]] = Field(
        examples=[[{"label": "tulip", "probability": 0.93, "unknown": False}]]
    )


def make_mlflow_router(services: Services) -> Router:
    """Make the route /invocations."""
    settings = services.default.settings
    max_elements = count_elements(settings.max_images)
    router = Router(
        "predict", tags=["mlflow"], route_class=bounded_route(max_elements, nested=max_elements)
    )

    @router.post(
        "/invocations",
        summary="Classify images (MLflow clients)",
        responses=document("unusable-image"),
    )
    async def invocations(request: Request, body: Invocation) -> InvocationAnswer:
        """A column `image` of image files in base64; one unusable image refuses the request."""
        service = find_service(services, request)
        predictor = choose_model(service)
        contents = decode_base64(_read_texts(body), COLUMN, settings.max_images)
        _, answers = await classify_all(
            service, request, predictor, contents, column=COLUMN, options=AnswerOptions(top_k=1)
        )
        return InvocationAnswer(predictions=[answer.columns() for answer in answers])

    return router


def _read_texts(body: Invocation) -> list[str]:
    values: list[Any]
    if body.dataframe_split is not None:
        if COLUMN not in body.dataframe_split.columns:
            raise Problem("invalid-request", f"The data frame has no column `{COLUMN}`.")
        index = body.dataframe_split.columns.index(COLUMN)
        values = [row[index] if index < len(row) else None for row in body.dataframe_split.data]
    else:
        rows = body.dataframe_records or body.instances or body.inputs
        if isinstance(rows, dict):
            rows = rows.get(COLUMN)
        values = [
            row.get(COLUMN) if isinstance(row, dict) else row
            for row in (rows if isinstance(rows, list) else [])
        ]
    if not values or not all(isinstance(value, str) for value in values):
        raise Problem(
            "invalid-request", f"Send base64 strings in a column `{COLUMN}` or as instances."
        )
    return values
