"""What can be known before any work, checked before any work."""

from __future__ import annotations

import os
from pathlib import Path

from rootstock.assess.candidates import HUBS
from rootstock.backbones.card import read_card
from rootstock.config.paths import Paths, find_file
from rootstock.config.schema import Config
from rootstock.errors import ArtifactError, BackboneError, ConfigError, DataError


def check_start(config: Config, paths: Paths) -> None:
    """Refuse what a later stage would refuse.

    Raises:
        DataError: the results would be written among the images.
        ArtifactError: the results cannot be written.
        ConfigError: a device is not here.
        BackboneError: the weights file or its card is missing or not complete.
    """
    check_place(paths.below(config.data.root), paths.root)
    _check_writable(paths.root)
    weights = config.backbone.weights
    if weights not in ("embedded", *HUBS):
        read_card(find_file(Path(weights)))
    for key, device in (
        ("features.device", config.features.device),
        ("train.device", config.train.device),
    ):
        _check_device(key, device)


def check_place(root: Path, out: Path) -> None:
    """Refuse to write below the folder of the images: results would become images.

    Raises:
        DataError: ``out`` is in ``root``, or is it.
    """
    if root.is_dir() and out.resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"the results would be written to {out}, which is in the folder of the images, {root}",
            hint="choose a folder outside of it (--out), or move the images to one of their own",
        )


def _check_writable(out: Path) -> None:
    place = out.resolve()
    while not place.exists():
        place = place.parent
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        raise ArtifactError(
            f"nothing can be written to {out}: {place} is "
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
