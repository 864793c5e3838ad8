"""Environments with exactly the packages that a list of requirements needs, made in seconds.

Nothing is downloaded: the files of each package are links into the running environment.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements_of(*extras: str) -> list[str]:
    """The distribution's requirements, and those of each extra."""
    lines = [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    return [*PROJECT["dependencies"], *lines]


def closure(requirements: Iterable[str]) -> dict[str, importlib.metadata.Distribution]:
    """Return the installed distributions that the requirements need, by name.

    Raises:
        PackageNotFoundError: A distribution is not installed here.
    """
    found: dict[str, importlib.metadata.Distribution] = {}
    done: set[tuple[str, frozenset[str]]] = set()
    waiting = [(Requirement(line), "") for line in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in done:
            continue
        done.add((name, extras))
        found[name] = distribution = importlib.metadata.distribution(name)
        needs = [Requirement(line) for line in distribution.requires or ()]
        waiting += [(need, wanted) for need in needs for wanted in ("", *extras)]
    return found


def make_environment(folder: Path, requirements: Iterable[str], wheel: Path | None = None) -> Path:
    """Create an environment with the requirements and a wheel; return its folder of programs."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    scheme = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    for name, source in linked_files(closure(requirements)).items():
        target = packages / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)
    if wheel is not None:
        pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--quiet"]
        subprocess.run([*pip, "--no-deps", "--no-index", wheel], check=True, env=clean_variables())
    return folder / "bin"


def linked_files(wanted: dict[str, importlib.metadata.Distribution]) -> dict[Path, Path]:
    """Return what to link, by location: whole folders, or files of shared folders."""
    links: dict[Path, Path] = {}
    for name, distribution in wanted.items():
        for top in _tops()[name]:
            owners = {other for other, tops in _tops().items() if top in tops}
            places = [Path(top)]
            if not owners <= wanted.keys():
                places = [Path(file) for file in distribution.files or () if file.parts[0] == top]
            links |= {place: Path(str(distribution.locate_file(place))) for place in places}
    return links


@functools.cache
def _tops() -> dict[str, set[str]]:
    """Return the top-level content of each installed distribution in site-packages, by name."""
    found = {}
    for distribution in importlib.metadata.distributions():
        lines = (distribution.read_text("RECORD") or "").splitlines()
        tops = {re.split("[/,]", line, maxsplit=1)[0] for line in lines} - {"..", "__pycache__"}
        found[canonicalize_name(distribution.metadata["Name"])] = tops
    return found


def clean_variables() -> dict[str, str]:
    """Return this process's variables without those that point to other code or servers."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "ROOTSTOCK_", "MLFLOW_", "RAY_", "OTEL_"))
    }
