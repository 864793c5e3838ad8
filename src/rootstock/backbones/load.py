"""Load a Backbone, which gives features at any tap, from a card or a hub name."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rootstock.backbones.card import (
    BackboneCard,
    Tap,
    read_card,
    split_grid,
    split_taps,
    takes_max,
)
from rootstock.backbones.create import create_module
from rootstock.backbones.device import pick_device
from rootstock.backbones.hub import load_from_hub
from rootstock.backbones.packaged import packaged_weights, resolve_weights
from rootstock.backbones.published import load_from_torchvision
from rootstock.backbones.tap_features import TapFeatures, TapPart
from rootstock.config.paths import find_file
from rootstock.errors import BackboneError
from rootstock.system.malloc import keep_freed_memory

LAST = "last"
"""The deepest tap: pooled features as the original classifier sees them."""


class Backbone:
    """A pretrained network in eval mode, with its card and taps, shallow to deep."""

    def __init__(self, card: BackboneCard, module: nn.Module) -> None:
        self.card = card
        self.module: Any = module.eval()
        self.taps = _list_taps(module)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.module.parameters()).device

    @property
    def tap_names(self) -> list[str]:
        """Names of the taps, shallow to deep; the last one is ``last``."""
        return [tap.name for tap in self.taps]

    @cached_property
    @torch.inference_mode()
    def _last_is_mean(self) -> bool:
        """Whether the last features are means of one map each."""
        side = self.card.input_size[-1]
        final = self.module.forward_features(torch.zeros(1, 3, side, side, device=self.device))
        if final.ndim != 4 or final.shape[1] != self.taps[-1].channels:
            return False
        last = self.module.forward_head(final, pre_logits=True)
        return torch.allclose(last, final.mean(dim=(2, 3)), atol=1e-3)

    @torch.inference_mode()
    def features(self, images: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """Return features float32[N,C] per tap of prepared images float32[N,3,S,S], in one pass.

        Features of taps joined by ``+`` are joined along C. ``block5@7`` is a tap's map on a grid
        of 7 x 7, flattened, and ``block5@max`` the maximum of each of its channels.

        Raises:
            BackboneError: There is no such tap.
        """
        single = list(dict.fromkeys(one for tap in taps for one in split_taps(tap)))
        single.sort(key=self.tap_index)
        joined = self._tap_features(self.module, single)(images)
        parts = joined.split([self.width(name) for name in single], dim=1)
        features = dict(zip(single, parts, strict=True))
        return {
            tap: torch.cat([features[name] for name in split_taps(tap)], dim=1).float()
            for tap in taps
        }

    def require_size(self, input_size: int) -> None:
        """Check that the network can read images of this side in pixels.

        Raises:
            BackboneError: It cannot, usually because they are too small for its pooling.
        """
        try:
            self.features(torch.zeros(1, 3, input_size, input_size, device=self.device), [LAST])
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError) as error:
            raise BackboneError(
                f"{self.card.name} cannot read images of {input_size} x {input_size} pixels: "
                f"{str(error).splitlines()[0]}",
                hint=f"set plan.input_size; its default size is {self.card.input_size[-1]}",
            ) from None

    def feature_module(self, tap: str) -> nn.Module:
        """Return a copy whose forward gives [N,C] of a tap, or of taps joined by ``+``."""
        module = copy.deepcopy(self.module)
        module.reset_classifier(0)
        return self._tap_features(module, split_taps(tap))

    def _tap_features(self, module: nn.Module, names: Sequence[str]) -> TapFeatures:
        return TapFeatures(module, self.parts("+".join(names)))

    def parts(self, tap: str) -> tuple[TapPart, ...]:
        """Return the composition of the features of a tap, or of taps joined by ``+``."""
        parts = []
        for one in split_taps(tap):
            index, (name, grid) = self.tap_index(one), split_grid(one)
            position = None if name == LAST else index
            parts.append(TapPart(self.taps[index].channels, grid, position, takes_max(one)))
        return tuple(parts)

    def width(self, tap: str) -> int:
        """Return C of the features [N,C] of a tap, or of taps joined by ``+``."""
        return sum(part.width for part in self.parts(tap))

    def tap_index(self, tap: str) -> int:
        """Return the position of a tap.

        Raises:
            BackboneError: There is no such tap.
        """
        name, grid = split_grid(tap)
        if name not in self.tap_names or (grid and name == LAST):
            raise BackboneError(
                f"{self.card.name} has no tap {tap!r}", hint=f"taps: {', '.join(self.tap_names)}"
            )
        if name == LAST and takes_max(tap) and not self._last_is_mean:
            raise BackboneError(
                f"the last features of {self.card.name} are not means of maps, so they have no "
                "maximum",
                hint="set features.pooling to avg",
            )
        return self.tap_names.index(name)


def load_backbone(weights: str, name: str, *, device: str = "cpu") -> Backbone:
    """Load pretrained weights: ``packaged``, ``hub``, or ``torchvision`` (of ``name``), or a file.

    ``auto`` is ``packaged`` if the package of ``name`` is installed, otherwise ``hub``.

    Raises:
        BackboneError: The file, its card, or the name is wrong.
        WeightsUnavailable: The package is missing, or the hub does not answer within ten seconds.
    """
    keep_freed_memory()  # everything that computes with a backbone calls this
    weights = resolve_weights(weights, name)
    if weights == "hub":
        card, module = load_from_hub(name)
    elif weights == "torchvision":
        card, module = load_from_torchvision(name)
    else:
        path = packaged_weights(name) if weights == "packaged" else find_file(Path(weights))
        card = read_card(path).model_copy(update={"weights": weights})
        module = build_module(card)
        _load_weights(module, path)
    return Backbone(card, module.to(pick_device(device)))


def build_backbone(card: BackboneCard, *, device: str = "cpu") -> Backbone:
    """Build the card's architecture with random weights; weights are loaded afterwards."""
    return Backbone(card, build_module(card).to(device))


def build_module(card: BackboneCard) -> nn.Module:
    """Build the network of a card with random weights.

    Raises:
        BackboneError: There is no such architecture, or it rejects its arguments.
    """
    return create_module(
        card.architecture, **{"num_classes": card.num_classes} | card.architecture_kwargs
    )


def _load_weights(module: nn.Module, path: Path) -> None:
    try:
        state = {name: value.float() for name, value in load_file(path).items()}
        # BatchNorm's counters are integers and not needed in eval mode.
        module.load_state_dict({**_counters(module), **state}, strict=True)
    except SafetensorError as error:
        raise BackboneError(f"{path} is not a safetensors file: {error}") from None
    except RuntimeError as error:
        first = [line.strip() for line in str(error).splitlines()[1:3]]
        raise BackboneError(
            f"{path} does not fit the architecture of its card: {' '.join(first)}",
            hint="check architecture, architecture_kwargs and num_classes in the card",
        ) from None


def _counters(module: nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in module.state_dict().items() if k.endswith("num_batches_tracked")}


def _list_taps(module: Any) -> list[Tap]:
    infos = list(module.feature_info)
    taps = [
        Tap(f"block{number}", int(info["reduction"]), int(info["num_chs"]))
        for number, info in enumerate(infos, start=1)
    ]
    return [*taps, Tap(LAST, int(infos[-1]["reduction"]), int(module.head_hidden_size))]
