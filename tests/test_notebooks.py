"""The notebooks run from the first cell to the last, on small images and a tiny backbone."""

import json
import socket
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

from tests.bundles import tiny_backbone
from tests.data.folders import write_classes

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_BYTES = 20_000
CELL_SECONDS = 240
TINY = {
    "assess": {"probe_folds": 2},
    "data": {"geometry": "crop", "root": "photos"},
    "plan": {"strategy": "linear_probe"},
    "search": {"engine": "sequential"},
    "tracking": {"enabled": False},
    "train": {"l2_grid": [0.1]},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with photos, and settings that make each training tiny."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}:{ROOT}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    write_classes(tmp_path / "photos", {"ants": 12, "bees": 12})
    settings = TINY | {"backbone": {"weights": str(tiny_backbone().card.weights)}}
    for place in (tmp_path, tmp_path / "labelling"):
        place.mkdir(exist_ok=True)
        (place / "params.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_no_outputs(path):
    assert path.stat().st_size < MAX_BYTES
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.integration
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, folder):
    notebook = nbformat.read(path, as_version=4)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for cell in notebook.cells:
        cell.source = cell.source.replace("port = 8000", f"port = {port}")
    client = NotebookClient(
        notebook, timeout=CELL_SECONDS, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    text = "".join(
        out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", ())
    )
    assert "error:" not in text
    last = notebook.cells[-1].outputs
    assert any(out.output_type != "stream" or out.text.strip() for out in last)
