"""The benchmark for a GPU runs on a processor with few images, and needs a GPU otherwise."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.bundles import jpeg, tiny_backbone

ROOT = Path(__file__).parents[2]


def run(*options):
    command = [sys.executable, "benchmarks/gpu.py", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / f"photos/{number}.jpg").write_bytes(jpeg(number))
    return tmp_path / "photos"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_one_line_says_so(photos):
    done = run("--images", photos)
    assert done.returncode == 2
    assert done.stderr.startswith("there is no GPU")
    assert done.stderr.count("\n") == 1


def test_every_part_is_measured_on_a_processor(photos, tmp_path):
    out = tmp_path / "gpu.json"
    weights = tiny_backbone().card.weights
    done = run(
        *("--images", photos, "--weights", weights, "--device", "cpu", "--quick", "--out", out)
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert (result["gpu"], result["photos"]) == (None, 24)
    parts = [row["part"] for row in result["rows"]]
    assert [part.partition(",")[0] for part in parts] == ["extraction", "fine-tuning", "serving"]
    assert all(row["images_per_s"] > 0 for row in result["rows"])
    assert all(row["gpu_busy"] is None for row in result["rows"])
    serving = result["rows"][-1]
    assert serving["errors"] == 0
    assert 0 < serving["p50_ms"] <= serving["p99_ms"]
    assert "| fine-tuning |" in done.stdout


def test_busy_share_is_the_mean_of_the_samples(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("gpu", ROOT / "benchmarks/gpu.py")
    gpu = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gpu)
    assert gpu.mean_share("10\n30\n 50\n[N/A]\n") == 0.3
    assert gpu.mean_share("") is None
