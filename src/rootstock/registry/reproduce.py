"""Reproduce a registered model: the commands, the obstacles, and the check."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from rootstock.config.paths import Paths
from rootstock.data.manifest import Manifest
from rootstock.errors import RootstockError
from rootstock.model.lineage import CHANGES, LIBRARIES, open_ends, trace_libraries
from rootstock.plan.transfer_plan import TransferPlan
from rootstock.system.files import sha256_file

DVC_CACHE = Path(".dvc/cache")
LAST_MANIFEST = Paths(Path()).last_manifest
"""The file in which the index looks for earlier splits."""


@dataclass(frozen=True)
class Recipe:
    """The commands that reproduce a version, in order, and the obstacles."""

    version: str
    folder: Path
    commands: tuple[str, ...]
    missing: tuple[str, ...]
    params: str
    """The original params.yaml; empty if it is not recorded."""
    data: str
    """The .dvc file of the images; empty if they were not versioned."""


def make_recipe(lineage: Mapping[str, Any], *, version: str, folder: Path, project: Path) -> Recipe:
    """Return the commands that reproduce a version in ``folder``, to run in ``project``."""
    _refuse_escapes(lineage)
    commit = _commit(lineage)
    root, images = _images_root(lineage), shlex.quote(str(_images_root(lineage)))
    recorded = lineage.get("data_dvc", "")
    here = shlex.quote(str(folder))
    if commit:
        commands = [f"git clone . {here}", f"git -C {here} checkout {commit}"]
    else:
        commands = [f"mkdir -p {here}/data    # then copy the project's code into it, see below"]
    if "params" in lineage:
        commands.append(f"rootstock reproduce {version} --params > {here}/params.yaml")
    missing = open_ends(lineage)
    for file in _uncommitted_files(lineage, project):
        if (project / file).is_file():
            parent, name = shlex.quote(str(file.parent)), shlex.quote(str(file))
            commands.append(f"mkdir -p {here}/{parent} && cp {name} {here}/{name}")
        else:
            missing.append(f"{file} is neither in the commit nor here: copy it to {folder}")
    last = Paths(project).manifest
    if last.is_file():
        commands.append(f"mkdir -p {here}/.rootstock")
        commands.append(
            f"cp {last.relative_to(project)} {here}/{LAST_MANIFEST}    # the old images' splits"
        )
    inside = [f"cd {here}", "make setup", "source .venv/bin/activate"]
    if recorded:
        data = shlex.quote(f"{root}.dvc")
        commands.append(f"mkdir -p {here}/{shlex.quote(str(root.parent))}")
        commands.append(f"rootstock reproduce {version} --data > {here}/{data}")
        # The remote may have been added after the commit; the project's cache needs no remote.
        commands += [f"cp {file} {here}/{file}" for file in _dvc_settings(project)]
        inside.append(f"dvc cache dir --local {shlex.quote(str(project.resolve() / DVC_CACHE))}")
        inside.append(f"(dvc checkout {data} || dvc pull {data})")
    else:
        commands.append(f"mkdir -p {here}/{shlex.quote(str(root.parent))}")
        commands.append(f"cp -r {images} {here}/{images}    # the same images, see below")
    # The project's registry must not get the runs of a reproduction.
    inside.append("env -u MLFLOW_TRACKING_URI dvc repro --force evaluate")
    commands += [f"({' && '.join(inside)})", f"rootstock reproduce {version} --check {here}"]
    params = yaml.safe_dump(lineage["params"], sort_keys=False) if "params" in lineage else ""
    return Recipe(version, folder, tuple(commands), tuple(missing), params, recorded)


def check_folder(lineage: Mapping[str, Any], weights: Path, folder: Path) -> list[tuple[str, bool]]:
    """Return whether data, plan and weights in ``folder`` are those of the version.

    ``weights`` is the version's own model.safetensors. Weights may differ between machines and
    versions of torch, even if everything before them is the same.
    Raises:
        RootstockError: the folder contains no model.
    """
    paths = Paths(folder)
    if not (paths.model / weights.name).is_file():
        raise RootstockError(
            f"{folder} contains no model: {paths.model / weights.name} does not exist",
            hint="run the commands that `rootstock reproduce VERSION` prints, then check",
        )
    return [
        ("data hash", Manifest.read(paths.manifest).content_hash == lineage.get("data_hash")),
        ("plan hash", TransferPlan.read(paths.plan).hash == lineage.get("plan_hash")),
        (
            "weights, byte for byte",
            sha256_file(paths.model / weights.name) == sha256_file(weights),
        ),
    ]


def other_libraries(lineage: Mapping[str, Any]) -> list[str]:
    """Return libraries with another version than at training, as 'torch 2.15 (was 2.11)'."""
    now, then = trace_libraries(), lineage.get("libraries", {})
    return [
        f"{name} {now.get(name, 'none')} (was {then[name]})"
        for name in LIBRARIES
        if name in then and now.get(name) != then[name]
    ]


def run_recipe(lineage: Mapping[str, Any], recipe: Recipe, project: Path) -> None:
    """Run the recipe with this Python; nothing is registered, and the registry is not used.

    Images come from the project's DVC cache or remote, or from the project's own folder if DVC
    does not version them.
    Raises:
        RootstockError: the folder exists, code or images are missing, or a command fails.
    """
    folder, commit = recipe.folder, _commit(lineage)
    if folder.exists():
        raise RootstockError(f"{folder} exists already", hint="name another one with --folder")
    if not commit:
        raise RootstockError(
            f"version {recipe.version} cannot be reproduced: {recipe.missing[0]}",
            hint="`rootstock reproduce VERSION` without --run shows the recorded facts",
        )
    if not _has_commit(project, commit):
        raise RootstockError(
            f"there is no commit {commit} in {project}",
            hint="run this in the project's folder; `git fetch --all` may fetch the commit",
        )
    if not recipe.data:
        _own_images(lineage, project)
    _run(["git", "clone", "--quiet", str(project), str(folder)], project)
    _run(["git", "checkout", "--quiet", commit], folder)
    if recipe.params:
        (folder / "params.yaml").write_text(recipe.params, encoding="utf-8")
    for file in _uncommitted_files(lineage, project):
        if (project / file).is_file():
            _copy(project / file, folder / file)
    if Paths(project).manifest.is_file():
        _copy(Paths(project).manifest, folder / LAST_MANIFEST)
    _fetch_images(recipe.data, lineage, project, folder)
    _run([sys.executable, "-m", "dvc", "repro", "--force", "evaluate"], folder)


def _refuse_escapes(lineage: Mapping[str, Any]) -> None:
    """Refuse a model that would write files outside of the folder, or pass options to git.

    Raises:
        RootstockError: names the faulty value.
    """
    commit = _commit(lineage)
    if commit and not re.fullmatch(r"[\w.][\w./+-]*", commit):
        raise RootstockError(f"the model's commit {commit!r} is not a valid commit")
    backbone = lineage.get("params", {}).get("backbone", {})
    named = [
        _images_root(lineage),
        backbone.get("weights", ""),
        *(backbone.get("candidates") or ()),
    ]
    for path in map(PurePosixPath, map(str, named)):
        if ".." in path.parts or str(path).startswith("-"):
            raise RootstockError(
                f"the model names the file {str(path)!r}, which is outside of its project"
            )
    if recorded := lineage.get("data_dvc", ""):
        _check_dvc_file(recorded, _images_root(lineage).name)


def _check_dvc_file(text: str, name: str) -> None:
    """Refuse a .dvc file that does more than name the images by their checksum."""
    try:
        tree = yaml.safe_load(text)
        paths = [out["path"] for out in tree["outs"]]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise RootstockError(f"the model's .dvc file is not valid: {error}") from None
    if paths != [name] or not set(tree) <= {"outs", "md5", "meta", "desc", "deps", "frozen"}:
        raise RootstockError(
            f"the model's .dvc file must name only {name}, but it names "
            f"{', '.join(map(str, paths))}, or has other keys"
        )


def _commit(lineage: Mapping[str, Any]) -> str:
    return str(lineage.get("git_commit", "")).removesuffix(CHANGES)


def _images_root(lineage: Mapping[str, Any]) -> Path:
    return Path(str(lineage.get("params", {}).get("data", {}).get("root", "data/raw")))


def _uncommitted_files(lineage: Mapping[str, Any], project: Path) -> list[Path]:
    """Return the files in the parameters that are in the project but not in the commit."""
    backbone = lineage.get("params", {}).get("backbone", {})
    candidates = backbone.get("candidates", ())
    named = [backbone.get("weights", ""), *(candidates if candidates != "auto" else ())]
    weights = [Path(name) for name in named if str(name).endswith(".safetensors")]
    return [
        file
        for one in dict.fromkeys(weights)
        if not one.is_absolute() and not str(one).startswith("...")
        for file in (one, one.with_suffix(".json"))
        if not _has_file(project, _commit(lineage), file)
    ]


def _dvc_settings(project: Path) -> list[str]:
    names = (".dvc/config", ".dvc/config.local")
    return [name for name in names if (project / name).is_file()]


def _own_images(lineage: Mapping[str, Any], project: Path) -> Path:
    """Return the images in the project's own folder, if DVC does not version them."""
    root = _images_root(lineage)
    here = project / root
    if root.is_absolute() or not here.exists():
        raise RootstockError(
            f"the images {root} are neither versioned nor in the project",
            hint=f"copy them to {here}, then run this again",
        )
    return here


