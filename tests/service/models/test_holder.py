"""The served model: from a directory or a registry, and only after it has been proved."""

import json
import shutil
from types import SimpleNamespace

import pytest

from rootstock.errors import BundleError, NoModelError
from rootstock.service.models.cache import ModelCache
from rootstock.service.models.holder import ModelHolder
from tests.bundles import tiny_bundle
from tests.folder_registry import FolderRegistry


@pytest.fixture
def registry(tmp_path):
    registry = FolderRegistry(tmp_path / "registry")
    registry.register("flowers", tiny_bundle(), run_id="run1", tags={}, description="")
    registry.set_alias("flowers", "champion", "1")
    return registry


def make_holder(registry, tmp_path, model="models:/flowers@champion"):
    return ModelHolder(model, cache=tmp_path / "cache", connect=lambda: registry)


def test_a_registered_model_is_named_after_its_entry(registry, tmp_path):
    predictor = make_holder(registry, tmp_path).load()
    assert (predictor.info["name"], predictor.info["version"]) == ("flowers", "1")


def test_a_fetched_model_is_not_fetched_twice(registry, tmp_path, monkeypatch):
    make_holder(registry, tmp_path).load()
    monkeypatch.setattr(registry, "download", None)
    assert make_holder(registry, tmp_path).load().info["version"] == "1"


def test_damaged_cache_is_downloaded_again(registry, tmp_path):
    make_holder(registry, tmp_path).load()
    [cached] = (tmp_path / "cache").rglob("model.onnx")
    cached.write_bytes(b"damaged")
    assert make_holder(registry, tmp_path).load().info["version"] == "1"


def test_new_registry_does_not_use_the_old_cache(registry, tmp_path):
    make_holder(registry, tmp_path).load()
    again = FolderRegistry(tmp_path / "again")
    again.register("flowers", tiny_bundle(), run_id="run2", tags={}, description="")
    make_holder(again, tmp_path, "models:/flowers/1").load()
    assert sorted(p.parent.name for p in (tmp_path / "cache/flowers").rglob("bundle.json")) == [
        "1-run1",
        "1-run2",
    ]


def test_a_damaged_download_leaves_nothing_behind(registry, tmp_path):
    (registry.root / "flowers/1/model.onnx").write_bytes(b"damaged")
    holder = make_holder(registry, tmp_path)
    with pytest.raises(BundleError, match=r"model\.onnx is damaged"):
        holder.load()
    assert not holder.ready
    assert list((tmp_path / "cache/flowers").iterdir()) == []


def test_a_missing_alias_leaves_the_holder_empty(registry, tmp_path):
    holder = make_holder(registry, tmp_path, "models:/flowers@staging")
    with pytest.raises(NoModelError, match="staging"):
        holder.load()
    assert not holder.ready


def test_a_model_with_other_golden_answers_is_rejected(tmp_path):
    from rootstock.system.files import sha256_file

    folder = tmp_path / "model"
    shutil.copytree(tiny_bundle(), folder)
    golden = folder / "golden/golden.json"
    tree = json.loads(golden.read_text())
    tree["samples"][0]["logits"][0] += 0.1
    golden.write_text(json.dumps(tree))
    sums = json.loads((folder / "checksums.json").read_text())
    sums["golden/golden.json"] = sha256_file(golden)
    (folder / "checksums.json").write_text(json.dumps(sums))
    holder = make_holder(None, tmp_path, str(folder))
    with pytest.raises(BundleError, match="golden image 0.* differ by 0.1"):
        holder.load()
    assert not holder.ready


def test_registry_cannot_name_folder_outside_of_cache(registry, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis.txt").write_text("years of work")
    cache = ModelCache(tmp_path / "cache", "flowers", "champion")
    entry = SimpleNamespace(name="flowers", version="1", run_id="x/../../../victim", aliases=())
    with pytest.raises(BundleError, match="outside the cache"):
        cache.fetch(registry, entry)
    assert (victim / "thesis.txt").exists()
    assert cache.find("../*") is None
