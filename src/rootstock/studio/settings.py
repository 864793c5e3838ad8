"""Settings of the studio: variables ROOTSTOCK_STUDIO_*, or arguments of `rootstock studio`."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "ROOTSTOCK_STUDIO_"


class StudioSettings(BaseSettings):
    """Each field is read from ROOTSTOCK_STUDIO_<NAME>, for example ROOTSTOCK_STUDIO_PORT=8200."""

    # Compose files set variables to an empty text, which means unset.
    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    project: Path = Field(
        Path("."), description="Project folder, which has params.yaml, artifacts/ and reports/."
    )
    data: Path | None = Field(
        None,
        description="Folder or table of the images. Default: `data.root` of params.yaml. Needed "
        "for a folder that `rootstock train --out` wrote.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8100, ge=0, le=65535, description="Port to listen on; 0 picks a free port.")
    hosts: str = Field(
        "",
        description="Host names that browsers may use for the studio, in addition to this "
        "machine's names, separated by commas, such as studio.example:8446.",
    )
    keys: Path | None = Field(
        None,
        description="File of API keys, made by `rootstock key`. A `predict` key views and labels; "
        "an `admin` key also promotes and rolls back. Without a file, no key is needed.",
    )
    service: str = Field(
        "",
        description="URL of the inference service whose requests the studio shows, such as "
        "http://127.0.0.1:8000.",
    )
    service_key: str = Field("", description="A `predict` key of that service, if it needs one.")
    journal: Path | None = Field(
        None, description="Folder of the service's journal (its ROOTSTOCK_JOURNAL)."
    )
    pool: Path | None = Field(
        None, description="Folder of images without labels, which the page Label ranks."
    )

    @model_validator(mode="after")
    def _require_keys(self) -> Self:
        if self.keys is None and not _is_loopback(self.host):
            raise ValueError(
                f"{self.host} can be reached from other machines: set a key file "
                "(`rootstock key NAME --role admin --file keys`), or listen on 127.0.0.1"
            )
        return self

    @property
    def names(self) -> frozenset[str]:
        """The hosts of `hosts`, in lower case."""
        return frozenset(self.hosts.lower().replace(",", " ").split())


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
