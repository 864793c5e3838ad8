"""Pretrained timm weights from the Hugging Face hub, or an error within seconds."""

from __future__ import annotations

import hashlib
import os
import threading
import urllib.request
from typing import Any

import timm
from torch import nn

from rootstock.backbones.card import BackboneCard
from rootstock.backbones.create import BEYOND_TIMM, close_names, create_pretrained
from rootstock.errors import BackboneError, WeightsUnavailable

HUB_TIMEOUT_SECONDS = 8.0


def load_from_hub(name: str) -> tuple[BackboneCard, nn.Module]:
    """Load the timm model ``name`` with its pretrained weights, and create its card.

    Raises:
        BackboneError: timm has no such model, or no weights for it.
        WeightsUnavailable: The hub does not answer within ten seconds.
    """
    if name in BEYOND_TIMM:
        raise BackboneError(
            f"the hub has no weights for {name}",
            hint="set backbone.weights to a .safetensors file (docs/explanation/backbones.md)",
        )
    if not timm.is_model(name):
        raise BackboneError(
            f"timm has no model {name!r}", hint=close_names(name, timm.list_models())
        )
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise BackboneError(f"timm has no pretrained weights for {name!r}")
    if not _is_cached(config.hf_hub_id):
        _require_hub(name)
    try:
        module = create_pretrained(name)
    except (OSError, RuntimeError) as error:
        raise unavailable(name, str(error).splitlines()[0]) from None
    card = BackboneCard(
        name=name,
        architecture=name,
        num_classes=config.num_classes,
        input_size=config.input_size,
        mean=config.mean,
        std=config.std,
        interpolation="bilinear" if config.interpolation == "bilinear" else "bicubic",
        crop_pct=config.crop_pct,
        pretrained_on=config.tag or "unknown",
        license=config.license or "unknown",
        weights="hub",
        weights_sha256=hash_state(module.state_dict()),
    )
    return card, module


def _is_cached(hub_id: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(hub_id or "", "model.safetensors"), str)


def _require_hub(name: str) -> None:
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "True"):
        raise unavailable(name, "HF_HUB_OFFLINE is set and the weights are not in the cache")
    require_answer(endpoint, name)


def require_answer(endpoint: str, name: str) -> None:
    """Contact a server briefly first: hub clients would try for most of a minute.

    Raises:
        WeightsUnavailable: It does not answer within ten seconds.
    """
    answers: list[str] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(endpoint, timeout=HUB_TIMEOUT_SECONDS).close()
            answers.append("")
        except OSError as error:
            answers.append(str(error))

    # A thread, because a name lookup has no time limit.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_TIMEOUT_SECONDS)
    problem = answers[0] if answers else f"no answer within {HUB_TIMEOUT_SECONDS:g} seconds"
    if problem:
        raise unavailable(name, f"{endpoint}: {problem}")


def unavailable(name: str, why: str) -> WeightsUnavailable:
    """Return the error for weights that cannot be downloaded."""
    return WeightsUnavailable(
        f"cannot download the pretrained weights of {name} ({why})",
        hint="set backbone.weights to `packaged` and backbone.name to tf_efficientnet_lite0, or "
        "backbone.weights to a .safetensors file with its card NAME.json next to it",
    )


def hash_state(state: dict[str, Any]) -> str:
    """Return the SHA-256 of all values of a state, by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
