"""The routes below /v1: requests, answers, and rejections with their problems."""

import io

import numpy as np
import pytest
from PIL import Image

from rootstock.explain.heat_map import explain_images
from rootstock.explain.similar import ImageIndex
from rootstock.model.known_images import KnownImage, KnownImages
from rootstock.model.novelty import Reference
from rootstock.model.predictor import Predictor
from rootstock.tasks.single_label.task import SingleLabel
from rootstock.tasks.targets import Targets
from tests.bundles import (
    CLASSES,
    jpeg,
    tiny_bundle,
    tiny_network,
    tiny_reference,
    twin_bundle,
    write_tiny_bundle,
)
from tests.service.conftest import make_client
from tests.service.requests import PROBLEM, check_problem, post_files


def black():
    """Return a black PNG."""
    buffer = io.BytesIO()
    Image.new("RGB", (80, 80)).save(buffer, "PNG")
    return buffer.getvalue()


def test_one_file_is_answered_as_the_predictor_does(client, predictor):
    response = post_files(client, ("a.jpg", jpeg(0), "image/jpeg"))
    expected = predictor.predict([jpeg(0)])[0]
    assert response.status_code == 200
    body = response.json()
    assert body["model"] == {
        "name": predictor.info["name"],
        "version": predictor.info["version"],
        "task": "single_label",
        "strategy": "linear_probe",
    }
    assert body["predictions"][0]["filename"] == "a.jpg"
    found = [(entry["label"], entry["probability"]) for entry in body["predictions"][0]["top"]]
    assert found == [(one.label, pytest.approx(one.probability)) for one in expected.top]


def test_several_files_keep_their_order(client, predictor):
    names = ["b.jpg", "a.jpg", "c.jpg"]
    response = post_files(client, *[(n, jpeg(i), "image/jpeg") for i, n in enumerate(names)])
    predictions = response.json()["predictions"]
    assert [entry["filename"] for entry in predictions] == names
    expected = [p.label for p in predictor.predict([jpeg(i) for i in range(3)])]
    assert [entry["top"][0]["label"] for entry in predictions] == expected


def test_top_k_limits_the_labels(client):
    assert len(post_files(client, ("a", jpeg(0))).json()["predictions"][0]["top"]) == 3
    one = post_files(client, ("a", jpeg(0)), top_k=1).json()["predictions"][0]["top"]
    assert len(one) == 1
    many = post_files(client, ("a", jpeg(0)), top_k=1000).json()["predictions"][0]["top"]
    assert len(many) == 3


@pytest.mark.parametrize("top_k", ["0", "-1", "many", "1.5", ""])
def test_a_wrong_top_k_names_the_parameter(client, top_k):
    response = post_files(client, ("a", jpeg(0)), top_k=top_k)
    assert "query.top_k" in check_problem(response, 422, "invalid-request")


def test_bad_image_among_good_ones_gets_an_error(client):
    response = post_files(
        client,
        ("good.jpg", jpeg(0), "image/jpeg"),
        ("bad.jpg", b"not an image", "image/jpeg"),
        ("note.txt", b"hello", "text/plain"),
    )
    good, bad, note = response.json()["predictions"]
    assert response.status_code == 200
    assert "error" not in good
    assert bad["error"]["type"] == PROBLEM + "unusable-image"
    assert bad["error"]["reason"] == "not-an-image"
    assert set(bad["error"]) == {"type", "title", "detail", "reason"}
    assert note["error"] == bad["error"]


def spoil(monkeypatch, client):
    """Make the engine fail on black images."""
    engine = client.app.state.service.holder.predictor.infer

    def infer(prepared):
        if any(image.max() == 0 for image in prepared):
            raise RuntimeError("poison")
        return engine(prepared)

    monkeypatch.setattr(client.app.state.service.holder.predictor, "infer", infer)


