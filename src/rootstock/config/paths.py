"""The files and folders that the stages read and write."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

TRIES = Path(".dvc/tmp/exps")
"""The folder into which DVC copies a repository for `dvc exp run --temp` and `--queue`."""


@dataclass(frozen=True)
class Paths:
    """The files and folders that the stages read and write, all below one root.

    In an experiment that DVC runs in a copy of the project, files that must last are below the
    project's own folder (``home``): the registry, features, and measurements that are made once.
    DVC deletes the copy.
    """

    root: Path

    @property
    def home(self) -> Path:
        return find_home(self.root)

    @property
    def manifest(self) -> Path:
        return self.root / "artifacts/manifest.parquet"

    @property
    def profile(self) -> Path:
        return self.root / "artifacts/profile.json"

    @property
    def review(self) -> Path:
        return self.root / "artifacts/review.json"

    @property
    def plan(self) -> Path:
        return self.root / "artifacts/plan.json"

    @property
    def features(self) -> Path:
        return self.root / "artifacts/features.json"

    @property
    def model(self) -> Path:
        return self.root / "artifacts/model"

    @property
    def decisions(self) -> Path:
        return self.root / "artifacts/decisions.parquet"

    @property
    def training(self) -> Path:
        return self.root / "artifacts/training.json"

    @property
    def registration(self) -> Path:
        return self.root / "artifacts/registration.json"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def model_card(self) -> Path:
        return self.reports / "model_card.md"

    @property
    def per_class(self) -> Path:
        return self.reports / "per_class.csv"

    @property
    def metrics(self) -> Path:
        return self.reports / "metrics.json"

    @property
    def listed(self) -> Path:
        return self.root / "artifacts/images.json"

    @property
    def seen(self) -> Path:
        return self.root / ".rootstock/seen.parquet"

    @property
    def last_manifest(self) -> Path:
        """A copy of the manifest, since DVC deletes it before it runs the stage `index`."""
        return self.root / ".rootstock/manifest.parquet"

    @property
    def kept(self) -> Path:
        return self.root / ".rootstock/stages"

    @property
    def races(self) -> Path:
        return self.home / ".rootstock/races"

    @property
    def heats(self) -> Path:
        return self.root / ".rootstock/races"

    @property
    def paces(self) -> Path:
        return self.home / ".rootstock/paces"

    @property
    def estimates(self) -> Path:
        return self.home / ".rootstock/estimates"

    @property
    def runs(self) -> Path:
        return self.home / ".rootstock/runs"

    @property
    def forecast(self) -> Path:
        return self.reports / "forecast.json"

    @property
    def trials(self) -> Path:
        return self.root / ".rootstock/trials"

    def below(self, path: Path) -> Path:
        """Return ``path`` if it is absolute, otherwise the path below the root."""
        return path if path.is_absolute() else self.root / path

    def lasting(self, path: Path) -> Path:
        """Return ``path`` if it is absolute, otherwise the path below ``home``."""
        return path if path.is_absolute() else self.home / path


def find_home(folder: Path) -> Path:
    """Return the project of which ``folder`` is a copy for an experiment; otherwise ``folder``.

    DVC names the project's repository in DVC_ROOT. The copy holds the whole git repository,
    in which the project may be a subfolder.
    """
    named = os.environ.get("DVC_ROOT", "")
    here = folder.resolve()
    if not named or (Path(named) / TRIES).resolve() not in here.parents:
        return folder
    return _top(Path(named).resolve()) / here.relative_to(_top(here))


def _top(folder: Path) -> Path:
    """Return the folder of the git repository that ``folder`` is in."""
    return next((one for one in (folder, *folder.parents) if (one / ".git").exists()), folder)


def find_file(path: Path) -> Path:
    """Return ``path``; in an experiment, the project's file if the copy has none."""
    lasting = find_home(Path.cwd()) / path
    return lasting if not path.exists() and lasting.exists() else path
