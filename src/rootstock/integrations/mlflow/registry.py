"""Registered models in MLflow: a bundle is plain artifacts of the run that made it."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rootstock.errors import NoModelError, TrackingError
from rootstock.integrations.mlflow import log as mlflow_log
from rootstock.integrations.mlflow.client import (
    again_if_crowded,
    cut,
    mlflow_client,
    or_none,
    translated,
)
from rootstock.integrations.mlflow.database import sqlite_file
from rootstock.integrations.mlflow.model_files import write_model_files
from rootstock.integrations.mlflow.places import check_model_folder, locate
from rootstock.integrations.mlflow.tracking import MlflowRun
from rootstock.model.bundle import CHECKSUMS, read_bundle
from rootstock.ports.registry import Record, RegistryEntry

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_FOLDER = "model"
MAX_NAMES = 20
"""Number of registered models that an error lists."""
MAX_DESCRIPTION_CHARACTERS = 5_000
"""The type of a column in the oldest databases."""


@dataclass(frozen=True)
class MlflowRegistry:
    """Bundles as plain artifacts of the run that made them, registered as model versions."""

    tracking_uri: str

    def register(
        self, name: str, bundle: Path, *, run_id: str, tags: Mapping[str, str], description: str
    ) -> RegistryEntry:
        """Upload the bundle to the run's ``model/`` folder and make it the next version.

        A run that already has a model keeps it: the new one goes to ``model-2``, because the files
        of a version never change.

        Raises:
            TrackingError: there is no run, or MLflow cannot be reached or refuses.
        """
        if not run_id:
            raise TrackingError(
                f"a version of {name!r} needs the run that made it, but there is no run",
                hint="train with tracking.enabled=true, then register",
            )
        with self._translated(f"register {name!r}") as client:
            folder = self._free_folder(client, run_id)
            self._upload(bundle, run_id=run_id, folder=folder)
            mlflow_log.ensure_model(client, name)
            version = client.create_model_version(
                name,
                source=f"runs:/{run_id}/{folder}",
                run_id=run_id,
                tags={key: str(value) for key, value in tags.items()},
                description=cut(description, MAX_DESCRIPTION_CHARACTERS),
                await_creation_for=30,
            )
        return RegistryEntry(name, str(version.version), run_id=run_id, tags=dict(version.tags))

    def find(self, name: str, *, alias: str = "", version: str = "") -> RegistryEntry:
        """Return the entry under an alias or version.

        Raises:
            NoModelError: it does not exist; the message lists existing names, aliases or versions.
        """
        with self._translated(f"look up {name!r}") as client:
            aliases = self._aliases(client, name)
            number = version or aliases.get(alias, "")
            fields = or_none(client.get_model_version, name, number) if number else None
            if fields is None:
                what = f"version {version!r}" if version else f"alias {alias!r}"
                raise missing_version(name, what, aliases, self.versions(name))
            return _entry(fields, aliases)

    def versions(self, name: str) -> list[RegistryEntry]:
        """Return all versions, oldest first; none if the model is unknown."""
        with self._translated(f"list the versions of {name!r}") as client:
            model = or_none(client.get_registered_model, name)
            if model is None:
                return []
            aliases = {alias: str(version) for alias, version in model.aliases.items()}
            ordered = sorted(
                mlflow_log.list_versions(client, name), key=lambda version: int(version.version)
            )
            return [_entry(version, aliases) for version in ordered]

    def holds_files(self, entry: RegistryEntry) -> bool:
        """Return whether the version has files, without reading them.

        Raises:
            TrackingError: MLflow or the artifacts cannot be reached.
        """
        with self._translated(f"look up version {entry.version} of {entry.name!r}") as client:
            from mlflow.artifacts import list_artifacts

            source = self._find_files(client, entry)
            return bool(list_artifacts(artifact_uri=source, tracking_uri=self.tracking_uri))

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point ``alias`` at ``version``, away from where it pointed before.

        Raises:
            NoModelError: there is no such version.
        """
        self.find(name, version=version)
        with self._translated(f"set the alias {alias!r} of {name!r}") as client:
            again_if_crowded(client.set_registered_model_alias, name, alias, version)

    def drop_alias(self, name: str, alias: str) -> None:
        """Remove an alias, if it exists."""
        with self._translated(f"drop the alias {alias!r} of {name!r}") as client:
            if or_none(client.get_registered_model, name) is not None:
                again_if_crowded(client.delete_registered_model_alias, name, alias)

    def set_tags(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Set tags of one version."""
        with self._translated(f"tag version {version} of {name!r}") as client:
            for key, value in tags.items():
                again_if_crowded(client.set_model_version_tag, name, version, key, str(value))

    def describe(self, name: str, version: str, description: str) -> None:
        """Replace the description of one version."""
        with self._translated(f"describe version {version} of {name!r}") as client:
            text = cut(description, MAX_DESCRIPTION_CHARACTERS)
            again_if_crowded(client.update_model_version, name, version, description=text)

    def append_record(self, name: str, version: str, facts: Mapping[str, str]) -> int:
        """Append to the log of the model and return the record's number."""
        with self._translated(f"write the history of {name!r}") as client:
            return mlflow_log.append_record(client, name, version, facts)

    def records(self, name: str) -> list[Record]:
        """Return the log of the model, oldest first."""
        with self._translated(f"read the history of {name!r}") as client:
            return mlflow_log.read_records(client, name)

    def note_on_record(self, name: str, number: int, facts: Mapping[str, str]) -> None:
        """Add facts to a record."""
        with self._translated(f"write the history of {name!r}") as client:
            mlflow_log.note_on_record(client, name, number, facts)

    def download(self, entry: RegistryEntry, target: Path) -> Path:
        """Download the version's files next to ``target``, then move them there in one step.

        Replaces anything at ``target``. Returns ``target``.

        Raises:
            NoModelError: the files of the version no longer exist.
            TrackingError: MLflow fails, or the version's folder on this machine is not a model.
        """
        if not self.holds_files(entry):
            raise missing_files(entry)

        def fetch(folder: Path) -> Path:
            with self._translated(f"download version {entry.version} of {entry.name!r}") as client:
                from mlflow.artifacts import download_artifacts

                source = self._find_files(client, entry)
                check_model_folder(source)
                return Path(
                    download_artifacts(
                        artifact_uri=source, dst_path=str(folder), tracking_uri=self.tracking_uri
                    )
                )

        return replace_directory(target, fetch)

    def _find_files(self, client: MlflowClient, entry: RegistryEntry) -> str:
        """Return the place of the version's files; ``runs:/ID/folder`` is below that of the run."""
        source = str(client.get_model_version_download_uri(entry.name, entry.version))
        if source.startswith("runs:/"):
            run_id, _, folder = source.removeprefix("runs:/").partition("/")
            run = or_none(client.get_run, run_id)
            if run is None:
                return source
            source = f"{run.info.artifact_uri.rstrip('/')}/{folder}"
        return locate(source, sqlite_file(self.tracking_uri))

    def _aliases(self, client: MlflowClient, name: str) -> dict[str, str]:
        model = or_none(client.get_registered_model, name)
        if model is None:
            page = client.search_registered_models(max_results=MAX_NAMES)
            raise missing_model(name, [known.name for known in page])
        return {alias: str(version) for alias, version in model.aliases.items()}

    def _upload(self, bundle: Path, *, run_id: str, folder: str) -> None:
        """Upload a bundle, with the files of an MLflow model if it is complete."""
        run = MlflowRun(self.tracking_uri, run_id)
        run.log_files(bundle, folder=folder)
        if not (bundle / CHECKSUMS).is_file():
            return
        with tempfile.TemporaryDirectory(prefix="rootstock-") as extra:
            write_model_files(read_bundle(bundle), Path(extra), run_id=run_id, folder=folder)
            run.log_files(Path(extra), folder=folder)

    def _free_folder(self, client: MlflowClient, run_id: str) -> str:
        taken = {item.path for item in client.list_artifacts(run_id)}
        folder, number = MODEL_FOLDER, 1
        while folder in taken:
            number += 1
            folder = f"{MODEL_FOLDER}-{number}"
        return folder

    @contextmanager
    def _translated(self, doing: str) -> Iterator[MlflowClient]:
        with translated(self.tracking_uri, doing):
            yield mlflow_client(self.tracking_uri)


def _entry(fields: Any, aliases: Mapping[str, str]) -> RegistryEntry:
    version = str(fields.version)
    names = tuple(sorted(alias for alias, pointed in aliases.items() if pointed == version))
    return RegistryEntry(fields.name, version, fields.run_id or "", names, dict(fields.tags))


def missing_model(name: str, known: Sequence[str]) -> NoModelError:
    """Return the error for a name that is not registered; ``known`` are the registered names."""
    names = ", ".join(one for one in known if not one.endswith(mlflow_log.LOG_SUFFIX)) or "none"
    return NoModelError(
        f"there is no registered model {name!r}; registered: {names}",
        hint="train and register one with `dvc repro`, or change registry.name",
    )


def missing_version(
    name: str, what: str, aliases: Iterable[str], versions: Iterable[RegistryEntry]
) -> NoModelError:
    """Return the error for an alias or version (``what``) that the model does not have."""
    names = ", ".join(sorted(aliases)) or "none"
    numbers = [entry.version for entry in versions]
    hint = "register a model with `dvc repro` or `rootstock register`"
    if numbers and what.startswith("version"):
        hint = f"name an existing version, such as {numbers[-1]}"
    elif numbers:
        hint = f"name a version, or make one champion: `rootstock promote {numbers[-1]}`"
    return NoModelError(
        f"the model {name!r} has no {what}; aliases: {names}; "
        f"versions: {', '.join(numbers) or 'none'}",
        hint=hint,
    )


def missing_files(entry: RegistryEntry) -> NoModelError:
    """Return the error for a version without artifacts."""
    return NoModelError(
        f"the files of version {entry.version} of {entry.name!r} no longer exist",
        hint="the run's artifacts were deleted or moved; register the model again",
    )


def replace_directory(target: Path, fetch: Callable[[Path], Path]) -> Path:
    """Move the directory that ``fetch`` returns to ``target`` in one step; return ``target``.

    ``fetch`` gets an empty directory on the same file system, and returns that or one below it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        (scratch / "new").mkdir()
        _swap(fetch(scratch / "new"), target, scratch / "old")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _swap(new: Path, target: Path, old: Path) -> None:
    # Another process may put its own copy there between both renames; then try again.
    old.mkdir()
    for attempt in range(5):
        with suppress(FileNotFoundError):
            target.rename(old / str(attempt))
        try:
            new.rename(target)
        except OSError as error:
            if attempt == 4 or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return
