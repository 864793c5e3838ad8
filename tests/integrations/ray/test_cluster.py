import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from rootstock.errors import TrainingError
from rootstock.integrations.ray import cluster as ray_cluster
from rootstock.integrations.ray.cluster import probe, ray_session
from rootstock.integrations.ray.search import RaySearcher

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]

SLEEPING_SEARCH = """
import sys, time
from pathlib import Path
from rootstock.integrations.ray.search import RaySearcher

def sleep(params, home, report):
    (home / "started").touch()
    time.sleep(120)
    return {"acc": 1.0}

RaySearcher().search(
    sleep, [{"lr": 1}], directory=Path(sys.argv[1]), metric="acc", mode="max", early_stop=False
)
"""

RESUMED_SEARCH = """
import os, sys, time
from pathlib import Path
from rootstock.integrations.ray.search import RaySearcher

def learn(params, home, report):
    done = len(list(home.glob("epoch-*")))
    for epoch in range(done, 3):
        (home / f"epoch-{epoch}").write_text(str(os.getppid()))
        report(epoch + 1, {"acc": 0.1 * epoch})
        while params["slow"] and epoch == 1 and not Path(sys.argv[1], "go").exists():
            time.sleep(0.1)
    return {"acc": 1.0 + params["slow"], "done": done}

trials = RaySearcher().search(
    learn,
    [{"slow": 0}, {"slow": 1}],
    directory=Path(sys.argv[1]),
    metric="acc",
    mode="max",
    early_stop=False,
)
print([trial.metrics["done"] for trial in trials])
"""


def test_killed_search_resumes_its_trials(tmp_path, short_path):
    command = [sys.executable, "-c", RESUMED_SEARCH, str(tmp_path)]
    environment = {**os.environ, "RAY_TMPDIR": str(short_path)}
    environment.pop("RAY_ADDRESS", None)
    driver = subprocess.Popen(
        command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("trial-*/epoch-*"))) < 5:  # three of one trial, two of the other
        assert time.monotonic() < deadline
        assert driver.poll() is None
        time.sleep(0.1)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    (tmp_path / "go").touch()
    again = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=180, check=True
    )
    assert again.stdout.strip() == "[3.0, 2.0]"


LOCAL_SESSION = """
from rootstock.integrations.ray.cluster import ray_session
with ray_session("local"):
    pass
"""


def test_local_ray_starts_without_output(short_path):
    # In a separate process: Ray keeps the mode of its first session for later clusters.
    environment = os.environ | {"HOME": str(short_path)}  # where Ray writes its token
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-c", LOCAL_SESSION]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_dead_address_fails_at_once():
    began = time.monotonic()
    with pytest.raises(TrainingError, match=r"no Ray at 127.0.0.1:1: .*refused[\s\S]*RAY_ADDRESS"):
        ray_session("127.0.0.1:1").__enter__()
    assert time.monotonic() - began < 5


def test_silent_listener_fails_in_bounded_time(monkeypatch):
    monkeypatch.setattr(ray_cluster, "CONNECT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(TrainingError, match=f"no Ray answers at {address} within 2 s"):
            ray_session(address).__enter__()


@pytest.fixture
def short_path():
    """Ray's sockets are in it, and their paths must not exceed 107 characters."""
    with tempfile.TemporaryDirectory(prefix="rs-", dir="/tmp") as folder:
        yield Path(folder)


def test_long_temporary_path_is_explained(tmp_path, monkeypatch):
    deep = tmp_path / ("a" * 100)
    deep.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(deep))
    with pytest.raises(TrainingError, match=r"Ray cannot be started here: .*length"):
        ray_session("").__enter__()


def test_ctrl_c_ends_search_and_all_processes(short_path, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "RAY_TMPDIR": str(short_path)}
    environment.pop("RAY_ADDRESS", None)
    child = subprocess.Popen(
        [sys.executable, "-c", SLEEPING_SEARCH, str(tmp_path / "search")],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Tests that run in the background of a shell inherit an ignored Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_until(lambda: any(tmp_path.glob("search/trial-*/started")), seconds=60)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=90)
    assert errors.strip().endswith("KeyboardInterrupt")
    wait_until(lambda: not commands_naming(str(short_path)), seconds=15)
    assert not list(short_path.iterdir())


@contextlib.contextmanager
def running_cluster(short_path, tmp_path, **variables):
    """The address of a cluster of one node."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += [f"--port={port}", f"--temp-dir={short_path}", "--include-dashboard=false"]
    command += ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats"]
    # The mode of this process, set by an earlier Ray; otherwise a token in the home folder
    # would count.
    environment = {"RAY_AUTH_MODE": "disabled"} | os.environ | variables
    with (tmp_path / "log").open("w") as log:
        head = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env=environment
        )
    try:
        wait_until(lambda: "runtime started" in (tmp_path / "log").read_text(), seconds=60)
        yield f"127.0.0.1:{port}"
        assert head.poll() is None
    finally:
        head.terminate()
        head.wait(30)
        wait_until(lambda: not commands_naming(str(short_path)), seconds=15)


def test_running_cluster_is_used_and_left_running(short_path, tmp_path, monkeypatch):
    with running_cluster(short_path, tmp_path) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        (trial,) = RaySearcher().search(
            where_am_i,
            [{}],
            directory=tmp_path / "search",
            metric="acc",
            mode="max",
            early_stop=False,
        )
        assert trial.error == ""
        assert str(short_path) in (trial.directory / "session").read_text()


def test_missing_or_wrong_token_fails_at_once(short_path, tmp_path, monkeypatch):
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 3}
    with running_cluster(short_path, tmp_path, **token) as address:
        began = time.monotonic()
        with pytest.raises(TrainingError, match="needs a token, but none is set"):
            probe(address)
        for name, value in token.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 48)
        with pytest.raises(TrainingError, match=r"refuses the token in RAY_AUTH_TOKEN(.|\n)*_PATH"):
            probe(address)
        assert time.monotonic() - began < 20
        monkeypatch.setenv("RAY_AUTH_TOKEN", token["RAY_AUTH_TOKEN"])
        probe(address)


def where_am_i(params, home, report):
    import ray

    (home / "session").write_text(ray._private.worker._global_node.get_session_dir_path())
    return {"acc": 1.0}


def wait_until(condition, *, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def commands_naming(text):
    """Return command lines of running processes (zombies have none) that contain ``text``."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if text in line and int(file.parent.name) != os.getpid():
            lines.append(line)
    return lines
