"""Settings of the service: environment variables ROOTSTOCK_*, or arguments of `rootstock serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from rootstock.system.cpu import usable_cores

MEBIBYTE = 2**20


class Settings(BaseSettings):
    """Each field is read from ROOTSTOCK_<NAME>, for example ROOTSTOCK_PORT=8080."""

    # An empty variable, as compose files set them, is none.
    model_config = SettingsConfigDict(
        env_prefix="ROOTSTOCK_", env_ignore_empty=True, frozen=True, allow_inf_nan=False
    )

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for all.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0: any free one.")
    model: str = Field(
        "",
        description="A model directory, models:/NAME@ALIAS or models:/NAME/VERSION; by default "
        "the champion of params.yaml's registry, models:/rootstock@champion.",
    )
    root: Path = Field(
        Path("."),
        description="Project folder: its registry is the default, its .rootstock the cache.",
    )

    engine: Literal["fastest", "onnx", "openvino", "torch"] = Field(
        "fastest", description="What runs the network; fastest: what proves so at start."
    )
    decoders: int = Field(
        default_factory=usable_cores, ge=1, description="Processes that decode images."
    )
    lanes: int = Field(
        default_factory=usable_cores,
        ge=1,
        description="Batches on the engine at once, one core each on a processor.",
    )
    max_batch: int | None = Field(
        None,
        ge=1,
        description="Images in one batch; by default 1, 8 or (on a GPU) 64, as was fastest when "
        "the model was loaded.",
    )
    max_delay_ms: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="How long a batch waits for more while the engine has other work.",
    )

    max_queue: int = Field(
        128, ge=1, description="Images taken in and not yet answered; more are answered 503."
    )
    max_body_bytes: int = Field(
        64 * MEBIBYTE, ge=1_000, description="A longer request body is answered 413."
    )
    max_buffered_bytes: int = Field(
        512 * MEBIBYTE, ge=1_000, description="All bodies in memory; beyond them 503."
    )
    max_images: int = Field(64, ge=1, description="Images in one request.")
    max_pixels: int = Field(
        50_000_000, ge=1_000, description="An image of more pixels is refused undecoded."
    )
    max_side: int = Field(20_000, ge=16, description="A longer side is refused undecoded.")
    max_aspect_ratio: float = Field(
        50.0, ge=1, description="Longer over shorter side; beyond it refused undecoded."
    )
    decode_seconds: float = Field(
        5.0, gt=0, description="Decoding one image may take this long before it is given up."
    )
    decode_memory_bytes: int = Field(
        1024 * MEBIBYTE, ge=64 * MEBIBYTE, description="Memory that decoding one image may take."
    )
    deadline_seconds: float = Field(
        10.0, gt=0, description="An answer that is not ready by then is given up (503)."
    )
    header_seconds: float = Field(
        10.0, gt=0, description="A request's header must have arrived by then, or it is cut off."
    )
    body_seconds: float = Field(
        30.0, gt=0, description="A request body must have arrived by then (408)."
    )
    top_k_default: int = Field(5, ge=1, description="Labels per image when top_k is not given.")

    poll_seconds: float = Field(
        5.0, gt=0, description="Pause between looks at the registry for a new champion."
    )
    retry_seconds: float = Field(
        10.0, gt=0, description="Pause between attempts to load a model while there is none."
    )
    registry_seconds: float = Field(
        1.5,
        gt=0,
        description="How long a start waits for the registry before it serves the last model "
        "that it knows; what the registry says then follows.",
    )
    linger_seconds: float = Field(
        0.0,
        ge=0,
        description="Time after SIGTERM in which /readyz says 503 but requests are still taken, "
        "so that a load balancer can look elsewhere first.",
    )
    drain_seconds: int = Field(
        30, ge=0, description="Time that running requests get to finish after SIGTERM."
    )

    keys: Path | None = Field(
        None,
        description="File of API keys, made by `rootstock key`; without one everybody may ask, "
        "with one nobody else.",
    )
    rate_per_second: float = Field(
        0.0, ge=0, description="Requests a second for each key (or address); 0: any number."
    )
    rate_burst: int = Field(20, ge=1, description="Requests that may come at once below the rate.")

    challenger: str = Field(
        "", description="A model that also answers, such as models:/rootstock@challenger."
    )
    shadow_share: float = Field(
        1.0, ge=0, le=1, description="Share of requests that the challenger answers unseen."
    )
    canary_share: float = Field(
        0.0, ge=0, le=1, description="Share of requests whose answer is the challenger's."
    )
    drift_window: int = Field(
        1_000, ge=20, description="Images over which /v1/drift compares with the validation set."
    )
    journal: Path | None = Field(
        None, description="Folder for Parquet files of what was asked and answered; none: nothing."
    )
    journal_images: bool = Field(False, description="Keep the images too, for later labelling.")
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="auto: text on a terminal, else a JSON object a line."
    )
