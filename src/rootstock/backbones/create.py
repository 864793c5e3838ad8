"""Create a network with random weights from the name of its architecture."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterable
from functools import partial
from typing import Any

import timm
from torch import nn

from rootstock.errors import BackboneError

BEYOND_TIMM = {
    "lenet5": "rootstock.backbones.families.classic",
    "zfnet": "rootstock.backbones.families.classic",
    "torchvision/alexnet": "rootstock.backbones.families.torchvision",
    "torchvision/googlenet": "rootstock.backbones.families.torchvision",
    "torchvision/squeezenet1_0": "rootstock.backbones.families.torchvision",
    "torchvision/squeezenet1_1": "rootstock.backbones.families.torchvision",
}
"""Architectures that timm does not have: name -> the module with a function of that name."""
RESERVED = frozenset(
    {
        "cache_dir",
        "checkpoint_path",
        "exportable",
        "features_only",
        "in_chans",
        "no_jit",
        "out_indices",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "pretrained_strict",
        "scriptable",
    }
)
"""Arguments that read files, download weights, or create another kind of network."""
INTERFACE = (
    "forward_features",
    "forward_head",
    "forward_intermediates",
    "feature_info",
    "head_hidden_size",
    "get_classifier",
    "reset_classifier",
)
"""The interface that Rootstock needs from a network."""
# Exceptions that constructors raise for wrong arguments; they check few of them explicitly.
_REFUSALS = (
    TypeError,
    ValueError,
    RuntimeError,
    AttributeError,
    LookupError,
    AssertionError,
    ArithmeticError,
)


def create_module(architecture: str, **kwargs: Any) -> Any:
    """Create a network with random weights: from timm, torchvision (``torchvision/NAME``), or ours.

    ``kwargs`` go to its constructor, including ``num_classes`` (0: no classifier). Transformers
    for which timm has ``dynamic_img_size`` accept images of any size unless it is set to False.

    Raises:
        BackboneError: The name or an argument is unknown or reserved, or the network has no taps.
    """
    require_architecture(architecture)
    _refuse_reserved(architecture, kwargs)
    try:
        module = _constructor(architecture)(**_with_any_size(architecture, kwargs))
    except _REFUSALS as error:
        arguments = {name: value for name, value in kwargs.items() if name != "num_classes"}
        raise BackboneError(
            f"{architecture} cannot be built with {arguments}: {type(error).__name__}: {error}",
            hint=_close_arguments(architecture, kwargs),
        ) from None
    return require_taps(module, architecture)


def create_pretrained(name: str) -> Any:
    """Create a timm network with its weights from the hub.

    Raises:
        BackboneError: The network has no taps.
        OSError or RuntimeError: The hub does not provide the weights.
    """
    kwargs = _with_any_size(name, {})
    return require_taps(timm.create_model(name, pretrained=True, **kwargs), name)


def require_architecture(architecture: str) -> None:
    """Check that `create_module` knows the name.

    Raises:
        BackboneError: The name is unknown.
    """
    if architecture not in BEYOND_TIMM and not timm.is_model(architecture):
        raise BackboneError(
            f"unknown architecture {architecture!r} (timm {timm.__version__}, or "
            f"{', '.join(BEYOND_TIMM)})",
            hint=close_names(architecture, [*BEYOND_TIMM, *timm.list_models()])
            or "list timm's with `python -c 'import timm; print(timm.list_models())'`",
        )


def require_taps(module: nn.Module, architecture: str) -> Any:
    """Return ``module`` if it has the interface for reading taps.

    Raises:
        BackboneError: It does not have the interface.
    """
    missing = [name for name in INTERFACE if not hasattr(module, name)]
    if missing:
        raise BackboneError(
            f"{architecture} of timm {timm.__version__} provides no features at depth: it has no "
            f"{', '.join(missing)}",
            hint="choose another architecture (docs/explanation/backbones.md), or a newer timm",
        )
    return module


def close_names(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean a, b?`` with the nearest known names, or an empty text."""
    close = difflib.get_close_matches(name, list(known), n=3)
    return f"did you mean {', '.join(close)}?" if close else ""


def _constructor(architecture: str) -> Any:
    if architecture in BEYOND_TIMM:
        function = architecture.rpartition("/")[2]
        return getattr(importlib.import_module(BEYOND_TIMM[architecture]), function)
    return partial(timm.create_model, architecture, pretrained=False)


def _refuse_reserved(architecture: str, kwargs: dict[str, Any]) -> None:
    reserved = sorted(RESERVED & kwargs.keys())
    if reserved:
        raise BackboneError(
            f"{architecture} must not get {', '.join(reserved)}: architecture_kwargs change the "
            "network's shape but load nothing",
            hint="remove it from the card",
        )


def _with_any_size(architecture: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Add the arguments for images of any size, which plans choose.

    Positions are then interpolated, and padding fills incomplete patches.
    """
    flexible = {"dynamic_img_size": True, "dynamic_img_pad": True}
    known = _arguments(architecture)
    return {name: value for name, value in flexible.items() if name in known} | kwargs


def _arguments(architecture: str) -> list[str]:
    """Return the constructor's arguments, as far as signatures show them."""
    if architecture in BEYOND_TIMM:
        kinds = [_constructor(architecture)]
    else:
        entrypoint = timm.model_entrypoint(architecture)
        returns = inspect.get_annotations(entrypoint, eval_str=True).get("return")
        kinds = [returns.__init__] if inspect.isclass(returns) else []
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = [
        p.name
        for kind in kinds
        for p in inspect.signature(kind).parameters.values()
        if p.kind in named
    ]
    return [name for name in names if name not in RESERVED | {"self", "device", "dtype"}]


def _close_arguments(architecture: str, kwargs: dict[str, Any]) -> str:
    known = _arguments(architecture)
    guesses = [close_names(name, known) for name in kwargs if name not in known]
    return " ".join(filter(None, guesses)) or f"arguments: {', '.join(known)}" if known else ""
