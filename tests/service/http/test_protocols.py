"""The other ways to ask: base64, embeddings, tensors, MLflow's routes; and the honest answers."""

import base64
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from rootstock.model.novelty import Reference
from rootstock.model.predictor import Predictor
from tests.bundles import CLASSES, SIZE, jpeg, write_tiny_bundle
from tests.service.conftest import make_client
from tests.service.http.test_routes import check_problem, post_files


def text(content):
    return base64.b64encode(content).decode()


def test_json_in_base64_is_answered_like_files(client):
    contents = [jpeg(0), b"no image", jpeg(1)]
    by_json = client.post("/v1/predict", json={"images": [text(c) for c in contents]})
    by_form = post_files(client, *((f"images[{n}]", c) for n, c in enumerate(contents)))
    assert by_json.status_code == 200
    assert by_json.json() == by_form.json()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"images": []}, "images: List should have at least 1 item"),
        ({"images": ["http://example.org/a.jpg"]}, "images[0] is not base64"),
        ({"images": ["%%%"]}, "images[0] is not base64"),
        ({"urls": ["http://example.org/a.jpg"]}, "images: Field required"),
        ({"images": [text(jpeg(0))] * 5}, "5 images; at most 4"),
    ],
)
def test_json_that_holds_no_images_is_refused(client, body, says):
    detail = check_problem(client.post("/v1/predict", json=body), 422, "invalid-request")
    assert says in detail


def test_embeddings_are_the_features_of_the_head(client, predictor):
    response = post_files_to(client, "/v1/embeddings", jpeg(0), b"no image")
    good, bad = response["embeddings"]
    expected = predictor.infer([predictor.prepare(jpeg(0))]).features[0]
    np.testing.assert_allclose(good["embedding"], expected, rtol=1e-5)
    assert response["width"] == len(expected)
    assert bad["error"]["reason"] == "not-an-image"


def post_files_to(client, path, *contents):
    files = [("files", (f"{n}.jpg", content)) for n, content in enumerate(contents)]
    response = client.post(path, files=files)
    assert response.status_code == 200
    return response.json()


def test_an_image_like_no_other_is_unknown(tmp_path, predictor):
    seen = predictor.infer([predictor.prepare(jpeg(0))])
    near = seen.features + np.random.default_rng(0).normal(0, 1e-3, (50, seen.features.shape[1]))
    reference = Reference.measure(
        seen.features, near, np.repeat(seen.probabilities, 50, axis=0), np.zeros(50, int)
    )
    write_tiny_bundle(tmp_path / "model", reference=reference, unknown_share=0.05)
    with make_client(model=str(tmp_path / "model")) as client:
        answer = post_files_to(client, "/v1/predict", jpeg(0), jpeg(1))
        metrics = client.get("/metrics").text
    known, foreign = answer["predictions"]
    assert known["unknown"] is False
    assert foreign["unknown"] is True
    assert foreign["novelty"] > known["novelty"]
    assert "rootstock_unknown_images_total 1.0" in metrics


def test_a_prediction_set_grows_with_its_coverage(client):
    sizes = [
        len(post_files(client, ("a", jpeg(0)), coverage=c).json()["predictions"][0]["labels"])
        for c in (0.1, 0.9)
    ]
    assert 1 <= sizes[0] <= sizes[1] <= len(CLASSES)
    assert "labels" not in post_files(client, ("a", jpeg(0))).json()["predictions"][0]


@pytest.mark.parametrize("coverage", [0, 1, 1.5, "high"])
def test_an_impossible_coverage_is_refused(client, coverage):
    response = post_files(client, ("a", jpeg(0)), coverage=coverage)
    assert "coverage" in check_problem(response, 422, "invalid-request")


def test_a_model_of_before_has_no_prediction_sets(tmp_path):
    write_tiny_bundle(tmp_path / "old")
    with make_client(model=str(tmp_path / "old")) as client:
        plain = post_files(client, ("a", jpeg(0))).json()["predictions"][0]
        refused = post_files(client, ("a", jpeg(0)), coverage=0.9)
    assert "unknown" not in plain
    assert "keeps no validation scores" in check_problem(refused, 422, "invalid-request")


def tensor_request(images, **changes):
    tensor = {
        "name": "tensor",
        "datatype": "FP32",
        "shape": list(images.shape),
        "data": images.ravel().tolist(),
    }
    return {"inputs": [tensor | changes]}


def test_a_prepared_tensor_is_answered_like_its_image(client, predictor):
    prepared = predictor.bundle.preprocess.normalise(predictor.prepare(jpeg(0)))
    answer = client.post("/v2/models/tiny/infer", json=tensor_request(prepared)).json()
    [expected] = predictor.predict([jpeg(0)], top_k=3)
    found = dict(zip(CLASSES, answer["outputs"][1]["data"], strict=True))
    assert found == pytest.approx(dict(expected.top), abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shape": [1, 3, 2, 2]}, f"is not [N, 3, {SIZE}, {SIZE}]"),
        ({"shape": [2, 3, SIZE, SIZE]}, "does not fit shape"),
        ({"datatype": "BYTES"}, "`tensor` is FP32"),
        ({"data": ["x"]}, "does not fit shape"),
        ({"data": [None] * (3 * SIZE * SIZE)}, "beyond 1e+06"),
    ],
)
def test_a_tensor_of_another_shape_is_refused(client, changes, says):
    images = np.zeros((1, 3, SIZE, SIZE), np.float32)
    response = client.post("/v2/models/tiny/infer", json=tensor_request(images, **changes))
    assert says in check_problem(response, 422, "invalid-request")


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["id", "image"], "data": [[1, "?"], [2, "?"]]}},
        {"dataframe_records": [{"image": "?"}, {"image": "?"}]},
        {"instances": ["?", "?"]},
        {"inputs": {"image": ["?", "?"]}},
    ],
)
def test_every_form_of_mlflow_is_understood(client, predictor, body):
    import json

    filled = json.loads(json.dumps(body).replace("?", text(jpeg(0))))
    rows = client.post("/invocations", json=filled).json()["predictions"]
    [expected] = predictor.predict([jpeg(0)])
    assert [row["label"] for row in rows] == [expected.label] * 2
    assert rows[0]["probability"] == pytest.approx(expected.probability, abs=1e-5)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "column `image`"),
        ({"dataframe_split": {"columns": ["x"], "data": [["y"]]}}, "no column `image`"),
        ({"instances": [1]}, "base64 texts"),
        ({"instances": [text(b"no image")]}, "image[0]"),
    ],
)
def test_other_invocations_are_refused(client, body, says):
    response = client.post("/invocations", json=body)
    assert response.status_code == 422
    assert says in response.json()["detail"]


