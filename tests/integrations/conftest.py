"""One MLflow database for all tests here: making its tables takes seconds."""

import os

import pytest

from rootstock.integrations.connect import quiet_environment


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory):
    """The URI of an SQLite database in a folder of its own."""
    before = dict(os.environ)
    quiet_environment()
    yield f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def client(mlflow_uri):
    """MLflow's own view of the database."""
    from mlflow import MlflowClient

    return MlflowClient(mlflow_uri, registry_uri=mlflow_uri)
