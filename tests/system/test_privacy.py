"""Libraries read their telemetry switches when they are imported."""

import json
import os
import subprocess
import sys

from rootstock.system.privacy import TELEMETRY_VARIABLES

PRINT = """
import json, multiprocessing, os, rootstock

def read():
    return {name: os.environ.get(name) for name in rootstock.system.privacy.TELEMETRY_VARIABLES}

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(json.dumps([read(), pool.apply(read)]))
"""


def variables_of(tmp_path, **set_by_user):
    bare = {key: value for key, value in os.environ.items() if key not in TELEMETRY_VARIABLES}
    script = tmp_path / "script.py"
    script.write_text(PRINT)
    done = subprocess.run(
        [sys.executable, script], env=bare | set_by_user, capture_output=True, check=True
    )
    return json.loads(done.stdout)


def test_import_turns_telemetry_off_in_all_processes(tmp_path):
    here, worker = variables_of(tmp_path)
    assert here == worker == TELEMETRY_VARIABLES
    assert here["ORT_DISABLE_TELEMETRY"] == "1"


def test_a_value_of_the_user_stays(tmp_path):
    here, _ = variables_of(tmp_path, DO_NOT_TRACK="0")
    assert here == {**TELEMETRY_VARIABLES, "DO_NOT_TRACK": "0"}