def test_mlflows_ping_is_readiness(client, empty_client):
    assert client.get("/ping").status_code == 200
    assert empty_client.get("/ping").status_code == 503


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_engines_give_the_same_answers(client, engine):
    with make_client(engine=engine) as other:
        assert other.get("/v1/model").json()["engine"] == engine
        found, expected = (
            post_files(c, ("a", jpeg(0))).json()["predictions"][0] for c in (other, client)
        )
    assert [t["label"] for t in found["top"]] == [t["label"] for t in expected["top"]]
    for one, two in zip(found["top"], expected["top"], strict=True):
        assert one["probability"] == pytest.approx(two["probability"], abs=1e-4)


def test_the_service_answers_as_the_predictor_predicts(client):
    contents = [jpeg(seed) for seed in range(4)]
    from tests.bundles import tiny_bundle

    expected = Predictor(tiny_bundle()).predict(contents)
    found = post_files(client, *((str(n), c) for n, c in enumerate(contents))).json()
    for entry, one in zip(found["predictions"], expected, strict=True):
        assert entry["top"][0]["label"] == one.label
        assert entry["top"][0]["probability"] == pytest.approx(one.probability, abs=1e-4)


def test_base64_with_line_breaks_is_read(client):
    broken = base64.encodebytes(jpeg(0)).decode()
    assert "\n" in broken.strip()
    assert client.post("/v1/predict", json={"images": [broken]}).status_code == 200


MANY = "more than 1400 elements"


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/predict", {"images": [0] * 300_000}, MANY),
        ("/v2/models/model/infer", {"inputs": [0] * 300_000}, "body.inputs.0"),
        ("/v2/models/model/infer", {"inputs": [], "outputs": [0] * 300_000}, "body.outputs.0"),
        ("/v2/models/model/infer", {"inputs": [0] * 2_000_002}, "more than 2000000 elements"),
        ("/invocations", {"dataframe_records": [0] * 300_000}, MANY),
        ("/invocations", {"dataframe_split": {"columns": [0] * 1_000, "data": [[]]}}, "columns.0"),
        ("/invocations", {"instances": [[]] * 300_000}, MANY),
    ],
)
def test_a_million_wrong_elements_cost_no_more_than_one(body, path, says):
    """Every error of a list would be made and told: seconds, gigabytes, and a long answer."""
    with make_client(max_images=4) as client:
        answer = client.post(path, json=body)
    assert says in check_problem(answer, 422, "invalid-request")
    assert len(answer.content) < 1_000


@pytest.mark.parametrize(
    "change",
    [
        {"id": "\ud800"},
        {"inputs": [{"name": "tensor", "datatype": "FP32", "shape": [1], "data": [10**400]}]},
    ],
)
def test_what_cannot_be_answered_is_refused(client, predictor, change):
    images = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [text(jpeg(0))]}
    body = {"inputs": [images]} | change
    if "inputs" in change:
        side = predictor.bundle.preprocess.input_size
        body["inputs"][0] |= {
            "shape": [1, 3, side, side],
            "data": [10**400] + [0] * (3 * side**2 - 1),
        }
    content = json.dumps(body)
    path = f"/v2/models/{client.get('/v1/model').json()['name']}/infer"
    answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
    check_problem(answer, 422, "invalid-request")


def test_every_protocol_is_counted_and_what_is_refused_is_not_journalled(tmp_path):
    with make_client(journal=tmp_path) as client:
        name = client.get("/v1/model").json()["name"]
        images = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [text(jpeg(0))]}
        asked = [
            client.post(f"/v2/models/{name}/infer", json={"inputs": [images]}),
            client.post("/invocations", json={"instances": [text(jpeg(1))]}),
            post_files(client, ("a", jpeg(2))),
        ]
        assert {answer.status_code for answer in asked} == {200}
        assert 'rootstock_images_total{outcome="ok"} 3.0' in client.get("/metrics").text
        refused = client.post("/invocations", json={"instances": [text(jpeg(1)), text(b"none")]})
        assert "image[1]: " in check_problem(refused, 422, "unusable-image")
    (journal,) = tmp_path.glob("*.parquet")
    assert pq.read_table(journal).num_rows == 3


def test_every_readiness_route_says_the_same(monkeypatch):
    with make_client() as client:
        paths = ("/readyz", "/v2/health/ready", "/ping")
        assert [client.get(path).status_code for path in paths] == [200] * 3
        client.app.state.service.draining = True
        assert [client.get(path).status_code for path in paths] == [503] * 3
        assert client.head("/healthz").status_code == 200
