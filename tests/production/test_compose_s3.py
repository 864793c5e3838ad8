"""MLflow's artifacts in S3, by the two settings of docs/guides/deployment.md."""

import json

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.production.test_compose_stack import get, register

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

ENDPOINT, BUCKET = "http://127.0.0.1:5055", "models"
KEYS = {"aws_access_key_id": "of-a-test", "aws_secret_access_key": "of-a-test"}


def test_models_are_stored_and_served_from_bucket(make_stack, secrets, needed):
    """The bucket is at an address inside MLflow's container, which no other client can reach."""
    needed("postgres", "psql", "initdb")
    lines = "\n".join(f"{name} = {value}" for name, value in KEYS.items())
    (secrets[0] / "s3_credentials").write_text(f"[default]\n{lines}\n")
    stack = make_stack(
        MLFLOW_ARTIFACTS=f"s3://{BUCKET}/team",
        MLFLOW_S3_ENDPOINT_URL=ENDPOINT,
        MLFLOW_WORKERS="1",
        RAY_OBJECT_STORE_BYTES="100000000",
    )
    stack.start("postgres").wait_until_healthy()
    mlflow = stack.start("mlflow")
    s3 = boto3.client("s3", endpoint_url=ENDPOINT, region_name="us-east-1", **KEYS)
    server = ThreadedMotoServer("127.0.0.1", 5055, verbose=False)
    mlflow.inside(server.start)
    try:
        mlflow.inside(lambda: s3.create_bucket(Bucket=BUCKET))
        mlflow.wait_until_healthy()
        assert stack.start("accounts").wait() == 0
        head = stack.start("ray-head")
        head.wait_until_healthy()
        version = register(stack, head)
        found = mlflow.inside(lambda: s3.list_objects_v2(Bucket=BUCKET)["Contents"])
        names = {one["Key"].rpartition("/")[2] for one in found if one["Key"].startswith("team/")}
        assert {"bundle.json", "model.safetensors", "model.onnx"} <= names
        assert not list(stack.volume("mlflow-artifacts").iterdir())
        replica = stack.start("inference")
        replica.wait_until_healthy()
        key = {"X-API-Key": secrets[1]["predict"]}
        status, body = get(replica, "http://127.0.0.1:8000/v1/model", **key)
        assert (status, json.loads(body)["version"]) == (200, version)
    finally:
        server.stop()
