"""Several models in one process: each by its name, the first by default."""

import re
import shutil

import pytest
from fastapi.testclient import TestClient

from rootstock.errors import ConfigError
from rootstock.service.http.app import create_app
from rootstock.service.http.keys import make_key
from rootstock.service.models.source import read_models
from rootstock.service.settings import Settings
from tests.bundles import CLASSES, jpeg, tiny_bundle, write_tiny_bundle
from tests.service.conftest import make_client
from tests.service.http.test_v2 import body
from tests.service.requests import check_problem, post_files, wait_for

IMAGE = ("a.jpg", jpeg(0))


def serve_several(models, **chosen):
    return TestClient(
        create_app(Settings(**{"models": models, "decoders": 1, "lanes": 1} | chosen))
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two models in folders: the same network, with its classes in another order."""
    home = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_bundle(), home / "first")
    write_tiny_bundle(home / "second", names=[*CLASSES[1:], CLASSES[0]])
    return f"first={home}/first,second={home}/second"


@pytest.fixture(scope="module")
def client(folders):
    with serve_several(folders, max_queue=4) as client:
        wait_for(lambda: client.get("/readyz").is_success, 60)
        yield client


def ask(client, path):
    return client.post(path, files={"files": IMAGE})


def top_of(response):
    return response.json()["predictions"][0]["top"][0]["label"]


def test_the_first_model_answers_where_none_is_named(client):
    default = ask(client, "/v1/predict")
    first, second = (ask(client, f"/v1/models/{name}/predict") for name in ("first", "second"))
    assert default.json()["model"]["name"] == "first"
    assert default.json() == first.json()
    assert second.json()["model"]["name"] == "second"
    assert top_of(second) == [*CLASSES[1:], CLASSES[0]][CLASSES.index(top_of(first))]
    answers = [client.post(f"/v2/models/{name}/infer", json=body(jpeg(0))).json()
               for name in ("first", "second")]  # fmt: skip
    assert [answer["model_name"] for answer in answers] == ["first", "second"]
    labels = [answer["outputs"][0]["data"][0] for answer in answers]
    assert labels == [top_of(first), top_of(second)]


def test_every_route_of_model_has_named_one(client):
    for end in ("/predict", "/embeddings", "/explain"):
        assert ask(client, f"/v1/models/second{end}").is_success, end
    assert client.get("/v1/models/second").json()["name"] == "second"
    assert client.get("/v1/models/second/drift").json()["images"] == 0
    for path in ("/v1/models/third", "/v1/models/third/drift", "/v2/models/third/ready"):
        assert "'first', 'second'" in check_problem(client.get(path), 404, "not-found")


def test_the_list_of_models_says_what_each_takes(client):
    first, second = client.get("/v1/models").json()["models"]
    assert (first["name"], first["default"], first["state"]) == ("first", True, "ready")
    assert (second["name"], second["default"], second["state"]) == ("second", False, "ready")
    assert all(isinstance(one["memory_bytes"], int) for one in (first, second))
    index = client.post("/v2/repository/index").json()
    assert [entry["name"] for entry in index] == ["first", "second"]
    assert len(client.get("/v2/models/stats").json()["model_stats"]) == 2


def test_counters_have_a_label_for_the_model(client):
    ask(client, "/v1/models/second/predict")
    text = client.get("/metrics").text
    value = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(value['rootstock_images_total{model="second",outcome="ok"}']) > 0
    assert float(value['rootstock_batch_size_count{model="first"}']) > 0
    for model in ("first", "second"):
        assert value[f'rootstock_ready{{model="{model}"}}'] == "1.0"
        assert f'rootstock_model_memory_bytes{{model="{model}"}}' in value
        stage = f'rootstock_stage_duration_seconds_count{{model="{model}",stage="decode"}}'
        assert float(value[stage]) > 0
    assert re.search(
        r'http_requests_total\{method="POST",model="second",route="/v1/models/\{name\}/predict",'
        r'status="200"\} [1-9]', text
    )  # fmt: skip
    assert 'model="third"' not in text


def test_drift_counts_only_the_answers_of_its_model(client):
    def count():
        return client.get("/v1/models/first/drift").json()["images"]

    before = count()
    ask(client, "/v1/models/second/predict")
    assert count() == before
    ask(client, "/v1/models/first/predict")
    assert count() == before + 1


def test_a_crowded_model_does_not_crowd_the_other(client):
    second = client.app.state.services.find("second")
    second.in_flight += 4
    try:
        check_problem(ask(client, "/v1/models/second/predict"), 503, "overloaded")
        assert ask(client, "/v1/predict").is_success
        assert ask(client, "/v1/models/first/predict").is_success
    finally:
        second.in_flight -= 4


def test_failing_model_is_named_without_stopping_others(folders, tmp_path):
    broken = shutil.copytree(tiny_bundle(), tmp_path / "broken")
    (broken / "model.onnx").write_bytes(b"damaged")
    with serve_several(f"broken={broken},{folders}") as client:
        ready = wait_for(lambda: (r := client.get("/readyz")).is_success and r, 60)
        assert ready.json()["models"] == {"broken": "failed", "first": "ready", "second": "ready"}
        assert ask(client, "/v1/models/first/predict").is_success
        check_problem(ask(client, "/v1/predict"), 503, "no-model")
        assert client.get("/v2/models/second/ready").is_success
        check_problem(client.get("/v2/models/broken/ready"), 503, "no-model")
        listed = client.get("/v1/models").json()["models"][0]
        assert (listed["state"], listed["default"]) == ("failed", True)
        assert "damaged" in listed["refused"]["reason"]
        assert 'rootstock_ready{model="broken"} 0.0' in client.get("/metrics").text


def test_new_version_of_one_model_leaves_other(folders, tmp_path):
    key = make_key("ops", "admin", tmp_path / "keys")
    home = tmp_path / "home"
    write_tiny_bundle(home / "a")
    write_tiny_bundle(home / "b")
    models = f"a={home}/a,b={home}/b"
    with serve_several(models, keys=tmp_path / "keys") as client:
        client.headers["X-API-Key"] = key
        wait_for(lambda: client.get("/readyz").is_success, 60)
        before = [client.get(f"/v1/models/{name}").json()["version"] for name in "ab"]
        shutil.rmtree(home / "b")
        write_tiny_bundle(home / "b", calibration={"temperature": 3.0})
        assert client.post("/admin/models/b/reload").json()["changed"]
        after = [client.get(f"/v1/models/{name}").json()["version"] for name in "ab"]
        assert after[0] == before[0]
        assert after[1] != before[1]
        assert not client.post("/admin/reload").json()["changed"]
        text = client.get("/metrics").text
        swaps = "rootstock_model_swaps_total"
        assert f'{swaps}{{model="a",outcome="swapped",role="champion"}} 1.0' in text
        assert f'{swaps}{{model="b",outcome="swapped",role="champion"}} 2.0' in text


def test_one_model_is_known_by_its_name_too():
    with make_client() as client:
        assert post_files(client, IMAGE).json() == ask(client, "/v1/models/tiny/predict").json()
        check_problem(client.get("/v1/models/other"), 404, "not-found")
        assert client.get("/readyz").json() == {"status": "ready"}
        [one] = client.get("/v1/models").json()["models"]
        assert (one["name"], one["default"]) == ("tiny", True)
        assert "model=" not in client.get("/metrics").text


@pytest.mark.parametrize(
    ("text", "says"),
    [("a,models:/a/3", "two models"), ("../x", "address of a registered"), ("a b/=x", "model name"),
     ("models:/a", "address of a registered")],
)  # fmt: skip
def test_a_wrong_list_of_models_is_rejected(text, says):
    with pytest.raises(ConfigError, match=says):
        read_models(text)


def test_models_are_read_from_names_addresses_and_folders():
    assert read_models("a, models:/b/3,c=/srv/c") == {
        "a": "models:/a@champion",
        "b": "models:/b/3",
        "c": "/srv/c",
    }
    with pytest.raises(ConfigError, match="both"):
        create_app(Settings(models="a", model="models:/a@champion"))
