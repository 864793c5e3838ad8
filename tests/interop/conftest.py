"""A service in a separate process, for other people's clients."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.bundles import jpeg, tiny_bundle
from tests.service.test_serve import running

ALONE = Path(sys.prefix) / "interop"
"""Where `make test` installs the packages of alone.txt."""


class Served(NamedTuple):
    """The address of the service, and its answers for two images."""

    address: str
    name: str
    images: list[bytes]
    tops: list[list[dict]]

    @property
    def labels(self) -> list[str]:
        return [top[0]["label"] for top in self.tops]


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    images = [jpeg(0), jpeg(1)]
    with running("--model", str(tiny_bundle()), ROOTSTOCK_MODEL_NAME="flowers") as (address, _):
        files = [("files", image) for image in images]
        answer = httpx.post(f"{address}/v1/predict", files=files).json()
        tops = [one["top"] for one in answer["predictions"]]
        yield Served(address, answer["model"]["name"], images, tops)


@pytest.fixture(scope="session")
def alone() -> Path:
    """The folder of packages that cannot be installed with the others."""
    if not (ALONE / "kserve").is_dir():
        pytest.skip(f"{ALONE} is missing: pip install --no-deps --target {ALONE} "
                    "-r tests/interop/alone.txt")  # fmt: skip
    return ALONE
