"""MLflow's scoring route."""

import json

import pytest

from tests.bundles import jpeg
from tests.service.requests import base64_text


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

    filled = json.loads(json.dumps(body).replace("?", base64_text(jpeg(0))))
    rows = client.post("/invocations", json=filled).json()["predictions"]
    [expected] = predictor.predict([jpeg(0)])
    assert [row["label"] for row in rows] == [expected.label] * 2
    assert rows[0]["probability"] == pytest.approx(expected.probability, abs=1e-5)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "column `image`"),
        ({"dataframe_split": {"columns": ["x"], "data": [["y"]]}}, "no column `image`"),
        ({"instances": [1]}, "base64 strings"),
        ({"instances": [base64_text(b"no image")]}, "image[0]"),
    ],
)
def test_other_invocations_are_rejected(client, body, says):
    response = client.post("/invocations", json=body)
    assert response.status_code == 422
    assert says in response.json()["detail"]
