"""Following the registry: swaps, rejections, pins, and a dead, slow, or corrupt registry."""

import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from rootstock.errors import BundleError, NoModelError, RootstockError, TrackingError
from rootstock.model.bundle import read_bundle
from rootstock.service.http.app import create_app
from rootstock.service.http.keys import make_key
from rootstock.service.models.holder import ModelHolder
from rootstock.service.models.source import ModelSource
from rootstock.service.settings import Settings
from tests.bundles import jpeg, tiny_bundle, write_tiny_bundle
from tests.folder_registry import FolderRegistry


class Shelf(FolderRegistry):
    """A registry that can be down or slow."""

    down = False
    seconds = 0.0

    def find(self, name, *, alias="", version=""):
        time.sleep(self.seconds)
        if self.down:
            raise TrackingError("the registry cannot be reached")
        return super().find(name, alias=alias, version=version)

    def download(self, entry, target):
        if not self.holds_files(entry):
            raise NoModelError(f"version {entry.version} has no files any more")
        return super().download(entry, target)

    def add(self, bundle=None):
        entry = self.register(
            "flowers",
            bundle or tiny_bundle(),
            run_id=f"run{len(self.entries) + 1}",
            tags={},
            description="",
        )
        self.set_alias("flowers", "champion", entry.version)
        return entry.version


@pytest.fixture
def registry(tmp_path):
    shelf = Shelf(tmp_path / "registry")
    shelf.add()
    return shelf


@pytest.fixture
def hold(registry, tmp_path):
    """Return holders of one cache, like successive services."""
    outcomes = []

    def make(model="models:/flowers@champion", **settings):
        holder = ModelHolder(
            model,
            cache=tmp_path / "cache",
            connect=lambda: registry,
            engine="onnx",
            on_swap=outcomes.append,
            **settings,
        )
        holder.outcomes = outcomes
        return holder

    return make


def damage(registry, version):
    (registry.root / "flowers" / version / "model.onnx").write_bytes(b"damaged")


def test_a_new_champion_is_swapped_in(registry, hold):
    holder = hold()
    old = holder.load()
    assert holder.refresh() is False
    registry.add()
    assert holder.refresh() is True
    assert holder.predictor.info["version"] == "2"
    assert holder.outcomes == ["swapped", "swapped"]
    # A request that began with the old model ends with it
    assert old.predict([jpeg(0)])[0].label


def test_corrupt_champion_is_rejected_and_old_one_stays(registry, hold, caplog):
    holder = hold()
    holder.load()
    registry.add()
    damage(registry, "2")
    with pytest.raises(BundleError, match="damaged"):
        holder.refresh()
    assert holder.predictor.info["version"] == "1"
    assert holder.refused.version == "2"
    assert "version 2 was rejected, the model in use stays" in caplog.text
    assert holder.outcomes == ["swapped", "refused"]
    # It is not downloaded again at every check, but at once if an operator asks
    assert holder.refresh() is False
    shutil.copy(tiny_bundle() / "model.onnx", registry.root / "flowers/2/model.onnx")
    assert holder.refresh(again=True) is True
    assert holder.refused is None


def test_a_champion_with_other_golden_answers_is_rejected(registry, hold, tmp_path):
    from rootstock.system.files import sha256_file

    holder = hold()
    holder.load()
    folder = shutil.copytree(tiny_bundle(), tmp_path / "wrong")
    tree = json.loads((folder / "golden/golden.json").read_text())
    tree["samples"][0]["logits"][0] += 0.1
    (folder / "golden/golden.json").write_text(json.dumps(tree))
    sums = json.loads((folder / "checksums.json").read_text())
    sums["golden/golden.json"] = sha256_file(folder / "golden/golden.json")
    (folder / "checksums.json").write_text(json.dumps(sums))
    registry.add(folder)
    with pytest.raises(BundleError, match="golden image 0"):
        holder.refresh()
    assert holder.predictor.info["version"] == "1"


def test_a_registry_that_goes_down_changes_nothing(registry, hold):
    holder = hold()
    holder.load()
    registry.down = True
    with pytest.raises(TrackingError):
        holder.refresh()
    assert holder.ready
    assert not holder.registry_up
    registry.down = False
    holder.refresh()
    assert holder.registry_up


def test_restart_without_registry_serves_last_model(registry, hold):
    hold().load()
    registry.add()
    hold().load()
    registry.down = True
    again = hold()
    assert again.load().info["version"] == "2"
    assert not again.registry_up


def test_restart_with_slow_registry_waits_briefly(registry, hold):
    hold().load()
    registry.add()
    registry.seconds = 2.0
    started = time.monotonic()
    again = hold(registry_seconds=0.2)
    assert again.load().info["version"] == "1"
    assert time.monotonic() - started < 1.5


