"""Settings of the service: environment variables ROOTSTOCK_*, or arguments of `rootstock serve`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from rootstock.cores import usable_cores


def _default_threads() -> int:
    return max(1, min(4, usable_cores()))


class Settings(BaseSettings):
    """Each field is read from ROOTSTOCK_<NAME>, for example ROOTSTOCK_PORT=8080."""

    model_config = SettingsConfigDict(env_prefix="ROOTSTOCK_", frozen=True)

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
    threads: int = Field(
        default_factory=_default_threads,
        ge=1,
        description="Requests decoded and classified at once, one core each.",
    )
    max_waiting: int = Field(
        64, ge=0, description="Requests that may wait for a thread; more are answered 503."
    )
    max_body_bytes: int = Field(
        64 * 2**20, ge=1_000, description="A longer request body is answered 413."
    )
    max_images: int = Field(64, ge=1, description="Images in one request.")
    max_pixels: int = Field(
        50_000_000, ge=1_000, description="An image of more pixels is refused undecoded."
    )
    top_k_default: int = Field(5, ge=1, description="Labels per image when top_k is not given.")
    retry_seconds: float = Field(
        10.0, gt=0, description="Pause between attempts to load a model while there is none."
    )
    drain_seconds: int = Field(
        30, ge=0, description="Time that running requests get to finish after SIGTERM."
    )
