"""Settings of the service: environment variables ROOTSTOCK_*, or arguments of `rootstock serve`."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from rootstock.data.limits import DecodeLimits
from rootstock.system.cpu import usable_cores

MEBIBYTE = 2**20
_ORIGIN = re.compile(r"https?://[a-z0-9_.\-\[\]:]+")


class Settings(BaseSettings):
    """Each field is read from ROOTSTOCK_<NAME>, for example ROOTSTOCK_PORT=8080."""

    # Compose files set variables to an empty text, which means unset.
    model_config = SettingsConfigDict(
        env_prefix="ROOTSTOCK_", env_ignore_empty=True, frozen=True, allow_inf_nan=False
    )

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for all.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0: any free one.")
    grpc_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Also serve the Open Inference Protocol over gRPC on this port, without TLS; "
        "by default not.",
    )
    model: str = Field(
        "",
        description="A model directory, models:/NAME@ALIAS, or models:/NAME/VERSION. Default: "
        "the champion of params.yaml's registry, models:/rootstock@champion.",
    )
    models: str = Field(
        "",
        description="Several models, separated by commas, instead of `model`: a registered name "
        "(its champion), a models:/ address, or NAME=FOLDER. /v1/predict uses the first one, "
        "/v1/models/NAME/predict any of them.",
    )
    model_name: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_. -]{0,128}$",
        description="Name of a model served from a directory. Default: the directory's name.",
    )
    index: Path | None = Field(
        None,
        description="Folder that `rootstock index-images` wrote, searched by /v1/similar. Default: "
        "the training images that the model carries.",
    )
    root: Path = Field(
        Path("."),
        description="Project folder: its registry is the default, its .rootstock the cache.",
    )

    engine: Literal["fastest", "onnx", "openvino", "torch"] = Field(
        "fastest", description="Engine that runs the network; `fastest` measures them at start."
    )
    precision: Literal["auto", "float32", "int8"] = Field(
        "auto",
        description="The numbers that the network computes with. auto: int8 if the model has an "
        "int8 twin that is faster here, otherwise float32.",
    )
    decoders: int = Field(
        default_factory=usable_cores, ge=1, description="Processes that decode images."
    )
    lanes: int = Field(
        default_factory=usable_cores,
        ge=1,
        description="Batches in the engine at once; on a CPU, each uses one core.",
    )
    max_batch: int | None = Field(
        None,
        ge=1,
        description="Images per batch. Default: 1, 8, or (on a GPU) 64, chosen by speed when "
        "the model was loaded.",
    )
    max_delay_ms: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="How long a batch waits for more images while the engine has other work.",
    )

    max_queue: int = Field(
        128, ge=1, description="Images in progress; further ones are answered with 503."
    )
    max_body_bytes: int = Field(
        64 * MEBIBYTE, ge=1_000, description="Longest request body; longer: 413."
    )
    max_buffered_bytes: int = Field(
        512 * MEBIBYTE, ge=1_000, description="Memory for all request bodies; beyond it: 503."
    )
    max_images: int = Field(64, ge=1, description="Most images in one request.")
    max_pixels: int | None = Field(
        None,
        ge=1_000,
        description="An image with more pixels is rejected before decoding. Default: as in the "
        "model's training.",
    )
    max_side: int | None = Field(
        None,
        ge=16,
        description="An image with a longer side is rejected before decoding. Default: no limit.",
    )
    max_aspect_ratio: float | None = Field(
        None,
        ge=1,
        description="An image whose sides have a larger ratio is rejected. Default: "
        "as in the model's training.",
    )
    truncated: Literal["refuse", "use"] | None = Field(
        None,
        description="What to do with an image whose file ends early. Default: as in the model's "
        "training.",
    )
    decode_seconds: float = Field(5.0, gt=0, description="Time limit for decoding one image.")
    decode_memory_bytes: int = Field(
        1536 * MEBIBYTE,
        ge=64 * MEBIBYTE,
        description="Memory limit for decoding one image; 16 bytes per pixel are enough.",
    )
    proof_seconds: float = Field(
        120.0,
        gt=0,
        description="Time limit for opening a new model and answering its golden images.",
    )
    proof_memory_bytes: int = Field(
        4096 * MEBIBYTE,
        ge=512 * MEBIBYTE,
        description="Memory limit for opening a new model, not counting its weights.",
    )
    deadline_seconds: float = Field(10.0, gt=0, description="Time limit for an answer; later: 503.")
    max_connections: int = Field(
        1_000,
        ge=1,
        description="Connections at once; above it, the longest idle one is closed.",
    )
    max_connections_per_address: int = Field(
        500, ge=1, description="Connections at once from one address, such as a proxy."
    )
    header_seconds: float = Field(
        10.0, gt=0, description="Time limit for a request's header; later, the connection closes."
    )
    body_seconds: float = Field(30.0, gt=0, description="Time limit for a request body (408).")
    top_k_default: int = Field(5, ge=1, description="Labels per image if a request has no top_k.")

    poll_seconds: float = Field(
        5.0, gt=0, description="Pause between checks for a new champion in the registry."
    )
    retry_seconds: float = Field(
        10.0, gt=0, description="Pause between attempts to load the first model."
    )
    registry_seconds: float = Field(
        1.5,
        gt=0,
        description="How long a start waits for the registry before it serves the last model; it "
        "follows the registry later.",
    )
    linger_seconds: float = Field(
        0.0,
        ge=0,
        description="Time after SIGTERM in which /readyz answers 503 but requests are still "
        "accepted, so that load balancers can move traffic away first.",
    )
    drain_seconds: int = Field(
        30, ge=0, description="Time that running requests get to finish after SIGTERM."
    )

    keys: Path | None = Field(
        None,
        description="File of API keys, made by `rootstock key`. Without it, no key is needed.",
    )
    rate_per_second: float = Field(
        0.0, ge=0, description="Requests per second per key (or address); 0: no limit."
    )
    rate_burst: int = Field(20, ge=1, description="Requests that may come at once.")

    cors_origins: str = Field(
        "",
        description="Web origins whose pages may use this service (CORS), separated by commas, "
        "such as https://shop.example. Default: none.",
    )

    challenger: str = Field(
        "", description="A model that also answers, such as models:/rootstock@challenger."
    )
    shadow_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of requests that the challenger also answers, invisible to clients.",
    )
    canary_share: float = Field(
        0.0, ge=0, le=1, description="Share of requests that get the challenger's answer."
    )
    drift_window: int = Field(
        1_000, ge=20, description="Recent images that /v1/drift compares with the validation set."
    )
    journal: Path | None = Field(
        None, description="Folder for Parquet files with every answer; unset: no journal."
    )
    journal_images: bool = Field(False, description="Keep the images too, to label them later.")
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="auto: text on a terminal, otherwise one JSON object per line."
    )

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, text: str) -> str:
        for origin in split_origins(text):
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is not an origin; write scheme, host and port, such as "
                    "https://shop.example:8443, without a path or *"
                )
        return text

    def limits(self, own: DecodeLimits) -> DecodeLimits:
        """Return a model's own limits of images, overridden by those that are set here."""
        names = ("max_pixels", "max_side", "max_aspect_ratio", "truncated")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return replace(own, **given, max_bytes=min(own.max_bytes, self.max_body_bytes))


def split_origins(text: str) -> list[str]:
    """Return the origins of ``cors_origins``, as browsers write them."""
    return [origin for origin in text.lower().replace(",", " ").split() if origin]
