"""What can be known before any work, checked before any work."""

from __future__ import annotations

from pathlib import Path

from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.errors import BackboneError, ConfigError, DataError


def check_start(config: Config, paths: Paths | None) -> None:
    """Refuse what a later stage would refuse: the place of the results, a device that is not here.

    ``paths``: None if the results are not kept.
    Raises:
        DataError: the results would be written among the images.
        ConfigError: a device is not here.
    """
    if paths:
        check_place(paths.below(config.data.root), paths.root)
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


def _check_device(key: str, device: str) -> None:
    if device in ("auto", "cpu"):
        return  # without torch, whose import takes a second
    from rootstock.backbones.device import pick_device

    try:
        pick_device(device)
    except BackboneError as error:
        raise ConfigError(f"{key}: {error.message}", hint=error.hint) from None
