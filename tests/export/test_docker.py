"""The folder of `export --format docker`: what its Dockerfile does, without a container engine."""

import json
import re
import shlex
import urllib.request
from pathlib import Path

import pytest

from rootstock.cli.main import main
from rootstock.errors import BundleError
from rootstock.export.docker import write_docker
from rootstock.model.bundle import read_bundle
from tests.bundles import jpeg, tiny_bundle
from tests.packaging.environments import clean_variables, make_environment
from tests.service.test_serve import serving_command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("docker") / "image"
    main(["export", "--format", "docker", "--model", str(tiny_bundle()), "--out", str(out)])
    return out


@pytest.fixture(scope="module")
def steps(folder):
    """The instructions of the Dockerfile: (name, the rest)."""
    text = (folder / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def test_the_dockerfile_names_only_files_that_exist(folder, steps):
    copied = [rest.split()[:-1] for name, rest in steps if name == "COPY"]
    assert len(copied) == 3
    assert all((folder / source).exists() for sources in copied for source in sources)
    assert (folder / "rootstock/service/http/page.html").is_file()
    assert not list(folder.rglob("__pycache__"))
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in folder.rglob("*"))


def test_image_is_pinned_has_no_root_and_checks_itself(folder, steps):
    of_name = dict(steps)
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+-slim-bookworm", of_name["ARG"])
    assert of_name["USER"] == "10001:10001"
    assert "/readyz" in of_name["HEALTHCHECK"]
    names = [line.partition("==")[0] for line in read_lines(folder / "constraints.txt")]
    assert {"fastapi", "onnxruntime", "uvicorn", "httptools"} <= set(names)
    assert not {"torch", "mlflow", "pyarrow", "grpcio", "tqdm"} & set(names)
    required = [
        re.match(r"[\w-]+", line)[0].lower() for line in read_lines(folder / "requirements.txt")
    ]
    assert set(required) <= set(names)
    assert len(read_lines(folder / "README.md")) == 5


def read_lines(path: Path):
    return path.read_text(encoding="utf-8").splitlines()


@pytest.mark.integration
def test_the_steps_of_the_dockerfile_give_a_service(folder, steps, tmp_path):
    """In an environment with exactly the packages of requirements.txt."""
    bin_ = make_environment(tmp_path / "env", read_lines(folder / "requirements.txt"))
    settings = {}
    for name, rest in steps:
        if name == "ENV":
            settings |= dict(word.split("=", 1) for word in shlex.split(rest))
    settings = {
        key: value.replace("/opt/rootstock", str(folder)) for key, value in settings.items()
    }
    [program] = [json.loads(rest) for name, rest in steps if name == "ENTRYPOINT"]
    command = [bin_ / program[0], *program[1:]]
    local = {"ROOTSTOCK_HOST": "127.0.0.1", "ROOTSTOCK_PORT": "0"}
    variables = clean_variables() | settings | local
    with serving_command(command, folder=tmp_path, variables=variables) as address:
        request = urllib.request.Request(
            f"{address}/v1/predict", jpeg(0), {"Content-Type": "image/jpeg"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.load(answer)["model"]["name"] == "tiny"


def test_a_folder_with_files_is_not_overwritten(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(BundleError, match="not empty"):
        write_docker(read_bundle(tiny_bundle()), "tiny", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
