"""Use Ray: a private one on this machine's loopback, or a cluster by its address.

Ray waits forever, or very long, for an address that does not answer; here the waits are short.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rootstock.errors import TrainingError
from rootstock.system.malloc import keeping_variables

TUNE_VARIABLES = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # So Ctrl-C is a KeyboardInterrupt as everywhere, and does not silently end the search early.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
# Despite its name, on Linux too it keeps every port on 127.0.0.1 (Ray 2.60, tested).
CLUSTER_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"

# Objectives carry paths, not arrays; Ray would reserve a third of the memory by default.
OBJECT_STORE_BYTES = 200_000_000
CONNECT_SECONDS = 25
TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
CLUSTER_HINT = "check that the cluster is running, or unset RAY_ADDRESS to search on this machine"


@contextlib.contextmanager
def ray_session(address: str) -> Iterator[None]:
    """Provide Ray within the block and end it afterwards; leave a Ray that already runs running.

    ``address`` empty or "local": a private Ray on loopback that leaves no files behind.

    Raises:
        TrainingError: Ray cannot be reached or started.
    """
    local = address in ("", "local")
    with contextlib.ExitStack() as stack:
        stack.enter_context(_environment(TUNE_VARIABLES))
        # Ray's threads print about dead workers, but standard output is for results.
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        import ray

        if not ray.is_initialized():
            scratch = stack.enter_context(_scratch_folder())
            if local:
                stack.enter_context(_loopback_only())
                stack.enter_context(_no_metadata_requests(scratch))
            stack.callback(ray.shutdown)
            _start_local(scratch) if local else _attach(address)
        yield


@contextlib.contextmanager
def _loopback_only() -> Iterator[None]:
    from ray._private import ray_constants

    # The variable is for the processes that Ray starts; this process read it when importing ray.
    before = ray_constants.ENABLE_RAY_CLUSTER
    with _environment({CLUSTER_VARIABLE: "0"}):
        ray_constants.ENABLE_RAY_CLUSTER = False
        try:
            yield
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _no_metadata_requests(home: str) -> Iterator[None]:
    """Stop Ray's dashboard from asking which cloud it runs in, even without telemetry.

    It asks if its home folder has no cluster file (`usage_stats_head.py`, Ray 2.60).
    """
    from ray._private import ray_constants, services

    Path(home, "ray_bootstrap_config.yaml").write_text("{}\n", encoding="utf-8")
    start = services.start_ray_process

    def start_quietly(command: Any, process_type: str, *args: Any, **options: Any) -> Any:
        if process_type == ray_constants.PROCESS_TYPE_DASHBOARD:
            updates = {**(options.get("env_updates") or {}), "HOME": home}
            token = Path("~/.ray/auth_token").expanduser()  # Ray has written it if needed
            if token.exists() and not any(name in os.environ for name in TOKEN_VARIABLES):
                updates["RAY_AUTH_TOKEN_PATH"] = str(token)
            options["env_updates"] = updates
        return start(command, process_type, *args, **options)

    services.start_ray_process = start_quietly
    try:
        yield
    finally:
        services.start_ray_process = start


@contextlib.contextmanager
def _scratch_folder() -> Iterator[str]:
    # Short, because the paths of Ray's sockets must stay below 108 characters.
    short = "/tmp" if Path("/tmp").is_dir() else None
    folder = tempfile.mkdtemp(prefix="rootstock-ray-", dir=os.environ.get("RAY_TMPDIR", short))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start_local(scratch: str) -> None:
    import ray

    try:
        ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=scratch,
            **_common(),
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise TrainingError(
            f"Ray cannot be started here: {error}",
            hint="set RAY_TMPDIR to another, short folder, or --set search.engine=sequential to "
            "search without Ray",
        ) from error


def _attach(address: str) -> None:
    import ray

    probe(address)
    try:
        ray.init(address=address, **_common())
    except (OSError, RuntimeError, ValueError) as error:
        raise TrainingError(f"no Ray at {address}: {error}", hint=CLUSTER_HINT) from error


def probe(address: str) -> None:
    """Try the port, then connect in a separate process, because Ray itself would wait on.

    Raises:
        TrainingError: no cluster answers there, or it refuses.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError as error:
            raise TrainingError(f"no Ray at {address}: {error}", hint=CLUSTER_HINT) from error
    code = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False)"
    end = time.monotonic() + CONNECT_SECONDS
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen([sys.executable, "-c", code, address], stdout=log, stderr=log)
        output = Path(log.name)
        try:
            while process.poll() is None:
                if time.monotonic() > end:
                    raise TrainingError(
                        f"no Ray answers at {address} within {CONNECT_SECONDS} s",
                        hint=CLUSTER_HINT,
                    )
                _refuse_token(address, output)
                time.sleep(0.2)
        finally:
            process.kill()
            process.wait()
        _refuse_token(address, output)
        if process.returncode:
            lines = output.read_text(errors="replace").strip().splitlines()
            reason = (lines or ["no reason given"])[-1]
            raise TrainingError(f"no Ray at {address}: {reason}", hint=CLUSTER_HINT)


def _refuse_token(address: str, output: Path) -> None:
    """Raise as soon as Ray reports that the cluster needs another token; Ray would retry long."""
    if b"InvalidAuthToken" not in output.read_bytes():
        return
    given = [name for name in TOKEN_VARIABLES if os.environ.get(name)]
    fault = f"refuses the token in {given[0]}" if given else "needs a token, but none is set"
    raise TrainingError(
        f"the Ray at {address} {fault}",
        hint="set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file with the cluster's token",
    )


def _common() -> dict[str, Any]:
    paths = [path for path in map(os.path.abspath, sys.path) if _is_ours(path)]
    return {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        # Workers import modules from this process's path (`src`, tests, a notebook's folder).
        "runtime_env": {
            "env_vars": {
                "PYTHONPATH": os.pathsep.join([*paths, "${PYTHONPATH}"]),
                **keeping_variables(),
            }
        },
    }


def _is_ours(path: str) -> bool:
    installed = (sys.prefix, sys.base_prefix, sys.exec_prefix)
    return os.path.isdir(path) and not path.startswith(
        tuple(f"{root}{os.sep}" for root in installed)
    )


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set variables that the user has not set, and unset them at the end."""
    added = {key: value for key, value in settings.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)
