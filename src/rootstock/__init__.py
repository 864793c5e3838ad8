"""Train an image classifier from a folder of labelled images, and serve it.

The names below are loaded on first use, so `import rootstock` is fast.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from rootstock.system.privacy import switch_telemetry_off

if TYPE_CHECKING:
    from rootstock.api import Model, load, train
    from rootstock.config.load import load_config
    from rootstock.config.paths import Paths
    from rootstock.config.schema import Config
    from rootstock.data.manifest import Manifest
    from rootstock.errors import RootstockError
    from rootstock.model.bundle import ModelBundle, read_bundle
    from rootstock.model.predictor import Predictor

__all__ = [
    "Config",
    "Manifest",
    "Model",
    "ModelBundle",
    "Paths",
    "Predictor",
    "RootstockError",
    "load",
    "load_config",
    "read_bundle",
    "train",
]

_HOMES = {
    "Config": "config.schema",
    "Manifest": "data.manifest",
    "Model": "api",
    "ModelBundle": "model.bundle",
    "Paths": "config.paths",
    "Predictor": "model.predictor",
    "RootstockError": "errors",
    "load": "api",
    "load_config": "config.load",
    "read_bundle": "model.bundle",
    "train": "api",
}

# Before any other import: libraries read these variables when they are loaded.
switch_telemetry_off()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("rootstock-vision")
    if name not in _HOMES:
        raise AttributeError(f"module 'rootstock' has no attribute {name!r}")
    return getattr(import_module(f"rootstock.{_HOMES[name]}"), name)
