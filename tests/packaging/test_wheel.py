"""The built wheel: its content, and that each extra is enough for its purpose."""

import json
import subprocess
import sys
import urllib.request
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.bundles import CLASSES, jpeg, tiny_bundle
from tests.data.folders import write_classes
from tests.packaging.environments import (
    ROOT,
    clean_variables,
    closure,
    make_environment,
    requirements_of,
)
from tests.service.test_serve import serving_command

pytestmark = pytest.mark.integration
FOR_TRAINING = {"torch", "torchvision", "timm", "scipy", "scikit-learn", "matplotlib", "pyarrow"}
FOR_THE_PIPELINE = {"mlflow", "mlflow-skinny", "ray", "dvc", "pandas", "sqlalchemy"}
LISTING = """
import importlib.util, sys
print(*[name for name in sys.argv[1:] if importlib.util.find_spec(name)])
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the sources."""
    copy = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    (copy / "src").mkdir()
    for path in sources():
        target = copy / "src" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / "src" / path).read_bytes())
    build = ["wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run(
        [sys.executable, "-m", "pip", *build, "--wheel-dir", copy / "built", copy], check=True
    )
    (built,) = (copy / "built").iterdir()
    return built


@pytest.fixture(scope="session")
def programs(wheel, tmp_path_factory):
    """Create an environment once per list of extras; return its folder of programs."""
    made = {}

    def make(*extras):
        if extras not in made:
            folder = tmp_path_factory.mktemp("-".join(extras) or "base") / "env"
            made[extras] = make_environment(folder, requirements_of(*extras), wheel)
        return made[extras]

    return make


def sources():
    """Return every file of the package, relative to src/."""
    files = (path for path in (ROOT / "src/rootstock").rglob("*") if path.is_file())
    return sorted(
        path.relative_to(ROOT / "src")
        for path in files
        if "__pycache__" not in path.parts and path.suffix != ".tmp"
    )


def run(*command, folder):
    return subprocess.run(
        command, cwd=folder, env=clean_variables(), capture_output=True, text=True, check=False
    )


def serving(programs, *arguments, folder):
    """The address of `rootstock serve`, which is stopped afterwards."""
    command = [programs / "rootstock", "serve", "--port", "0", *arguments]
    return serving_command(command, folder=folder, variables=clean_variables())


