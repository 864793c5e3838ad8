"""BackboneCard: the description of a weights file, stored next to it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from rootstock.config.choices import Pooling
from rootstock.data.preprocess import Geometry, Preprocess
from rootstock.data.rendering import PLAIN, Rendering
from rootstock.errors import BackboneError
from rootstock.system.files import sha256_file

EXAMPLE_CARD = {
    "architecture": "resnet18",
    "num_classes": 1000,
    "input_size": [3, 224, 224],
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "interpolation": "bicubic",
    "crop_pct": 0.875,
    "pretrained_on": "ImageNet-1k",
    "license": "Apache-2.0",
}


@dataclass(frozen=True)
class Tap:
    """A depth at which features are read; ``stride`` in input pixels, ``channels`` wide."""

    name: str
    stride: int
    channels: int


MAX = "max"


def split_taps(tap: str) -> list[str]:
    """Split ``"block3+last"`` into its taps, shallow to deep: their features are joined."""
    return tap.split("+")


def split_grid(tap: str) -> tuple[str, int]:
    """Split ``"block5@7"`` into a tap and the side of its map's grid; 0 if it has no grid."""
    name, _, grid = tap.partition("@")
    return name, 0 if grid in ("", MAX) else int(grid)


def takes_max(tap: str) -> bool:
    """Return whether a tap such as ``"block5@max"`` gives the maximum of each channel."""
    return tap.endswith(f"@{MAX}")


def pool_tap(depth: str, pooling: Pooling) -> str:
    """Return the tap for a depth, or for depths joined by ``+``, with this pooling.

    Maps stay unchanged.
    """
    ways = {"avg": ("",), "max": (f"@{MAX}",), "both": ("", f"@{MAX}")}[pooling]
    return "+".join(
        f"{one}{way}"
        for one in split_taps(depth)
        for way in (("",) if split_grid(one)[1] else ways)
    )


class SimilarityScale(BaseModel):
    """Turns a mean divergence into a score; see `rootstock.assess.similarity`."""

    model_config = ConfigDict(frozen=True)

    in_domain: float
    scale: float = Field(gt=0)


class BackboneCard(BaseModel):
    """The content of NAME.json next to NAME.safetensors; unknown keys are preserved."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = ""
    architecture: str
    architecture_kwargs: dict[str, JsonValue] = {}
    num_classes: int = Field(ge=0)
    input_size: tuple[int, int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"]
    crop_pct: float = Field(gt=0, le=1)
    pretrained_on: str
    license: str
    weights: str = ""
    weights_sha256: str = ""
    similarity: SimilarityScale | None = None

    @field_validator("architecture_kwargs")
    @classmethod
    def _no_second_num_classes(cls, kwargs: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if "num_classes" in kwargs:
            raise ValueError("num_classes has a separate field")
        return kwargs

    def preprocess(
        self,
        input_size: int | None = None,
        rendering: Rendering = PLAIN,
        geometry: Geometry = "crop",
    ) -> Preprocess:
        """Return how images are prepared for this backbone, at its default or another input size.

        ``rendering`` is that of the images, from the manifest; ``fit`` depends on the task.
        """
        return Preprocess(
            input_size=input_size or self.input_size[1],
            mean=self.mean,
            std=self.std,
            interpolation=self.interpolation,
            crop_pct=self.crop_pct,
            scaled=True,
            rendering=rendering,
            geometry=geometry,
            cut_first=geometry == "crop",
        )


def read_card(weights: Path) -> BackboneCard:
    """Read the card of a .safetensors file: the .json file with the same name.

    Raises:
        BackboneError: The weights or the card are missing, or the card is incomplete.
    """
    if weights.suffix != ".safetensors":
        raise BackboneError(
            f"{weights} is not a .safetensors file",
            hint="other formats can contain code and are never loaded; convert it with the ",
        )
    if not weights.is_file():
        raise BackboneError(
            f"weights file {weights} does not exist",
            hint="set backbone.weights to auto, packaged, hub, or the path of a .safetensors file",
        )
    path = weights.with_suffix(".json")
    try:
        fields = json.loads(path.read_bytes())
        fields |= {"name": weights.stem, "weights": str(weights)}
        return BackboneCard.model_validate(fields | {"weights_sha256": sha256_file(weights)})
    except FileNotFoundError:
        raise BackboneError(
            f"{weights} has no card: {path} is missing",
            hint=f"create one such as {json.dumps(EXAMPLE_CARD)}",
        ) from None
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
        )
        raise BackboneError(f"the card {path} is incomplete: {problems}") from None
    except (ValueError, TypeError) as error:
        raise BackboneError(f"the card {path} is not a JSON object: {error}") from None
