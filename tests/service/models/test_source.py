"""The source of a model: directories and registry URIs."""

from pathlib import Path

import pytest

from rootstock.errors import ConfigError
from rootstock.service.models.source import ModelIdentity, ModelSource
from tests.bundles import tiny_bundle, write_tiny_bundle
from tests.folder_registry import FolderRegistry


@pytest.mark.parametrize(
    ("model", "source"),
    [
        ("models:/flowers@champion", ModelSource(name="flowers", alias="champion")),
        ("models:/flowers/3", ModelSource(name="flowers", version="3")),
        ("artifacts/model", ModelSource(directory=Path("artifacts/model"))),
    ],
)
def test_sources_are_read(model, source):
    assert ModelSource.parse(model) == source


@pytest.mark.parametrize("model", ["models:/", "models:/x", "models:/x@", "models:/x/1@y"])
def test_an_address_that_names_no_model_is_rejected(model):
    with pytest.raises(ConfigError, match=f"{model}.* is not the address of a registered model"):
        ModelSource.parse(model)


def test_a_directory_offers_the_model_it_holds_now(tmp_path):
    folder = write_tiny_bundle(tmp_path / "model").directory
    source = ModelSource.parse(str(folder))
    first = source.look(None, None)
    assert first.identity == source.look(None, None).identity != ModelIdentity()
    assert first.fetch().directory == folder
    state = first.state()
    write_tiny_bundle(folder, calibration={"temperature": 2.0})
    second = source.look(None, None)
    assert second.identity != first.identity
    assert second.state() != state


def test_a_pin_goes_before_the_alias(tmp_path):
    registry = FolderRegistry(tmp_path)
    for run in ("run1", "run2"):
        registry.register("flowers", tiny_bundle(), run_id=run, tags={}, description="")
    registry.set_alias("flowers", "champion", "2")
    source = ModelSource.parse("models:/flowers@champion")
    versions = []
    fetch = lambda _registry, entry: versions.append(entry.version)  # noqa: E731
    by_alias = source.look(lambda: registry, fetch)
    pinned = source.look(lambda: registry, fetch, pinned="1")
    assert by_alias.identity == ModelIdentity("flowers", "2", "run2")
    assert pinned.identity == ModelIdentity("flowers", "1", "run1")
    by_alias.fetch()
    assert versions == ["2"]