def ask(address, image, headers=None):
    request = urllib.request.Request(
        f"{address}/v1/predict", image, {"Content-Type": "image/jpeg"} | (headers or {})
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_it_holds_package_its_data_and_its_licence(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {Path(name) for name in archive.namelist()}
        (metadata,) = (path for path in names if path.name == "METADATA")
        facts = Parser().parsestr(archive.read(str(metadata)).decode())
    home = metadata.parent
    assert {path for path in names if path.parts[0] != str(home)} == set(sources())
    assert home / "licenses/LICENSE" in names
    assert facts["Name"] == "rootstock-vision"
    assert facts["License-Expression"] == "Apache-2.0"
    suffixes = {path.suffix for path in names}
    assert {".html", ".json", ".typed"} <= suffixes


def test_licence_is_full_apache_text_of_authors():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert "The Rootstock authors" in text
    assert len(text.split()) > 1_500


@pytest.mark.parametrize(
    ("extras", "absent"),
    [
        ([], FOR_TRAINING | FOR_THE_PIPELINE | {"numpy", "fastapi", "httpx"}),
        (["serve"], FOR_TRAINING | FOR_THE_PIPELINE | {"grpcio", "tqdm"}),
        (["client"], FOR_TRAINING | FOR_THE_PIPELINE | {"numpy", "fastapi"}),
        (["train"], {"fastapi"}),
    ],
    ids=["base", "serve", "client", "train"],
)
def test_extra_installs_no_unneeded_packages(extras, absent):
    brought = set(closure(requirements_of(*extras)))
    # MLflow includes a server, which uses FastAPI.
    allowed = {"fastapi"} if "mlflow" in brought else set()
    assert not brought & absent - allowed


def test_without_extras_the_command_explains_itself(programs, tmp_path):
    rootstock = programs() / "rootstock"
    assert "usage: rootstock" in run(rootstock, "--help", folder=tmp_path).stdout
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    answers = (["predict", "a.jpg", "--model", "m"], "serve"), (["check", "."], "train")
    for command, extra in answers:
        done = run(rootstock, *command, folder=tmp_path)
        assert done.returncode == 1
        assert f"-> pip install 'rootstock-vision[{extra}]'" in done.stderr


def test_the_client_needs_httpx_only(wheel, programs, tmp_path):
    bin_ = make_environment(tmp_path / "env", ["httpx"], wheel)
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    code = (
        "import sys; from rootstock.client import Client\n"
        "with Client(sys.argv[1]) as client: print(client.predict(['a.jpg'])[0].label)"
    )
    with serving(programs("serve"), "--model", tiny_bundle(), folder=tmp_path) as address:
        done = run(bin_ / "python", "-c", code, address, folder=tmp_path)
    assert done.stdout.strip() in CLASSES, done.stderr


def test_the_service_answers_with_what_serve_brings(programs, tmp_path):
    bin_ = programs("serve")
    names = ["torch", "timm", "mlflow", "scipy", "sklearn", "matplotlib", "pyarrow", "onnxruntime"]
    assert run(bin_ / "python", "-c", LISTING, *names, folder=tmp_path).stdout == "onnxruntime\n"
    with serving(bin_, "--model", tiny_bundle(), folder=tmp_path) as address:
        answer = ask(address, jpeg(0))
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    command = ["predict", "a.jpg", "--model", tiny_bundle(), "--json"]
    done = run(bin_ / "rootstock", *command, folder=tmp_path)
    top = json.loads(done.stdout)["predictions"][0]["top"]
    assert answer["predictions"][0]["top"][0] == pytest.approx(top[0])


def test_service_says_at_once_which_extra_it_lacks(programs, tmp_path, monkeypatch):
    rootstock = programs("serve") / "rootstock"
    done = run(rootstock, "serve", "--model", "models:/rootstock@champion", folder=tmp_path)
    assert done.returncode == 1
    assert "mlflow, which is not installed" in done.stderr
    assert "rootstock-vision[train]" in done.stderr
    for extra, variables in (
        ("journal", {"ROOTSTOCK_JOURNAL": str(tmp_path / "journal")}),
        ("grpc", {"ROOTSTOCK_GRPC_PORT": "0"}),
    ):
        done = subprocess.run(
            [rootstock, "serve", "--model", tiny_bundle(), "--port", "0"],
            env=clean_variables() | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert f"rootstock-vision[{extra}]" in done.stderr


@pytest.mark.timeout(600)
def test_a_folder_becomes_a_served_model(programs, tmp_path):
    """Trained with the packages of train, served with those of serve."""
    write_classes(tmp_path / "photos", {"ants": 12, "bees": 12})
    choices = ["plan.strategy=linear_probe", "assess.probe_folds=2", "search.engine=sequential"]
    settings = [word for choice in choices for word in ("--set", choice)]
    done = run(
        programs("train") / "rootstock",
        *("train", "photos", "--out", "run1", "--set", "tracking.enabled=false", *settings),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    image = (tmp_path / "photos/ants/0.png").read_bytes()
    with serving(programs("serve"), "--model", "run1/artifacts/model", folder=tmp_path) as address:
        answer = ask(address, image, {"Content-Type": "image/png"})
    assert {item["label"] for item in answer["predictions"][0]["top"]} == {"ants", "bees"}


@pytest.mark.slow
def test_serve_installs_from_index_into_empty_environment(wheel, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    bin_ = tmp_path / "env/bin"
    install = ["install", "--quiet", "-c", ROOT / "constraints.txt", f"{wheel}[serve]"]
    subprocess.run([bin_ / "python", "-m", "pip", *install], check=True, env=clean_variables())
    subprocess.run([bin_ / "python", "-m", "pip", "check"], check=True)
    installed = {path.name.partition("-")[0] for path in bin_.parent.glob("lib/*/site-packages/*")}
    assert not installed & {"torch", "mlflow", "scipy", "sklearn", "pyarrow"}
    with serving(bin_, "--model", tiny_bundle(), folder=tmp_path) as address:
        assert ask(address, jpeg(0))["model"]["strategy"] == "linear_probe"
