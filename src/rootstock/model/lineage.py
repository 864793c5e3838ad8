"""Where a model comes from: what is written down at training, and what that leaves open."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LIBRARIES = (
    "rootstock", "torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "pillow",
    "pyarrow", "safetensors", "onnx", "onnxscript", "onnxruntime", "ray", "dvc", "mlflow",
)  # fmt: skip
DISTRIBUTIONS = {"rootstock": "rootstock-vision"}
"""Libraries that the package index knows by another name."""
CHANGES = "+changes"
KEPT_IN_LINEAGE = ("params.yaml", "dvc.lock")
"""Files whose uncommitted changes do no harm: what they say is written down with the model."""


def trace(
    params: Mapping[str, Any],
    root: Path,
    *,
    data_hash: str,
    plan_hash: str,
    weights_sha256: str,
) -> dict[str, Any]:
    """Return what leads back from a model to what it was made of.

    ``params`` are all settings as JSON holds them; ``root`` is the project's folder.
    """
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "data_hash": data_hash,
        "plan_hash": plan_hash,
        "weights_sha256": weights_sha256,
        "seed": params["seed"],
        "git_commit": _git("describe", "--always", "--abbrev=40", f"--dirty={CHANGES}").strip(),
        "git_changes": sorted(line[3:] for line in changed.splitlines()),
        "data_dvc": _read_dvc_file(Path(params["data"]["root"]), root),
        "params": shareable(params),
        "libraries": trace_libraries(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def experiment() -> str:
    """The name under which `dvc exp run` keeps this run; empty outside of an experiment."""
    return os.environ.get("DVC_EXP_NAME", "")


def find_commit() -> str:
    """Return the git commit of the current folder; empty if there is none."""
    return _git("rev-parse", "HEAD").strip()


def trace_libraries() -> dict[str, str]:
    """The versions of the libraries that are installed here."""
    return {name: _version(name) for name in LIBRARIES if _version(name)}


def shareable(params: Any) -> Any:
    """``params`` with absolute paths cut to their last part: the rest is nobody's business."""
    if isinstance(params, Mapping):
        return {key: shareable(value) for key, value in params.items()}
    if isinstance(params, str) and Path(params).is_absolute():
        return f".../{Path(params).name}"
    return params


def open_ends(lineage: Mapping[str, Any]) -> list[str]:
    """What stands in the way of making the model again, in plain words; empty: nothing known."""
    found = []
    commit = str(lineage.get("git_commit", ""))
    if not commit:
        found.append("the git commit is not recorded: the training did not run in a repository")
    code = [name for name in lineage.get("git_changes", ()) if not _harmless(name)]
    if code:
        found.append(
            f"files differed from the commit when it was trained: {', '.join(code)}; "
            "what they held is not recorded"
        )
    elif commit.endswith(CHANGES) and "git_changes" not in lineage:
        found.append("files differed from the commit when it was trained; which is not recorded")
    if "params" not in lineage:
        found.append("the parameters are not recorded: an older Rootstock made it")
    for key, value in _cut_paths(lineage.get("params", {})):
        found.append(f"{key} was the absolute path {value}: put the files there, and name them")
    if not lineage.get("data_dvc"):
        found.append(
            "the images were not versioned by DVC: they have to be put in place by hand; the data "
            "hash tells whether they are the same"
        )
    return found


def _harmless(name: str) -> bool:
    return name in KEPT_IN_LINEAGE or name.endswith(".dvc")


def _cut_paths(params: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(params, Mapping):
        return [
            pair for key, value in params.items() for pair in _cut_paths(value, f"{prefix}{key}.")
        ]
    if isinstance(params, str) and params.startswith(".../"):
        return [(prefix.rstrip("."), params)]
    return []


def _read_dvc_file(data: Path, root: Path) -> str:
    """The text of DATA.dvc, which names the images by their checksum; empty where none is."""
    if data.is_absolute():
        return ""
    file = root / data.parent / f"{data.name}.dvc"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(DISTRIBUTIONS.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        return ""


def _git(*arguments: str) -> str:
    """What git says of the current folder; empty where there is no repository."""
    try:
        found = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout if found.returncode == 0 else ""