def test_failing_image_does_not_affect_others(client, monkeypatch):
    spoil(monkeypatch, client)
    response = post_files(client, ("a", jpeg(0)), ("black", black()), ("b", jpeg(1)))
    good, bad, other = response.json()["predictions"]
    assert response.status_code == 200
    assert bad["error"]["type"] == PROBLEM + "internal"
    assert "poison" not in response.text
    assert good["top"]
    assert other["top"]
    check_problem(post_files(client, ("a", black()), ("b", black())), 500, "internal")
    check_problem(post_files(client, ("a", black())), 500, "internal")
    mixed = post_files(client, ("a", black()), ("b", b"no image"))
    check_problem(mixed, 500, "internal")


def test_only_bad_images_are_422_that_lists_them(client):
    response = post_files(client, ("a.jpg", b"x" * 100), ("b.jpg", jpeg(0)[:900]))
    detail = check_problem(response, 422, "unusable-image")
    assert detail.startswith("None of the 2 images can be used")
    assert [e["filename"] for e in response.json()["errors"]] == ["a.jpg", "b.jpg"]


def test_one_bad_image_is_422_with_its_reason(client):
    response = client.post(
        "/v1/predict", content=jpeg(0)[:900], headers={"content-type": "image/jpeg"}
    )
    check_problem(response, 422, "unusable-image")
    assert response.json()["reason"] == "truncated"


def test_a_long_body_is_a_413(client):
    response = client.post(
        "/v1/predict", content=b"x" * 2_000_001, headers={"content-type": "image/jpeg"}
    )
    assert "2,000,000 bytes" in check_problem(response, 413, "too-large")


@pytest.mark.parametrize("boundary", ["", "; boundary=b"])
def test_long_body_without_content_length_is_413(client, boundary):
    read = 0

    def chunks():
        nonlocal read
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        for _ in range(1000):
            read += 1
            yield b"x" * 100_000

    kind = f"multipart/form-data{boundary}" if boundary else "image/png"
    response = client.post("/v1/predict", content=chunks(), headers={"content-type": kind})
    check_problem(response, 413, "too-large")


def test_an_image_of_too_many_pixels_is_rejected():
    buffer = io.BytesIO()
    Image.new("1", (400, 300)).save(buffer, "PNG")
    with make_client(max_pixels=100_000) as client:
        response = post_files(client, ("big.png", buffer.getvalue()))
    check_problem(response, 422, "unusable-image")
    assert response.json()["reason"] == "too-many-pixels"


def test_rotated_by_exif_is_the_same_image(client):
    upright = Image.open(io.BytesIO(jpeg(0)))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    plain, tagged = io.BytesIO(), io.BytesIO()
    upright.save(plain, "PNG")
    turned.save(tagged, "PNG", exif=exif)
    response = post_files(client, ("a", plain.getvalue()), ("b", tagged.getvalue()))
    first, second = response.json()["predictions"]
    assert first["top"] == second["top"]


def test_an_overloaded_service_says_so():
    with make_client(max_queue=2) as client:
        service = client.app.state.service
        assert post_files(client, ("a", jpeg(0)), ("b", jpeg(1))).status_code == 200
        # An idle service accepts even three: waiting would not make them fit
        alone = post_files(client, *((name, jpeg(0)) for name in "abc"))
        service.in_flight = 1
        response = post_files(client, *((name, jpeg(0)) for name in "abc"))
        service.in_flight = 2
        before_the_body = post_files(client, ("a", jpeg(0)))
    assert alone.status_code == 200
    check_problem(before_the_body, 503, "overloaded")
    check_problem(response, 503, "overloaded")
    assert response.headers["retry-after"] == "1"
    assert before_the_body.headers["retry-after"] == "1"
    assert before_the_body.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/v1/predict", "/v2/models/tiny/infer"])
