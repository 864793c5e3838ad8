"""The content of a request: forms, base64 in JSON, one image; and rejected content."""

import base64
import gzip
import json

import pytest

from tests.bundles import jpeg
from tests.service.conftest import make_client
from tests.service.requests import base64_text, check_problem, post_files


def test_json_in_base64_is_answered_like_files(client):
    contents = [jpeg(0), b"no image", jpeg(1)]
    by_json = client.post("/v1/predict", json={"images": [base64_text(c) for c in contents]})
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
        ({"images": [base64_text(jpeg(0))] * 5}, "5 images; at most 4"),
    ],
)
def test_json_that_holds_no_images_is_rejected(client, body, says):
    detail = check_problem(client.post("/v1/predict", json=body), 422, "invalid-request")
    assert says in detail


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
def test_million_wrong_elements_cost_no_more_than_one(body, path, says):
    """Otherwise every error of a list would be created and reported: seconds and gigabytes."""
    with make_client(max_images=4) as client:
        answer = client.post(path, json=body)
    assert says in check_problem(answer, 422, "invalid-request")
    assert len(answer.content) < 1_000


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/v2/models/tiny/infer", '{"inputs":[{"name":"tensor","data":[%s]}]}' % ("[]" * 20_001)),
        ("/v2/models/tiny/infer", '{"inputs":[{"data":[%s]}]}' % ('{"a":' * 20_001)),
        ("/invocations", '{"instances":[%s]}' % ("[" * 1_500 + "]" * 1_500)),
        ("/v1/predict", '{"images":[%s]}' % ("[" * 1_500)),
        ("/admin/pin", '{"version":%s}' % ("[" * 10)),
    ],
)
def test_nested_lists_are_counted_before_parsing(client, monkeypatch, path, text):
    def parse(*arguments, **named):
        raise AssertionError("it was parsed")

    monkeypatch.setattr("json.loads", parse)
    if path.startswith("/admin"):
        monkeypatch.setattr("rootstock.service.http.access.KeyRing.needed", lambda *_: False)
    headers = {"content-type": "application/json"}
    response = client.post(path, content=text, headers=headers)
    monkeypatch.undo()
    assert "lists and objects" in check_problem(response, 422, "invalid-request")


def test_a_raw_body_is_one_image(client):
    raw = client.post("/v1/predict", content=jpeg(1), headers={"content-type": "image/jpeg"})
    form = post_files(client, ("x.jpg", jpeg(1), "image/jpeg"))
    assert raw.status_code == 200
    assert raw.json()["predictions"][0]["top"] == form.json()["predictions"][0]["top"]


TYPES = (
    "",
    "application/octet-stream",
    "image/*",
    "image/jfif",
    "text/plain",
    "multipart/form-data",
)
"""Types that clients declare for an image."""


@pytest.mark.parametrize("declared", [*TYPES[:-1], "application/x-www-form-urlencoded"])
def test_content_of_body_decides_what_it_is(client, declared):
    headers = {"content-type": declared} if declared else {}
    image = client.post("/v1/predict", content=jpeg(1), headers=headers)
    text = json.dumps({"images": [base64_text(jpeg(1))]})
    encoded = client.post("/v1/predict", content=text, headers=headers)
    for response in (image, encoded):
        assert response.status_code == 200, response.text
    tops = [response.json()["predictions"][0]["top"] for response in (image, encoded)]
    assert tops[0] == tops[1]
    nothing = client.post("/v1/predict", content=b"a,b", headers=headers)
    check_problem(nothing, 422, "unusable-image")
    assert nothing.json()["reason"] == "not-an-image"


@pytest.mark.parametrize("declared", TYPES)
def test_content_of_part_decides_what_it_is(client, declared):
    response = post_files(client, ("a.bin", jpeg(1), declared))
    assert response.json()["predictions"][0]["top"]


@pytest.mark.parametrize(
    ("parameters", "filename"),
    [
        ("; filename*=UTF-8''na%C3%AFve%20a.jpg", "naïve a.jpg"),
        ("; filename=naive.jpg; filename*=utf-8''na%C3%AFve.jpg", "naïve.jpg"),
        ("; filename*=latin1'de'na%EFve.jpg", "naïve.jpg"),
        ('; filename="a;b*.jpg"', "a;b*.jpg"),
        ("", "files[0]"),
    ],
)
def test_part_with_unusual_name_is_file(client, parameters, filename):
    head = f'--X\r\ncontent-disposition: form-data; name="files"{parameters}\r\n\r\n'
    response = client.post(
        "/v1/predict",
        content=head.encode() + jpeg(0) + b"\r\n--X--\r\n",
        headers={"content-type": "multipart/form-data; boundary=X"},
    )
    assert response.status_code == 200, response.text
    assert response.json()["predictions"][0]["filename"] == filename


def test_an_empty_body_is_invalid(client):
    detail = check_problem(client.post("/v1/predict"), 422, "invalid-request")
    assert "The body is empty" in detail


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
def test_names_in_any_encoding_are_accepted(client, charset, name, status):
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


def test_a_form_without_files_is_invalid(client):
    response = client.post("/v1/predict", files={"image": ("a.jpg", jpeg(0))})
    assert "no field `files`" in check_problem(response, 422, "invalid-request")


def test_text_field_is_file_that_is_not_image(client):
    response = client.post("/v1/predict", data={"files": "a"}, files={"x": ("a", b"")})
    assert response.json()["reason"] == "not-an-image"


def test_too_many_files_are_rejected(client):
    response = post_files(client, *[(f"{i}.jpg", jpeg(0)) for i in range(5)])
    assert "4" in check_problem(response, 422, "invalid-request")


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=b"])
def test_a_broken_form_is_a_400(client, kind):
    response = client.post(
        "/v1/predict", content=b"--a\r\nnonsense", headers={"content-type": kind}
    )
    assert response.status_code in (400, 422)
    assert response.headers["content-type"] == "application/problem+json"
