"""The OpenAPI document."""

import pytest


def test_every_operation_is_documented_with_examples(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/predict", "/v1/model", "/healthz", "/readyz", "/metrics"} <= set(paths)
    for operation in (entry for verbs in paths.values() for entry in verbs.values()):
        assert operation["summary"]
        assert operation["description"]
        assert operation["tags"]
    predict = paths["/v1/predict"]["post"]
    refusals = {"400", "401", "408", "413", "415", "422", "429", "500", "503"}
    assert set(predict["responses"]) == {"200"} | refusals
    kinds = {"multipart/form-data", "application/octet-stream"}
    assert set(predict["requestBody"]["content"]) == kinds
    for operation in (entry for verbs in paths.values() for entry in verbs.values()):
        for status, answer in operation["responses"].items():
            if status != "200":
                assert answer["content"]["application/problem+json"]["examples"]
            assert ("Retry-After" in answer.get("headers", {})) == (status in ("429", "503"))


def test_problems_have_one_schema_and_operations_short_names(client):
    api = client.get("/openapi.json").json()
    operations = [entry for verbs in api["paths"].values() for entry in verbs.values()]
    names = [operation["operationId"] for operation in operations]
    assert {"predict", "embeddings", "infer", "infer_version", "model", "reload"} <= set(names)
    assert len(set(names)) == len(names)
    assert all(name.replace("_", "").isalpha() for name in names)
    for operation in operations:
        for answer in operation["responses"].values():
            problem = answer["content"].get("application/problem+json")
            if problem is not None:
                assert problem["schema"] == {"$ref": "#/components/schemas/ProblemDetails"}
    assert api["components"]["schemas"]["ProblemDetails"]["required"]
    # Generators use the first one.
    body = api["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
    assert next(iter(body)) == "multipart/form-data"


def test_only_what_needs_a_key_says_so(client):
    paths = client.get("/openapi.json").json()["paths"]
    for path, verbs in paths.items():
        for operation in verbs.values():
            assert ("security" in operation) == ("401" in operation["responses"])
            assert ("403" in operation["responses"]) == path.startswith("/admin")
    assert "security" not in paths["/healthz"]["get"]
    assert set(paths["/metrics"]["get"]["responses"]["200"]["content"]) == {"text/plain"}


@pytest.mark.parametrize("path", ["/v2/models/{name}/infer", "/invocations"])
def test_example_of_each_body_works_as_it_stands(client, path):
    api = client.get("/openapi.json").json()
    body = api["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    example = api["components"]["schemas"][body["schema"]["$ref"].split("/")[-1]]["examples"][0]
    response = client.post(path.replace("{name}", "tiny"), json=example)
    assert response.status_code == 200, response.text