def test_first_start_without_registry_has_no_model(registry, hold):
    registry.down = True
    holder = hold()
    with pytest.raises(TrackingError):
        holder.load()
    assert not holder.ready


def test_removed_champion_is_served_after_restart(registry, hold, caplog):
    """The service must serve its last model during this time, not hang on a restart."""
    hold().load()
    registry.drop_alias("flowers", "champion")
    assert hold().load().info["version"] == "1"
    assert "serving the last known good model: no model" in caplog.text


def test_rejected_first_model_is_retried_every_time(registry, hold):
    damage(registry, "1")
    holder = hold()
    for _ in range(2):
        with pytest.raises(BundleError):
            holder.load()
    shutil.copy(tiny_bundle() / "model.onnx", registry.root / "flowers/1/model.onnx")
    assert holder.load().info["version"] == "1"


def test_a_champion_without_files_is_rejected_once(registry, hold):
    holder = hold()
    holder.load()
    registry.add()
    shutil.rmtree(registry.root / "flowers/2")
    with pytest.raises(NoModelError):
        holder.refresh()
    assert holder.refused.version == "2"
    assert holder.refresh() is False
    registry.set_alias("flowers", "champion", "1")
    holder.refresh()
    assert holder.refused is None


def test_the_reason_of_a_refusal_has_no_folder(registry, hold, tmp_path):
    holder = hold()
    holder.load()
    registry.add()
    damage(registry, "2")
    with pytest.raises(BundleError):
        holder.refresh()
    assert "model.onnx is damaged" in holder.refused.reason
    assert str(tmp_path) not in holder.refused.reason
    assert str(ModelSource.parse(str(tmp_path / "secret/model"))) == "model"


def test_folder_is_served_once_copied_completely(tmp_path):
    folder = shutil.copytree(tiny_bundle(), tmp_path / "model")
    holder = ModelHolder(str(folder), cache=tmp_path, connect=lambda: None, engine="onnx")
    holder.load()
    write_tiny_bundle(tmp_path / "new", strategy="full_finetune", with_reference=True)
    shutil.copy(tmp_path / "new/checksums.json", folder)
    with pytest.raises(BundleError):
        holder.refresh()
    assert holder.refresh() is False
    shutil.copytree(tmp_path / "new", folder, dirs_exist_ok=True)
    assert holder.refresh() is True


