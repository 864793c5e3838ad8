"""A finished project with odd names, and the studio on it."""

import csv
import shutil
import socket
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn
from fastapi.testclient import TestClient

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.studio.app import create_studio
from rootstock.studio.guard import TOKEN_HEADER
from rootstock.studio.settings import StudioSettings
from tests.bundles import tiny_backbone
from tests.data.folders import photo
from tests.workflow.test_run import go

ADDRESS = "http://127.0.0.1:8100"
SCRIPT = "<img src=x onerror=alert(1)>"
"""A label, and a part of file names, that a careless page would run."""
IMAGES_PER_CLASS = 24

PARAMS = """
data: {{root: images/labels.csv}}
backbone: {{weights: {weights}}}
assess: {{probe_folds: 2}}
plan: {{strategy: linear_probe, race: never}}
train: {{l2_grid: [0.1], views: one}}
search: {{engine: sequential}}
"""


def write_images(folder):
    """Write a table of two classes with a column of metadata, two copies and a broken file."""
    folder.mkdir(parents=True)
    rows = [("path", "label", "camera")]
    for number in range(IMAGES_PER_CLASS):
        for label, name in ((SCRIPT, "odd"), ("plain", "plain")):
            path = f"{name}-{number}-{SCRIPT.replace('/', '')}.png"
            (folder / path).write_bytes(photo(number + 1000 * (label == "plain")))
            rows.append((path, label, "left" if number % 3 else "right"))
    shutil.copy(folder / rows[2][0], folder / "copy.png")
    (folder / "broken.png").write_bytes(b"no image")
    rows += [("copy.png", "plain", "left"), ("broken.png", "plain", "left")]
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A project after all stages. Tests that change it copy it first."""
    root = tmp_path_factory.mktemp("studio") / "insects"
    write_images(root / "images")
    (root / "params.yaml").write_text(PARAMS.format(weights=tiny_backbone().card.weights))
    config = load_config(root / "params.yaml")
    go(config.model_copy(update={"data": _absolute(config.data, root)}), Paths(root).root)
    return root


def _absolute(data, root):
    return data.model_copy(update={"root": root / data.root})


@pytest.fixture
def project(finished, tmp_path):
    """A copy of the finished project."""
    return shutil.copytree(finished, tmp_path / "insects")


def open_studio(root, **settings):
    """Return a client of the studio of a project, with the token that changes need."""
    app = create_studio(StudioSettings(project=root, **settings))
    client = TestClient(app, base_url=ADDRESS, raise_server_exceptions=False)
    client.headers[TOKEN_HEADER] = client.get("/api/session").json()["token"]
    return client


@pytest.fixture(scope="module")
def client(finished):
    return open_studio(finished)


@contextmanager
def running(root, **settings):
    """Serve the studio of a project in this process; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    app = create_studio(StudioSettings(project=root, port=port, **settings))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join(10)