def _fetch_images(recorded: str, lineage: Mapping[str, Any], project: Path, folder: Path) -> None:
    root = _images_root(lineage)
    if not recorded:
        shutil.copytree(_own_images(lineage, project), folder / root, dirs_exist_ok=True)
        return
    file = folder / f"{root}.dvc"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(recorded, encoding="utf-8")
    dvc = [sys.executable, "-m", "dvc"]
    for name in _dvc_settings(project):
        _copy(project / name, folder / name)
    cache = project / DVC_CACHE
    if cache.is_dir():
        _run([*dvc, "cache", "dir", "--local", str(cache)], folder)
    if _run([*dvc, "checkout", str(file)], folder, check=False):
        _run([*dvc, "pull", str(file)], folder)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _has_commit(project: Path, commit: str) -> bool:
    return _is_in_git(project, f"{commit}^{{commit}}")


def _has_file(project: Path, commit: str, file: Path) -> bool:
    return bool(commit) and _is_in_git(project, f"{commit}:./{file.as_posix()}")


def _is_in_git(project: Path, name: str) -> bool:
    asked = ["git", "cat-file", "-e", name]
    return subprocess.run(asked, cwd=project, check=False, capture_output=True).returncode == 0


def _run(command: list[str], folder: Path, *, check: bool = True) -> int:
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    # The stages of the clone run its own code with this Python, whatever is installed.
    environment["PYTHONPATH"] = f"{folder / 'src'}{os.pathsep}{folder}"
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    code = subprocess.run(command, cwd=folder, check=False, env=environment).returncode
    if code and check:
        raise RootstockError(
            f"`{' '.join(command)}` failed in {folder} with code {code}",
            hint="its output is above; the folder was not removed",
        )
    return code