def test_rejections_are_counted_with_protocol_and_id(path):
    with make_client(max_queue=2) as client:
        client.app.state.service.in_flight = 2
        answers = [
            client.post(path, headers={"X-Request-ID": name}) for name in ("one", "two", "a b")
        ]
        counted = client.get("/metrics").text
    assert [answer.headers["x-request-id"] for answer in answers[:2]] == ["one", "two"]
    assert len(answers[2].headers["x-request-id"]) == 32
    assert all(("error" in answer.json()) == path.startswith("/v2") for answer in answers)
    route = path.replace("tiny", "{name}")
    assert f'method="POST",route="{route}",status="503"}} 3.0' in counted


def test_explained_answer_is_same_with_heat_map(client, predictor):
    plain = post_files(client, ("a.jpg", jpeg(0))).json()["predictions"][0]
    answer = post_files(client, ("a.jpg", jpeg(0)), explain="true").json()["predictions"][0]
    (heat_map,) = answer.pop("heat_maps")
    assert answer == plain
    assert heat_map["output"] == plain["top"][0]["label"]
    assert heat_map["method"] == "maps"
    (expected,) = explain_images(predictor, [predictor.prepare(jpeg(0))])
    assert heat_map["values"] == expected.heat_map.grid.tolist()


def test_another_output_is_explained_on_request(client):
    answers = [
        post_files(client, ("a.jpg", jpeg(0)), output=name).json()["predictions"][0]
        for name in CLASSES
    ]
    heat_maps = [answer["heat_maps"][0] for answer in answers]
    assert [one["output"] for one in heat_maps] == CLASSES
    assert len({str(one["values"]) for one in heat_maps}) == len(CLASSES)


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/explain"])
def test_unknown_output_is_problem_that_names_outputs(client, path):
    response = client.post(path, params={"output": "oak"}, content=jpeg(0))
    assert "tulip" in check_problem(response, 422, "invalid-request")


def test_picture_of_explanation_is_png_of_view(client, predictor):
    response = client.post("/v1/explain", content=jpeg(0))
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    picture = np.asarray(Image.open(io.BytesIO(response.content)))
    view = predictor.prepare(jpeg(0))[0]
    assert picture.shape == view.shape
    plain = client.post("/v1/explain", params={"strength": 0}, content=jpeg(0))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(plain.content))), view)
    assert not np.array_equal(picture, view)
    both = client.post("/v1/explain", params={"strength": [0, 1]}, content=jpeg(0))
    pair = np.asarray(Image.open(io.BytesIO(both.content)))
    np.testing.assert_array_equal(pair, np.concatenate([view, picture], axis=1))


@pytest.mark.parametrize("strength", ["2", "-1", "x", ["0"] * 5])
def test_wrong_strengths_of_a_picture_are_rejected(client, strength):
    response = client.post("/v1/explain", params={"strength": strength}, content=jpeg(0))
    check_problem(response, 422, "invalid-request")


def test_explanation_is_of_one_image(client):
    files = [("files", ("a.jpg", jpeg(0))), ("files", ("b.jpg", jpeg(1)))]
    check_problem(client.post("/v1/explain", files=files), 422, "invalid-request")


def test_unusable_image_is_not_explained(client):
    check_problem(client.post("/v1/explain", content=b"no image"), 422, "unusable-image")


@pytest.fixture(scope="module")
def naming_client(tmp_path_factory):
    """A service whose model lists the images of its reference."""
    images = [KnownImage(f"{seed}.jpg", CLASSES[seed % 3], "") for seed in range(200, 240)]
    folder = tmp_path_factory.mktemp("naming") / "model"
    known = KnownImages(images, np.ones(40, np.float32))
    write_tiny_bundle(folder, reference=tiny_reference(tiny_network()), known=known)
    with make_client(model=str(folder)) as client:
        yield client


def test_neighbours_are_named_on_request(naming_client):
    answer = post_files(naming_client, ("a.jpg", jpeg(207)), neighbours=3).json()["predictions"][0]
    assert [one["path"] for one in answer["neighbours"]][0] == "207.jpg"
    assert answer["neighbours"][0]["target"] == CLASSES[0]
    distances = [one["distance"] for one in answer["neighbours"]]
    assert distances == sorted(distances)
    assert (
        "neighbours" not in post_files(naming_client, ("a.jpg", jpeg(207))).json()["predictions"][0]
    )


