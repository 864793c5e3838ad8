"""The source of a model: a directory, or a registry's name with an alias or a version."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rootstock.errors import ConfigError
from rootstock.model.bundle import ModelBundle, read_bundle
from rootstock.ports.registry import RegistryEntry, RegistryReader, is_token
from rootstock.registry.model_uri import parse_model_uri
from rootstock.system.files import sha256_file

Connect = Callable[[], RegistryReader]
Fetch = Callable[[RegistryReader, RegistryEntry], ModelBundle]


@dataclass(frozen=True)
class ModelIdentity:
    """A registered version and its run, or the digest of a directory's checksums."""

    name: str = ""
    version: str = ""
    run_id: str = ""
    digest: str = ""

    @property
    def label(self) -> str:
        """The version, or the beginning of the digest."""
        return self.version or self.digest[:12]


@dataclass(frozen=True)
class AvailableModel:
    """The current model of a source.

    Args:
        identity: which model it is.
        fetch: returns its bundle; raises RootstockError.
        state: returns a text that changes when the model's files change.
    """

    identity: ModelIdentity
    fetch: Callable[[], ModelBundle]
    state: Callable[[], str] = lambda: ""


@dataclass(frozen=True)
class ModelSource:
    """A directory, or a registered name with an alias or a version."""

    directory: Path | None = None
    name: str = ""
    alias: str = ""
    version: str = ""

    @classmethod
    def parse(cls, model: str) -> ModelSource:
        """Read a directory, models:/NAME@ALIAS or models:/NAME/VERSION.

        Raises:
            ConfigError: a models:/ address has another form.
        """
        if model.startswith("models:"):
            return cls(**parse_model_uri(model)._asdict())
        if "@" in model and not Path(model).exists():
            raise ConfigError(
                f"model directory {model} does not exist",
                hint=f"did you mean models:/{model} in the registry?",
            )
        return cls(directory=Path(model))

    def __str__(self) -> str:
        if self.directory is not None:
            return self.directory.resolve().name
        return f"models:/{self.name}" + (f"@{self.alias}" if self.alias else f"/{self.version}")

    def look(self, connect: Connect, fetch: Fetch, pinned: str = "") -> AvailableModel:
        """Find the current model, or version ``pinned`` of the registry if it is given.

        ``connect`` opens the registry; ``fetch`` reads a version from it.
        Raises:
            TrackingError: The registry cannot be reached, or has no such model (NoModelError).
        """
        if self.directory is not None:
            return _look_in(self.directory)
        registry = connect()
        alias = "" if pinned else self.alias
        entry = registry.find(self.name, alias=alias, version=pinned or self.version)
        identity = ModelIdentity(entry.name, entry.version, entry.run_id)
        return AvailableModel(identity, partial(fetch, registry, entry))


def read_models(text: str) -> dict[str, str]:
    """Return the address of each model in the setting ``models``, by name, in order.

    An entry is a registered name (its champion), a models:/ address, or NAME=FOLDER.
    Raises:
        ConfigError: An entry has another form, or two have the same name.
    """
    models: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, folder = entry.partition("=")
        if folder:
            address = folder
        else:
            address = entry if entry.startswith("models:") else f"models:/{entry}@champion"
            name = parse_model_uri(address).name
        if not is_token(name):
            raise ConfigError(
                f"{name!r} is not a valid model name",
                hint="use letters, digits, blanks, and . _ -",
            )
        if name in models:
            raise ConfigError(
                f"two models have the name {name!r}",
                hint="choose another name for a folder: NAME=FOLDER",
            )
        models[name] = address
    return models


def _look_in(directory: Path) -> AvailableModel:
    checksums = directory / "checksums.json"
    digest = sha256_file(checksums) if checksums.is_file() else ""
    return AvailableModel(
        ModelIdentity(digest=digest), partial(read_bundle, directory), partial(_stamp, directory)
    )


def _stamp(directory: Path) -> str:
    """Return a text that changes when a file in the directory does."""
    lines = []
    for path in sorted(directory.rglob("*")):
        with suppress(OSError):  # the file may have just been removed
            status = path.stat()
            lines.append(f"{path} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
