"""The benchmark page equals the output for the result files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "benchmarks/results").glob("*.json"))


def test_benchmark_page_matches_the_result_files():
    done = subprocess.run(
        [sys.executable, "benchmarks/tables.py", "--print"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    page = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    assert page == done.stdout, "run: python benchmarks/tables.py"


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_result_file_states_command_machine_and_date(path):
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["command"]
    for run in [result] if "date" in result else result["runs"]:
        assert run["machine"]
        assert run["date"]