def test_similar_images_are_those_of_the_training(naming_client):
    response = naming_client.post("/v1/similar", params={"n": 4}, content=jpeg(211))
    assert response.status_code == 200
    found = response.json()["similar"]
    assert len(found) == 4
    assert found[0]["path"] == "211.jpg"


def test_similar_images_are_searched_in_an_index(tmp_path):
    predictor = Predictor(tiny_bundle())
    prepared = [predictor.prepare(jpeg(seed)) for seed in range(5)]
    names = [f"shop/{seed}.jpg" for seed in range(5)]
    features = predictor.infer(prepared).features
    ImageIndex.make(features, names, [""] * 5, predictor.bundle.digest).write(tmp_path / "index")
    with make_client(index=str(tmp_path / "index")) as client:
        found = client.post("/v1/similar", content=jpeg(3)).json()["similar"]
    assert found[0]["path"] == "shop/3.jpg"


def test_model_without_names_refuses_neighbours(client):
    detail = check_problem(
        post_files(client, ("a.jpg", jpeg(0)), neighbours=3), 422, "invalid-request"
    )
    assert "registry.reference" in detail
    check_problem(client.post("/v1/similar", content=jpeg(0)), 404, "not-found")


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
    labels = np.zeros(50, int)
    remembered = SingleLabel().remember(
        np.repeat(seen.decisions, 50, axis=0), Targets(labels, tuple(CLASSES), labels)
    )
    reference = Reference.measure(seen.features, near, remembered)
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
def test_an_impossible_coverage_is_rejected(client, coverage):
    response = post_files(client, ("a", jpeg(0)), coverage=coverage)
    assert "coverage" in check_problem(response, 422, "invalid-request")


def test_a_model_of_before_has_no_prediction_sets(tmp_path):
    write_tiny_bundle(tmp_path / "old")
    with make_client(model=str(tmp_path / "old")) as client:
        plain = post_files(client, ("a", jpeg(0))).json()["predictions"][0]
        refused = post_files(client, ("a", jpeg(0)), coverage=0.9)
    assert "unknown" not in plain
    assert "has no validation scores" in check_problem(refused, 422, "invalid-request")


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

    expected = Predictor(tiny_bundle()).predict(contents)
    found = post_files(client, *((str(n), c) for n, c in enumerate(contents))).json()
    for entry, one in zip(found["predictions"], expected, strict=True):
        assert entry["top"][0]["label"] == one.label
        assert entry["top"][0]["probability"] == pytest.approx(one.probability, abs=1e-4)


def test_the_model_route_describes_the_model(client, predictor):
    body = client.get("/v1/model").json()
    assert body["classes"] == CLASSES
    assert body["preprocess_hash"] == predictor.bundle.preprocess.hash
    assert body["digest"] == predictor.bundle.digest
    assert body["metrics"]["accuracy"] == 0.5
    assert body["headline"] == "accuracy"
    assert body["lineage"]["data_hash"] == "d"


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_service_runs_precision_that_is_set_and_says_so(precision):
    with make_client(model=str(twin_bundle()), precision=precision) as client:
        answered = post_files(client, ("a", jpeg(0))).json()["predictions"][0]
        model, text = client.get("/v1/model").json(), client.get("/metrics").text
    assert "error" not in answered
    assert (model["engine"], model["precision"]) == ("onnx", precision)
    assert model["int8"]["kept"] is True
    assert model["int8"]["figures"]["score_float32"] == 0.9
    assert f'engine="onnx",name="twin",precision="{precision}"' in text


def test_a_service_times_both_precisions_by_default():
    with make_client(model=str(twin_bundle()), engine="onnx") as client:
        model = client.get("/v1/model").json()
    assert set(model["engine_milliseconds"]) == {"onnx", "onnx-int8"}
    assert model["precision"] in ("float32", "int8")
