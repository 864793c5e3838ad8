"""POST /v1/predict: what goes in, what comes out, and what is refused with which problem."""

import gzip
import io

import pytest
from PIL import Image

from tests.bundles import jpeg
from tests.service.conftest import make_client

PROBLEM = "urn:rootstock:problem:"


def black():
    """A PNG without any light."""
    buffer = io.BytesIO()
    Image.new("RGB", (80, 80)).save(buffer, "PNG")
    return buffer.getvalue()


def post_files(client, *files, **params):
    return client.post("/v1/predict", files=[("files", file) for file in files], params=params)


def check_problem(response, status, kind):
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["type"] == PROBLEM + kind
    assert body["status"] == status
    assert body["title"]
    return body["detail"]


def test_one_file_is_answered_as_the_predictor_does(client, predictor):
    response = post_files(client, ("a.jpg", jpeg(0), "image/jpeg"))
    expected = predictor.predict([jpeg(0)])[0]
    assert response.status_code == 200
    body = response.json()
    assert body["model"] == {
        "name": predictor.info["name"],
        "version": predictor.info["version"],
        "strategy": "linear_probe",
    }
    assert body["predictions"][0]["filename"] == "a.jpg"
    found = [(entry["label"], entry["probability"]) for entry in body["predictions"][0]["top"]]
    assert found == [(label, pytest.approx(share)) for label, share in expected.top]


def test_several_files_keep_their_order(client, predictor):
    names = ["b.jpg", "a.jpg", "c.jpg"]
    response = post_files(client, *[(n, jpeg(i), "image/jpeg") for i, n in enumerate(names)])
    predictions = response.json()["predictions"]
    assert [entry["filename"] for entry in predictions] == names
    expected = [p.label for p in predictor.predict([jpeg(i) for i in range(3)])]
    assert [entry["top"][0]["label"] for entry in predictions] == expected


def test_a_raw_body_is_one_image(client):
    raw = client.post("/v1/predict", content=jpeg(1), headers={"content-type": "image/jpeg"})
    form = post_files(client, ("x.jpg", jpeg(1), "image/jpeg"))
    assert raw.status_code == 200
    assert raw.json()["predictions"][0]["top"] == form.json()["predictions"][0]["top"]


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


def test_a_bad_image_among_good_ones_has_its_own_error(client):
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
    assert note["error"]["type"] == PROBLEM + "unsupported-media-type"


def spoil(monkeypatch, client):
    """Let the engine fail on black images."""
    engine = client.app.state.service.holder.predictor.infer

    def infer(prepared):
        if any(image.max() == 0 for image in prepared):
            raise RuntimeError("poison")
        return engine(prepared)

    monkeypatch.setattr(client.app.state.service.holder.predictor, "infer", infer)


def test_an_image_that_the_model_fails_on_leaves_the_others_alone(client, monkeypatch):
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


def test_only_bad_images_are_a_422_that_lists_them(client):
    response = post_files(client, ("a.jpg", b"x" * 100), ("b.jpg", jpeg(0)[:900]))
    detail = check_problem(response, 422, "unusable-image")
    assert detail.startswith("None of the 2 images can be used")
    assert [e["filename"] for e in response.json()["errors"]] == ["a.jpg", "b.jpg"]


def test_one_bad_image_is_a_422_with_its_reason(client):
    response = client.post(
        "/v1/predict", content=jpeg(0)[:900], headers={"content-type": "image/jpeg"}
    )
    check_problem(response, 422, "unusable-image")
    assert response.json()["reason"] == "truncated"


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/octet-stream", "image/svg+xml"]
)
def test_a_body_of_another_type_is_a_415(client, content_type):
    response = client.post("/v1/predict", content=jpeg(0), headers={"content-type": content_type})
    assert content_type in check_problem(response, 415, "unsupported-media-type")


def test_a_body_without_a_type_is_a_415(client):
    detail = check_problem(client.post("/v1/predict"), 415, "unsupported-media-type")
    assert "Content-Type is missing" in detail


def test_a_lone_text_file_is_a_415(client):
    response = post_files(client, ("note.txt", b"hello", "text/plain"))
    check_problem(response, 415, "unsupported-media-type")


def test_a_packed_body_is_a_415(client):
    response = client.post(
        "/v1/predict",
        content=gzip.compress(jpeg(0)),
        headers={"content-type": "image/jpeg", "content-encoding": "gzip"},
    )
    assert "Content-Encoding" in check_problem(response, 415, "unsupported-media-type")


@pytest.mark.parametrize(
    ("charset", "name", "status"),
    [
        ("utf-8", "ä.jpg".encode(), 200),
        ("utf-7", b"+2AA-.jpg", 200),
        ("unicode_escape", rb"\ud800.jpg", 200),
        ("undefined", b"a.jpg", 400),
        ("no-such-charset", b"a.jpg", 200),
    ],
)
def test_names_in_any_encoding_are_no_fault_of_the_service(client, charset, name, status):
    body = b'--X\r\ncontent-disposition: form-data; name="files"; filename="%s"\r\n\r\n' % name
    response = client.post(
        "/v1/predict",
        content=body + jpeg(0) + b"\r\n--X--\r\n",
        headers={"content-type": f"multipart/form-data; boundary=X; charset={charset}"},
    )
    assert response.status_code == status, response.text


def test_no_upload_touches_the_disk(client, monkeypatch):
    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    response = post_files(client, ("large.jpg", b"x" * 1_500_000), ("a", jpeg(0)))
    large, small = response.json()["predictions"]
    assert (response.status_code, large["error"]["reason"]) == (200, "not-an-image")
    assert small["top"]


def test_a_long_body_is_a_413(client):
    response = client.post(
        "/v1/predict", content=b"x" * 2_000_001, headers={"content-type": "image/jpeg"}
    )
    assert "2000000 bytes" in check_problem(response, 413, "too-large")


@pytest.mark.parametrize("boundary", ["", "; boundary=b"])
def test_a_long_body_without_content_length_is_a_413(client, boundary):
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


def test_a_form_without_files_is_invalid(client):
    response = client.post("/v1/predict", files={"image": ("a.jpg", jpeg(0))})
    assert "no field `files`" in check_problem(response, 422, "invalid-request")


def test_a_text_field_is_no_file(client):
    response = client.post("/v1/predict", data={"files": "a"}, files={"x": ("a", b"")})
    assert "is text, not a file" in check_problem(response, 422, "invalid-request")


def test_too_many_files_are_refused(client):
    response = post_files(client, *[(f"{i}.jpg", jpeg(0)) for i in range(5)])
    assert "4" in check_problem(response, 422, "invalid-request")


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=b"])
def test_a_broken_form_is_a_400(client, kind):
    response = client.post(
        "/v1/predict", content=b"--a\r\nnonsense", headers={"content-type": kind}
    )
    assert response.status_code in (400, 422)
    assert response.headers["content-type"] == "application/problem+json"


def test_an_image_of_too_many_pixels_is_refused():
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
        # With nothing else to do even three are taken: they would never fit better
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
def test_refusals_are_counted_and_keep_their_protocol_and_ids(path):
    with make_client(max_queue=2) as client:
        client.app.state.service.in_flight = 2
        answers = [
            client.post(path, headers={"X-Request-ID": name}) for name in ("one", "two", "a b")
        ]
        counted = client.get("/metrics").text
    assert [answer.headers["x-request-id"] for answer in answers[:2]] == ["one", "two"]
    assert len(answers[2].headers["x-request-id"]) == 32
    assert all(("error" in answer.json()) == path.startswith("/v2") for answer in answers)
    assert 'method="other",route="other",status="503"} 3.0' in counted
