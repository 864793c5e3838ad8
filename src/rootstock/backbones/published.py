"""Weights that torchvision publishes for networks that neither timm nor its hub has."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import nn

from rootstock.backbones.card import BackboneCard
from rootstock.backbones.create import BEYOND_TIMM, create_module
from rootstock.backbones.hub import hash_state, require_answer, unavailable
from rootstock.errors import BackboneError
from rootstock.system.files import sha256_file

PREFIX = "torchvision/"
TO_PLUS_MINUS_ONE = (0.5, 0.5, 0.5)
"""Mean and std for pixels in [-1, 1], which GoogLeNet's weights expect."""


def load_from_torchvision(name: str) -> tuple[BackboneCard, nn.Module]:
    """Load a network with the weights that torchvision publishes, and create its card.

    ``name`` is torchvision's name, such as ``alexnet``, or an architecture of the same kind, such
    as ``torchvision/alexnet``. The file is stored in torch's download folder (TORCH_HOME).

    Raises:
        BackboneError: torchvision has no such network here, or the file is damaged.
        WeightsUnavailable: The server does not answer within ten seconds.
    """
    short = name.removeprefix(PREFIX)
    architecture = PREFIX + short
    known = [one.removeprefix(PREFIX) for one in BEYOND_TIMM if one.startswith(PREFIX)]
    if short not in known:
        raise BackboneError(
            f"backbone.weights is torchvision, but backbone.name is {name!r}",
            hint=f"use one of {', '.join(known)}; timm's hub has the others (weights: hub)",
        )
    url, transforms = find_weights(short)
    state = _read_state(_fetch(url, short))
    module = create_module(architecture, num_classes=1000)
    # Without GoogLeNet's auxiliary classifiers.
    kept = {key: value for key, value in state.items() if not key.startswith("aux")}
    try:
        module.load_state_dict(kept, strict=True)
    except RuntimeError as error:
        raise BackboneError(
            f"{url} does not fit {architecture}: {str(error).splitlines()[0]}"
        ) from None
    size = transforms.crop_size[0]
    plus_minus_one = short == "googlenet"
    card = BackboneCard(
        name=architecture,
        architecture=architecture,
        num_classes=1000,
        input_size=(3, size, size),
        mean=TO_PLUS_MINUS_ONE if plus_minus_one else tuple(transforms.mean),
        std=TO_PLUS_MINUS_ONE if plus_minus_one else tuple(transforms.std),
        interpolation="bilinear",
        crop_pct=size / transforms.resize_size[0],
        pretrained_on="ImageNet-1k",
        license="BSD-3-Clause",
        weights="torchvision",
        weights_sha256=hash_state(module.state_dict()),
    )
    return card, module


def find_weights(short: str) -> tuple[str, Any]:
    """Return the URL of the weights, and how torchvision prepares images for them."""
    from torchvision.models import get_model_weights

    weights = get_model_weights(short).DEFAULT
    return weights.url, weights.transforms()


def _fetch(url: str, short: str) -> Path:
    """Return the file, downloading it if necessary; its name holds the start of its hash."""
    name = PurePosixPath(urlsplit(url).path).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        require_answer(url, short)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except OSError as error:
            raise unavailable(short, str(error)) from None
    match = re.search(r"-([0-9a-f]{8,})\.", name)
    if not match or not sha256_file(path).startswith(match[1]):
        raise BackboneError(f"{path} is damaged: its hash is not in its name", hint="remove it")
    return path


def _read_state(path: Path) -> dict[str, Any]:
    # torch's own file format: weights_only reads tensors and runs no code.
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return {
        key: value.float() if value.is_floating_point() else value for key, value in state.items()
    }