def test_concurrent_pins_keep_served_and_noted_equal(registry, hold):
    holder = hold()
    holder.load()
    for _ in range(3):
        registry.add()
    damage(registry, "4")
    failed = []

    def pin(version):
        try:
            holder.pin(version)
        except RootstockError:
            failed.append(version)

    for _ in range(5):
        threads = [threading.Thread(target=pin, args=(version,)) for version in "2943"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert holder.pinned == holder.predictor.info["version"] == hold().pinned
        assert holder.pinned in "23"
    assert sorted(failed) == ["4"] * 5 + ["9"] * 5


def test_an_unpinning_that_fails_leaves_the_pin(registry, hold):
    holder = hold()
    holder.load()
    holder.pin("1")
    registry.drop_alias("flowers", "champion")
    with pytest.raises(NoModelError):
        holder.unpin()
    assert holder.pinned == hold().pinned == "1"


@pytest.mark.parametrize("promoted", ["before the end", "between"])
def test_rollback_knows_version_before_after_restart_too(registry, hold, promoted):
    holder = hold()
    holder.load()
    registry.add()
    if promoted == "before the end":
        holder.refresh()
    again = hold()
    assert again.load().info["version"] == "2"
    again.rollback()
    assert again.predictor.info["version"] == "1"


@pytest.mark.parametrize("fault", ["down", "slow"])
def test_cached_version_can_be_pinned_without_registry(registry, hold, monkeypatch, fault):
    monkeypatch.setattr("rootstock.service.models.holder.ADMIN_SECONDS", 0.2)
    holder = hold()
    holder.load()
    registry.add()
    holder.refresh()
    registry.add()
    registry.down, registry.seconds = fault == "down", 5.0 if fault == "slow" else 0.0
    holder.rollback()
    assert (holder.predictor.info["version"], holder.pinned) == ("1", "1")
    # An operator who missed the answer asks again, and the bad version does not return.
    with pytest.raises(RootstockError, match="no other version"):
        holder.rollback()
    holder.pin("2")
    assert hold().load().info["version"] == "2"
    with pytest.raises(TrackingError):
        holder.pin("3")
    assert (holder.predictor.info["version"], holder.pinned) == ("2", "2")


def test_a_damaged_last_model_is_not_served(registry, hold, tmp_path):
    hold().load()
    [cached] = (tmp_path / "cache").rglob("model.onnx")
    cached.write_bytes(b"damaged")
    registry.down = True
    with pytest.raises(TrackingError):
        hold().load()


def test_a_full_disk_refuses_the_new_model_only(registry, hold, monkeypatch):
    holder = hold()
    holder.load()
    registry.add()

    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rootstock.service.models.cache.tempfile.mkdtemp", full)
    with pytest.raises(BundleError, match="No space left on device"):
        holder.refresh()
    assert holder.predictor.info["version"] == "1"


def test_disk_that_fills_during_download_leaves_nothing_behind(
    registry, hold, monkeypatch, tmp_path
):
    holder = hold()
    holder.load()
    registry.add()

    def half(entry, target):
        target.mkdir(parents=True)
        (target / "model.onnx").write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(registry, "download", half)
    with pytest.raises(BundleError, match="No space left on device"):
        holder.refresh()
    assert (holder.predictor.info["version"], holder.refused.version) == ("1", "2")
    [kept] = [path.name for path in (tmp_path / "cache/flowers").iterdir() if path.is_dir()]
    assert kept.startswith("1-")


def test_a_slow_registry_holds_up_no_request(registry, hold):
    holder = hold()
    holder.load()
    settings = Settings(model="models:/flowers@champion", decoders=1, lanes=1, poll_seconds=0.05)
    with TestClient(create_app(settings, holder=holder)) as client:
        registry.seconds = 3.0
        registry.add()
        time.sleep(0.3)
        versions = set()
        for _ in range(5):
            answer = client.post(
                "/v1/predict", content=jpeg(0), headers={"content-type": "image/jpeg"}
            )
            versions.add(answer.json()["model"]["version"])
        assert holder.registry_up
        assert versions == {"1"}  # all were answered before the registry was


def test_a_pinned_version_stays_until_it_is_unpinned(registry, hold):
    holder = hold()
    holder.load()
    registry.add()
    holder.refresh()
    holder.rollback()
    assert (holder.predictor.info["version"], holder.pinned) == ("1", "1")
    registry.add()
    assert holder.refresh() is False
    # Also after a restart
    again = hold()
    assert again.load().info["version"] == "1"
    again.unpin()
    assert again.predictor.info["version"] == "3"


def test_version_that_is_not_there_cannot_be_pinned(registry, hold):
    holder = hold()
    holder.load()
    with pytest.raises(NoModelError):
        holder.pin("9")
    assert holder.pinned == ""
    assert holder.refresh() is False


def test_rollback_needs_an_earlier_version(registry, hold):
    holder = hold()
    holder.load()
    with pytest.raises(RootstockError, match="no other version"):
        holder.rollback()


def test_a_fixed_version_or_directory_cannot_be_pinned(hold):
    for model in ("models:/flowers/1", str(tiny_bundle())):
        holder = hold(model)
        holder.load()
        with pytest.raises(RootstockError, match="has no other versions"):
            holder.pin("1")


def test_a_directory_is_followed_too(hold, tmp_path):
    folder = tmp_path / "model"
    write_tiny_bundle(folder)
    holder = hold(str(folder))
    first = holder.load().info["version"]
    assert holder.refresh() is False
    write_tiny_bundle(folder, calibration={"temperature": 2.0})
    assert holder.refresh() is True
    assert holder.predictor.info["version"] != first
    (folder / "checksums.json").write_text("{}")
    with pytest.raises(BundleError):
        holder.refresh()
    assert holder.ready


def test_old_versions_leave_disk_but_stay_in_use(registry, hold, tmp_path):
    holder = hold()
    first = holder.load()
    for _ in range(5):
        registry.add()
        holder.refresh()
    kept = sorted(p.parent.name for p in (tmp_path / "cache").rglob("bundle.json"))
    assert kept == ["4-run4", "5-run5", "6-run6"]
    assert first.predict([jpeg(0)], coverage=0.5)[0].labels


def test_champion_and_challenger_notes_are_separate(registry, hold, tmp_path):
    hold().load()
    for _ in range(4):
        registry.add()
        registry.set_alias("flowers", "challenger", registry.aliases["flowers", "champion"])
        registry.set_alias("flowers", "champion", "1")
        hold("models:/flowers@challenger").load()
    registry.down = True
    # The former champion is still there, and is not confused with the challenger
    assert hold().load().info["version"] == "1"
    assert hold("models:/flowers@challenger").load().info["version"] == "5"


def test_admin_routes_change_the_model_and_report_it(registry, hold, tmp_path):
    key = {"X-API-Key": make_key("ops", "admin", tmp_path / "keys")}
    settings = Settings(
        model="models:/flowers@champion",
        keys=tmp_path / "keys",
        decoders=1,
        lanes=1,
        poll_seconds=60,
    )
    holder = hold()
    holder.load()
    with TestClient(create_app(settings, holder=holder)) as client:
        registry.add()
        found = client.post("/admin/reload", headers=key).json()
        assert found == {"version": "2", "before": "1", "changed": True, "pinned": ""}
        assert client.post("/admin/rollback", headers=key).json()["pinned"] == "1"
        assert client.get("/v1/model", headers=key).json()["pinned"] == "1"
        assert client.post("/admin/unpin", headers=key).json()["version"] == "2"
        refused = client.post("/admin/pin", json={"version": "9"}, headers=key)
        assert (refused.status_code, "9" in refused.json()["detail"]) == (409, True)
        registry.add()
        damage(registry, "3")
        refused = client.post("/admin/reload", headers=key)
        assert refused.status_code == 409
        assert client.get("/v1/model", headers=key).json()["refused"]["version"] == "3"
        text = client.get("/metrics").text
        assert 'rootstock_model_swaps_total{outcome="refused",role="champion"} 1.0' in text
        assert "rootstock_registry_up 1.0" in text


@pytest.mark.integration
def test_fifty_swaps_under_load_lose_no_request(registry, hold):
    """Every answer is a 200 from a version that was champion during the request."""
    holder = hold()
    holder.load()
    settings = Settings(model="models:/flowers@champion", decoders=1, lanes=1, poll_seconds=60)
    with TestClient(create_app(settings, holder=holder)) as client:
        served, stop = [], threading.Event()

        def ask():
            while not stop.is_set():
                before = int(holder.predictor.info["version"])
                answer = client.post(
                    "/v1/predict", content=jpeg(0), headers={"content-type": "image/jpeg"}
                )
                after = int(holder.predictor.info["version"])
                version = int(answer.json().get("model", {}).get("version", -1))
                served.append((answer.status_code, before <= version <= after))

        askers = [threading.Thread(target=ask) for _ in range(4)]
        for thread in askers:
            thread.start()
        for _ in range(50):
            registry.add()
            assert holder.refresh()
        stop.set()
        for thread in askers:
            thread.join()
    assert len(served) > 50
    assert set(served) == {(200, True)}
    assert read_bundle(holder.predictor.bundle.directory).digest


@pytest.fixture
def slow_download(registry, monkeypatch):
    """Downloads of version 2 start, and end when the test allows it."""
    begun, release = threading.Event(), threading.Event()
    download, calls = registry.download, []

    def wait(entry, target):
        if entry.version == "2":
            calls.append(entry.version)
            begun.set()
            assert release.wait(30)
        return download(entry, target)

    monkeypatch.setattr(registry, "download", wait)
    yield SimpleNamespace(begun=begun, release=release, calls=calls)
    release.set()


def test_pin_does_not_wait_for_another_download(registry, hold, slow_download):
    holder = hold()
    holder.load()
    registry.add()
    with ThreadPoolExecutor() as pool:
        looking = pool.submit(holder.refresh)
        assert slow_download.begun.wait(10)
        holder.pin("1")
        assert holder.pinned == "1"
        assert not looking.done()
        slow_download.release.set()
        # Changes that began before the pin do not undo it
        assert looking.result(timeout=30) is False
    assert holder.predictor.info["version"] == "1"


def test_pin_of_slow_version_completes_later(registry, hold, slow_download, monkeypatch):
    monkeypatch.setattr("rootstock.service.models.holder.ADMIN_SECONDS", 1.0)
    holder = hold()
    holder.load()
    registry.add()
    start = time.monotonic()
    with pytest.raises(RootstockError, match="version 2 is not downloaded yet after"):
        holder.pin("2")
    assert time.monotonic() - start < 5
    assert holder.predictor.info["version"] == "1"
    assert holder.refused is None
    slow_download.release.set()
    monkeypatch.setattr("rootstock.service.models.holder.ADMIN_SECONDS", 30.0)
    holder.pin("2")
    assert holder.predictor.info["version"] == "2"
    assert slow_download.calls == ["2"]


def test_rollback_does_not_ask_registry_that_hangs(registry, hold):
    holder = hold()
    holder.load()
    registry.add()
    holder.refresh()
    registry.seconds = 30.0
    start = time.monotonic()
    holder.rollback()
    assert time.monotonic() - start < 10
    assert holder.predictor.info["version"] == holder.pinned == "1"
