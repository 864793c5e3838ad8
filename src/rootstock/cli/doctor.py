"""The checks of `rootstock doctor`: each finding is a verdict, a name and a detail."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import NamedTuple

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.config.schema import BackboneConfig
from rootstock.errors import RootstockError, TrackingError, TrainingError
from rootstock.system.cpu import usable_cores
from rootstock.workflow.start import check_start

EXTRAS = {
    "torch": "train",
    "torchvision": "train",
    "timm": "train",
    "onnxruntime": "serve",
    "mlflow": "train",
    "ray": "train",
    "dvc": "train",
    "fastapi": "serve",
}
"""The extra of rootstock-vision that installs each package."""
LITTLE_DISK = 5 * 2**30


class Finding(NamedTuple):
    """The result of one check; ``verdict`` is ok, warn or fail."""

    verdict: str
    name: str
    detail: str


def examine(paths: Paths) -> list[Finding]:
    """Check Python, packages, processor, GPU, disk, parameters, tracking and Ray."""
    return [
        _python(),
        *_packages(),
        _processor(),
        _gpu(),
        _disk(paths),
        *_parameters(paths),
        *_dvc_cache(paths),
        *_services(paths),
    ]


def _python() -> Finding:
    version = sys.version.split()[0]
    return Finding("ok" if sys.version_info >= (3, 11) else "fail", "python", version)


def _packages() -> Iterator[Finding]:
    for name, extra in EXTRAS.items():
        try:
            yield Finding("ok", name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding("warn", name, f"not installed: pip install 'rootstock-vision[{extra}]'")


def _processor() -> Finding:
    return Finding("ok", "cores", f"{usable_cores()} available to this process")


def _gpu() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("warn", "gpu", "unknown, because torch is not installed")
    import torch

    if not torch.cuda.is_available():
        return Finding(
            "ok", "gpu", "none; everything runs on the processor, and fine-tuning is slow"
        )
    return Finding("ok", "gpu", torch.cuda.get_device_name())


def _disk(paths: Paths) -> Finding:
    free = shutil.disk_usage(paths.root).free
    return Finding(
        "ok" if free > LITTLE_DISK else "warn", "disk", f"{free / 2**30:.0f} GiB free here"
    )


def _parameters(paths: Paths) -> Iterator[Finding]:
    params = paths.root / "params.yaml"
    if not params.exists():
        yield Finding("warn", "params.yaml", "not in this folder, so commands use the defaults")
        return
    try:
        config = load_config(params)
    except RootstockError as error:
        yield Finding("fail", "params.yaml", str(error))
        return
    yield Finding("ok", "params.yaml", "every key and value is valid")
    root = paths.below(config.data.root)
    found = root.exists()
    yield Finding("ok" if found else "warn", "data.root", f"{root}{'' if found else ' is missing'}")
    if importlib.util.find_spec("torch") is not None:
        yield _backbone(config.backbone)
    try:
        check_start(config, paths)
    except RootstockError as error:
        yield Finding("fail", "settings", str(error))


def _dvc_cache(paths: Paths) -> Iterator[Finding]:
    """Check where DVC keeps pickles; its default folder is writable by every user."""
    if not (paths.root / ".dvc").is_dir():
        return
    folder = os.environ.get("DVC_SITE_CACHE_DIR", "")
    for name in ("config.local", "config"):
        settings = ConfigParser(interpolation=None)
        settings.read(paths.root / ".dvc" / name, encoding="utf-8")
        folder = folder or settings.get("core", "site_cache_dir", fallback="")
    place = Path(folder or "/var/tmp/dvc")
    if place.is_dir() and not place.stat().st_mode & stat.S_IWOTH:
        yield Finding("ok", "dvc cache", f"{place}, not writable by other users")
        return
    own = '"$HOME/.cache/rootstock-dvc"'
    yield Finding(
        "warn",
        "dvc cache",
        f"other users can write to {place}; run: mkdir -p -m 700 {own} && "
        f"dvc config --local core.site_cache_dir {own}",
    )


def _backbone(chosen: BackboneConfig) -> Finding:
    from rootstock.backbones.licence import describe_licence
    from rootstock.workflow.start import read_configured_card

    try:
        card = read_configured_card(chosen)
    except RootstockError as error:
        return Finding("fail", "backbone", str(error))
    if card is None:
        return Finding("warn", "backbone", f"{chosen.name}, downloaded from the hub on first use")
    return Finding("ok", "backbone", f"{card.name}, {describe_licence(card.license)}")


def _services(paths: Paths) -> Iterator[Finding]:
    """Check MLflow and Ray, if they are installed; create nothing."""
    if importlib.util.find_spec("mlflow") is not None:
        yield _tracking(paths)
    if importlib.util.find_spec("ray") is not None:
        yield _cluster(os.environ.get("RAY_ADDRESS", ""))


def _tracking(paths: Paths) -> Finding:
    from rootstock.integrations.connect import tracking_uri
    from rootstock.integrations.mlflow.client import probe, redact, translated
    from rootstock.integrations.mlflow.database import sqlite_file
    from rootstock.integrations.mlflow.places import bring_home

    uri = tracking_uri(paths)
    database = sqlite_file(uri)
    if database is not None and not database.is_file():
        return Finding("ok", "tracking", f"{database} does not exist yet; the first run creates it")
    try:
        probe(uri)
        if database is not None:
            with translated(uri, "look for the files of the runs"):
                if bring_home(database):
                    return Finding(
                        "ok",
                        "tracking",
                        f"{uri} answers; the project was moved, and the addresses in it are now "
                        "corrected",
                    )
    except TrackingError as error:
        return Finding("fail", "tracking", str(error))
    return Finding("ok", "tracking", f"{redact(uri, uri)} answers")


def _cluster(address: str) -> Finding:
    from rootstock.integrations.ray.cluster import probe

    if address in ("", "local"):
        return Finding(
            "ok", "ray cluster", "RAY_ADDRESS is not set; runs start Ray on this machine"
        )
    try:
        probe(address)
    except TrainingError as error:
        return Finding("fail", "ray cluster", str(error))
    return Finding("ok", "ray cluster", f"{address} answers")
