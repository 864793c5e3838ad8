"""The JSON of the answers, with examples for /docs."""

from __future__ import annotations

from typing import Any, Union

from pydantic import BaseModel, ConfigDict, Field, create_model

from rootstock.model.twin import TwinFacts
from rootstock.tasks import answer_type, task_names
from rootstock.tasks.answer import AnswerError, Neighbour


class ModelName(BaseModel):
    """The model that answered."""

    name: str = Field(examples=["rootstock"])
    version: str = Field(examples=["3"])
    task: str = Field(examples=["single_label"])
    strategy: str = Field(examples=["linear_probe"])


EXAMPLES: list[Any] = [
    {
        "model": {
            "name": "rootstock",
            "version": "3",
            "task": "single_label",
            "strategy": "linear_probe",
        },
        "predictions": [
            {
                "filename": "a.jpg",
                "top": [
                    {"label": "tulip", "probability": 0.93},
                    {"label": "rose", "probability": 0.05},
                ],
            },
            {
                "filename": "b.jpg",
                "error": {
                    "type": "urn:rootstock:problem:unusable-image",
                    "title": "Unusable image",
                    "detail": "the file ends early: image file is truncated",
                    "reason": "truncated",
                },
            },
        ],
    }
]


class PredictBase(BaseModel):
    """One entry in `predictions` per image, in the order of the request."""

    # A model makes the answers, so each is checked like outside input.
    model_config = ConfigDict(
        revalidate_instances="always", json_schema_extra={"examples": EXAMPLES}
    )

    model: ModelName


def make_predict_answer() -> Any:
    """Return the type of /v1/predict's answer, for the answers of all tasks."""
    types: Any = tuple(answer_type(name) for name in task_names())
    return create_model(
        "PredictAnswer",
        __base__=PredictBase,
        __doc__=PredictBase.__doc__,
        predictions=(list[Union[types]], ...),  # noqa: UP007 - a tuple of types
    )


class Embedding(BaseModel):
    """The features of one file, or `error`."""

    filename: str = Field(examples=["a.jpg"])
    embedding: list[float] | None = Field(None, examples=[[0.12, 0.0, 1.3]])
    error: AnswerError | None = None


class EmbeddingsAnswer(BaseModel):
    """One entry in `embeddings` per image, in the order of the request."""

    model: ModelName
    width: int = Field(examples=[1280])
    embeddings: list[Embedding]


class SimilarAnswer(BaseModel):
    """The most similar images, the nearest first."""

    model: ModelName
    similar: list[Neighbour]


class AdminAnswer(BaseModel):
    """The version that is served now."""

    version: str = Field(examples=["3"])
    before: str = Field(examples=["4"])
    changed: bool
    pinned: str = Field(description="The pinned version; empty if the service follows the alias.")


class RefusedModel(BaseModel):
    """A version that is not served, and why."""

    version: str
    reason: str
    at: float = Field(description="Seconds since 1970.")


class EstimatedAccuracy(BaseModel):
    """The accuracy that the calibrated confidence predicts, without labels."""

    images: int = Field(description="Number of recent answers used.")
    value: float | None = Field(description="None if it cannot be estimated.", examples=[0.94])
    low: float | None = Field(description="Lower end of the 95 % interval.", examples=[0.92])
    high: float | None = Field(description="Upper end.", examples=[0.96])
    reason: str = Field(description="Why it cannot be estimated; otherwise empty.", examples=[""])


class DriftAnswer(BaseModel):
    """Recent images compared with the validation set: population stability indices."""

    images: int
    needed: int
    window: int
    psi: dict[str, float] = Field(examples=[{"features": 0.04, "classes": 0.11}])
    predicted: dict[str, float]
    estimated_accuracy: EstimatedAccuracy
    median_novelty: float | None


class FeedbackQuestion(BaseModel):
    """The true label of an answered image."""

    model_config = ConfigDict(extra="forbid")

    request_id: str = Field(
        min_length=1,
        max_length=200,
        description="The answer's X-Request-ID header.",
        examples=["5f0c1d3ab2e94d43"],
    )
    label: str = Field(
        min_length=1,
        max_length=4000,
        description="As in the manifest: a class, a JSON list of labels, or a number.",
        examples=["tulip"],
    )
    sha256: str = Field(
        "",
        pattern=r"^([0-9a-f]{64})?$",
        description="Hash of the image file, if the request had several images.",
    )


class LiveScore(BaseModel):
    """Quality of the model in use according to feedback, with a 95 % interval."""

    metric: str = Field(examples=["accuracy"])
    value: float
    low: float
    high: float
    images: int


class FeedbackAnswer(BaseModel):
    """The label that was stored; ``live`` includes it."""

    request_id: str
    sha256: str
    label: str
    answer: str = Field(description="The model's answer.")
    score: float = Field(description="1 if it was right, otherwise 0; for a number, the error.")
    live: LiveScore | None = None


class ModelAnswer(ModelName):
    """The model in use: its classes, quality, and origin."""

    classes: list[str] = Field(examples=[["rose", "tulip"]])
    metrics: dict[str, Any] = Field(examples=[{"accuracy": 0.958, "n_test": 160}])
    headline: str = Field(description="The main metric.", examples=["accuracy"])
    card: str | None = Field(None, description="The model card as Markdown, if it has one.")
    lineage: dict[str, Any] = Field(examples=[{"git_commit": "163f74a", "data_hash": "9f2c"}])
    preprocess: dict[str, Any] = Field(examples=[{"input_size": 224, "crop_pct": 0.875}])
    preprocess_hash: str = Field(examples=["5d41402abc4b2a76b9719d911017c592"])
    temperature: float | None = Field(None, examples=[1.3])
    backbone: str = Field(examples=["mobilenetv3_small_100"])
    engine: str = Field(examples=["onnx"])
    precision: str = Field(description="float32, or int8: the model's twin.", examples=["float32"])
    engine_milliseconds: dict[str, float] = Field(
        description="Milliseconds per image in each engine that was tried, such as `onnx-int8`."
    )
    int8: TwinFacts | None = Field(
        None, description="What the int8 twin was measured to lose on the validation images."
    )
    unknown_share: float = Field(
        description="Share of known images that may be flagged as unknown."
    )
    source: str = Field(examples=["models:/rootstock@champion"])
    pinned: str = Field(description="The pinned version; empty if the service follows its source.")
    registry_up: bool
    refused: RefusedModel | None = None
    digest: str = Field(description="sha256 of the model's checksums; it identifies the content.")


class Status(BaseModel):
    """The state of the service in one word."""

    status: str = Field(examples=["ok"])
    models: dict[str, str] | None = Field(
        None,
        description="With several models, `ready`, `loading` or `failed` for each.",
        examples=[{"flowers": "ready", "digits": "failed"}],
    )


class ListedModel(BaseModel):
    """One model of this service."""

    name: str = Field(examples=["rootstock"])
    default: bool = Field(description="Whether routes without a model name use it.")
    state: str = Field(description="`ready`, `loading` or `failed`.", examples=["ready"])
    source: str = Field(examples=["models:/rootstock@champion"])
    version: str | None = Field(None, examples=["3"])
    task: str | None = Field(None, examples=["single_label"])
    strategy: str | None = Field(None, examples=["linear_probe"])
    engine: str | None = Field(None, examples=["onnx"])
    memory_bytes: int | None = Field(
        None,
        description="Growth of the process's resident memory when the model was opened. The first "
        "model's value includes shared memory.",
        examples=[52_428_800],
    )
    refused: RefusedModel | None = None


class ModelsAnswer(BaseModel):
    """The models of this service; the first is the default."""

    models: list[ListedModel]
