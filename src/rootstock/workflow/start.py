"""Check everything that can be checked before any work starts."""

from __future__ import annotations

import os
from pathlib import Path

from rootstock.assess.candidates import NAMED
from rootstock.backbones.card import BackboneCard, read_card
from rootstock.backbones.licence import require_commercial_use
from rootstock.backbones.packaged import packaged_weights, resolve_weights
from rootstock.config.paths import Paths, find_file
from rootstock.config.schema import BackboneConfig, Config
from rootstock.errors import ArtifactError, BackboneError, ConfigError, DataError


def check_start(config: Config, paths: Paths) -> None:
    """Refuse at the start what a later stage would refuse.

    Raises:
        DataError: the results would be written among the images.
        ArtifactError: the results cannot be written.
        ConfigError: a device is not available.
        BackboneError: the weights or their card are missing or incomplete, or the licence is not
          known to allow commercial use although it is required.
    """
    check_place(paths.below(config.data.root), paths.root)
    _check_writable(paths.root)
    card = read_configured_card(config.backbone)
    if card and config.backbone.require_commercial:
        require_commercial_use(card.name, card.license)
    for key, device in (
        ("features.device", config.features.device),
        ("train.device", config.train.device),
    ):
        _check_device(key, device)


def read_configured_card(backbone: BackboneConfig) -> BackboneCard | None:
    """Return the card of the configured weights; None if they come from a hub.

    Raises:
        BackboneError: the weights or their card are missing or incomplete.
    """
    weights = resolve_weights(backbone.weights, backbone.name)
    if weights == "packaged":
        return read_card(packaged_weights(backbone.name))
    return None if weights in NAMED else read_card(find_file(Path(weights)))


def check_place(root: Path, out: Path) -> None:
    """Refuse an output folder below the images: results would become images.

    Raises:
        DataError: ``out`` is ``root``, or is in it.
    """
    if root.is_dir() and out.resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"the output folder {out} is inside the folder of the images, {root}",
            hint="choose another output folder (--out), or move the images to a subfolder",
        )


def _check_writable(out: Path) -> None:
    place = out.resolve()
    while not place.exists():
        place = place.parent
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        raise ArtifactError(
            f"cannot write to {out}: {place} is "
            f"{'not writable for you' if place.is_dir() else 'a file'}",
            hint="choose another folder (--out), or check the folder's permissions",
        )


def _check_device(key: str, device: str) -> None:
    if device in ("auto", "cpu"):
        return  # without torch, whose import takes a second
    from rootstock.backbones.device import pick_device

    try:
        pick_device(device)
    except BackboneError as error:
        raise ConfigError(f"{key}: {error.message}", hint=error.hint) from None
