"""Runs services of docker-compose.yml on this machine, without Docker and without changing them.

A container is a process in separate namespaces, and so is this. Each service gets a network per
network of the file, a name server with the names there, its volumes and secrets at their paths, a
read-only root, its user, no privileges, and no other environment. Command, environment, and health
check run unchanged. This machine's file system, read-only, replaces the image's; the few lines in
`_START` replace the images' start scripts. Limits of memory and processors are not applied. Needs
Linux and root; everything ends with the test.

The file is long because it is one idea: the steps of a container engine, in their order.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import selectors
import shlex
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tests.production.composefile import ROOT, built_environment, read_compose

T = TypeVar("T")
# Ended together with this process.
_UNSHARE = ["setpriv", "--pdeathsig=KILL", "unshare"]
_ALONE = ["--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
_NEW_NETWORK = 0x40000000
_PATH = ":".join(
    [
        *("/opt/rootstock/services", f"{sys.prefix}/bin", "/usr/lib/postgresql/15/bin"),
        *("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"),
    ]
)
# The work of the images' start scripts before the command.
_START = {
    "postgres": """
        export PGDATA=/var/lib/postgresql/data
        if ! [ -s "$PGDATA/PG_VERSION" ]; then
            initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" \
                --no-sync $POSTGRES_INITDB_ARGS
            echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
            echo "listen_addresses = '*'" >> "$PGDATA/postgresql.conf"
            echo "create database $POSTGRES_DB" | postgres --single postgres
        fi
    """,
}


def why_not_here() -> str:
    """Return why services cannot run this way on this machine; empty if they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "running services in namespaces needs Linux and root"
    probe = (
        "ip link add b0 type bridge && ip link add v0 type veth peer name v1 && "
        'd=$(mktemp -d) && mount -t tmpfs t "$d" && mkdir "$d/u" "$d/w" "$d/r" && '
        'mount -t overlay o -o "lowerdir=/,upperdir=$d/u,workdir=$d/w" "$d/r"; r=$?; '
        'umount -l "$d"; rmdir "$d"; exit $r'
    )
    done = subprocess.run(
        [*_UNSHARE, *_ALONE, "sh", "-c", probe], capture_output=True, text=True, check=False
    )
    return f"no namespaces here: {done.stderr.strip()[-200:]}" if done.returncode else ""


@dataclasses.dataclass
class Container:
    """One running replica of a service."""

    service: str
    number: int
    spec: dict[str, Any]
    environment: dict[str, str]
    addresses: dict[str, str]
    init: subprocess.Popen[bytes]
    log: Path
    root: Path

    @property
    def pid(self) -> int:
        """Return the first process inside, as numbered by this machine."""
        return _child_of(self.init.pid)

    def exec(
        self, command: list[str], *, seconds: float = 60, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside as the service's user, like `docker compose exec`."""
        if self.init.poll() is not None:
            return subprocess.CompletedProcess(command, 137, "", "the container has ended")
        line = [
            *("nsenter", f"--target={self.pid}"),
            *("--mount", "--net", "--uts", "--ipc", "--pid"),
            *_as_user(self.root, self.spec, self.environment | environment, command),
        ]
        try:
            return subprocess.run(
                line, capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired as error:
            return subprocess.CompletedProcess(line, 124, "", f"longer than {error.timeout} s")

    def check(self) -> subprocess.CompletedProcess[str]:
        """Run the file's health check once."""
        kind, *words = self.spec["healthcheck"]["test"]
        command = words if kind == "CMD" else ["/bin/sh", "-c", *words]
        return self.exec(command, seconds=_seconds(self.spec["healthcheck"]["timeout"]))

    def is_healthy(self) -> bool:
        """Judge like Docker: unhealthy after the file's number of consecutive failed checks."""
        tries = range(self.spec["healthcheck"]["retries"])
        return any(self.check().returncode == 0 for _ in tries)

    def wait_until_healthy(self) -> None:
        """Wait like `service_healthy`, as long as the file states; AssertionError has the log."""
        health = self.spec["healthcheck"]
        # A build machine may be busy with ten other things.
        end = time.monotonic() + 6 * _seconds(health["start_period"])
        while (done := self.check()).returncode:
            assert self.init.poll() is None, f"{self.service} ended:\n{self.tail()}"
            assert time.monotonic() < end, f"{self.service}: {done.stderr}\n{self.tail()}"
            time.sleep(_seconds(health.get("start_interval", "1s")))

    def wait(self, seconds: float = 60) -> int:
        """Return the exit status of a service that exits."""
        return self.init.wait(seconds)

    def inside(self, work: Callable[[], T]) -> T:
        """Return the result of a function that runs in this container's network."""
        return _in_network(self.pid, work)

    def send(self, wanted: signal.Signals) -> None:
        """Send a signal to the service process, like Docker's init."""
        os.kill(_child_of(self.pid), wanted)

    def stop(self) -> None:
        """Send the file's stop signal, wait for its grace period, then send SIGKILL."""
        if self.init.poll() is None:
            with contextlib.suppress(ProcessLookupError, IndexError):
                self.send(signal.Signals[self.spec.get("stop_signal", "SIGTERM")])
            try:
                self.init.wait(_seconds(self.spec.get("stop_grace_period", "10s")))
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """Kill every process of the container without notice."""
        if self.init.poll() is None:
            with contextlib.suppress(ProcessLookupError, IndexError):
                os.kill(self.pid, signal.SIGKILL)
            self.init.kill()
            self.init.wait(20)

    def tail(self, characters: int = 3000) -> str:
        """Return the end of the service's output."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-characters:]


class Stack:
    """The services that were started, their networks and names."""

    def __init__(self, folder: Path, settings: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.compose = read_compose(settings)
        self.running: list[Container] = []
        self._switch = subprocess.Popen([*_UNSHARE, *_ALONE, "sleep", "infinity"])
        until(lambda: _child_of(self._switch.pid))
        self._subnets = {name: 10 + i for i, name in enumerate(self.compose["networks"])}
        self._used = dict.fromkeys(self._subnets, 1)
        for name in self._subnets:
            self._ip(f"link add {_bridge(name)} type bridge", f"link set {_bridge(name)} up")
        self._names = _NameServer(lambda: self.running)

    def start(self, service: str, *, number: int = 1, without: str = "") -> Container:
        """Start a replica of a service; ``without`` drops one variable, to break it."""
        spec = self.compose["services"][service]
        environment = self._environment(spec)
        environment.pop(without, None)
        home = self.folder / f"{service}-{number}"
        home.mkdir(parents=True, exist_ok=True)
        log = home / "log"
        addresses = self._next_addresses(spec["networks"])
        mounts = "\n".join(self._mounts(spec, home, addresses))
        start = _START.get(service, "")
        command = [*spec.get("entrypoint", []), *spec.get("command", [])]
        if start:
            command = ["sh", "-c", f'set -e\n{start}\nexec "$@"', "sh", *command]
        run = _as_user(home / "root", spec, environment, command)
        script = f"set -e\n{mounts}\nread -r go\n{shlex.join(run)} & wait $!\n"
        with log.open("ab") as output:
            init = subprocess.Popen(
                [*_UNSHARE, *_ALONE, "--propagation=private", "bash", "-c", script],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
            )
        until(lambda: _child_of(init.pid))
        self._plug_in(_child_of(init.pid), addresses)
        container = Container(
            *(service, number, spec, environment),
            addresses=addresses,
            init=init,
            log=log,
            root=home / "root",
        )
        self.running.append(container)
        self._names.serve(container)
        assert init.stdin is not None
        init.stdin.write(b"go\n")
        init.stdin.close()
        return container

    def stop(self, container: Container, *, kill: bool = False) -> None:
        """Stop one container and forget its name."""
        container.kill() if kill else container.stop()
        self.running.remove(container)

    def close(self) -> None:
        """Stop everything."""
        for container in reversed(self.running):
            container.kill()
        self._names.close()
        os.kill(_child_of(self._switch.pid), signal.SIGKILL)
        self._switch.wait(20)

    def volume(self, name: str) -> Path:
        """Return the folder of the named volume."""
        return self.folder / "volumes" / name

    def _environment(self, spec: dict[str, Any]) -> dict[str, str]:
        built = spec.get("build")
        image = built_environment(ROOT / built["dockerfile"]) if built else {}
        given = {key: str(value) for key, value in spec.get("environment", {}).items()}
        return image | given | {"PATH": _PATH}

    def _mounts(self, spec: dict[str, Any], home: Path, addresses: dict[str, str]) -> Iterator[str]:
        """Return shell lines that create the container's file system at ``home``/root."""
        root, uid = home / "root", spec["user"].replace(":", " ").split()
        base = shlex.quote(str(home))
        yield f"mkdir -p {base}/disk {root}; mount -t tmpfs disk {base}/disk"
        yield f"mkdir {base}/disk/up {base}/disk/work"
        yield (
            f"mount -t overlay overlay {root} "
            f"-o lowerdir=/,upperdir={base}/disk/up,workdir={base}/disk/work"
        )
        # Python may be installed in a folder that only its owner can read.
        for path in (Path(sys.executable).resolve(), Path(sys.prefix), ROOT):
            yield from (f"chmod o+x {root}{parent}" for parent in path.parents)
        yield f"echo 'user:x:{uid[0]}:{uid[1]}::/tmp:/bin/sh' >> {root}/etc/passwd"
        names = "".join(f"{address} {home.name}\\n" for address in addresses.values())
        yield f"hostname {home.name}; rm -f {root}/etc/resolv.conf {root}/etc/hosts"
        yield f"echo 'nameserver 127.0.0.11' > {root}/etc/resolv.conf"
        yield f"printf '127.0.0.1 localhost\\n{names}' > {root}/etc/hosts"
        yield f"mkdir -p {root}/opt/rootstock; mount --bind {ROOT} {root}/opt/rootstock"
        yield f"mount -t proc proc {root}/proc; mount --rbind /dev {root}/dev"
        yield f"mount -t tmpfs -o size={spec.get('shm_size', '64m')[:-1]} shm {root}/dev/shm"
        for entry in spec.get("tmpfs", []):
            path, _, options = entry.partition(":")
            words = ["nosuid", "nodev", *options.split(",")]
            if "exec" not in words:
                words.append("noexec")
            yield f"{_inside(root, path)}; mkdir -p $at"
            yield f"mount -t tmpfs -o {','.join(words)} tmpfs $at"
        for source, target, read_only in self._volumes(spec, home, uid):
            yield _bind(source, root, target, read_only=read_only)
        for name in spec.get("secrets", []):
            source = (ROOT / self.compose["secrets"][name]["file"]).resolve()
            yield _bind(source, root, f"/run/secrets/{name}", read_only=True)
        if spec.get("read_only"):
            yield f"mount -o remount,bind,ro {root}"

    def _volumes(
        self, spec: dict[str, Any], home: Path, uid: list[str]
    ) -> Iterator[tuple[Path, str, bool]]:
        for entry in spec.get("volumes", []):
            source, *rest = entry.split(":")
            if not rest:
                path, target = home / "volume", source
            elif source.startswith((".", "/")):
                path, target = (ROOT / source).resolve(), rest[0]
            else:
                path, target = self.volume(source), rest[0]
            if not path.exists():
                path.mkdir(parents=True, mode=0o700)
                os.chown(path, int(uid[0]), int(uid[1]))
            yield path, target, "ro" in rest[1:]

    def _next_addresses(self, networks: Any) -> dict[str, str]:
        """Return an unused address in each network."""
        for name in networks:
            self._used[name] += 1
        return {name: f"10.77.{self._subnets[name]}.{self._used[name]}" for name in networks}

    def _plug_in(self, pid: int, addresses: dict[str, str]) -> None:
        """Connect a virtual cable to each network."""
        for i, (name, address) in enumerate(addresses.items()):
            cable = "v{2}x{3}".format(*address.split("."))
            self._ip(
                f"link add {cable} type veth peer name eth{i}",
                f"link set {cable} master {_bridge(name)} up",
            )
            self._nsenter(f"ip link set eth{i} netns /proc/{pid}/ns/net")
            inside = f"ip addr add {address}/24 dev eth{i} && ip link set eth{i} up"
            _run(["nsenter", f"--target={pid}", "--net", "sh", "-c", inside])
        _run(["nsenter", f"--target={pid}", "--net", "ip", "link", "set", "lo", "up"])

    def _ip(self, *lines: str) -> None:
        for line in lines:
            self._nsenter(f"ip {line}")

    def _nsenter(self, line: str) -> None:
        pid = _child_of(self._switch.pid)
        _run(["nsenter", f"--target={pid}", "--net", "sh", "-c", line])


class _NameServer:
    """Answers, at 127.0.0.11 in each container, for the services on that container's networks."""

    def __init__(self, running: Callable[[], list[Container]]) -> None:
        self._running = running
        self._sockets = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._open = True
        self._thread = threading.Thread(target=self._answer_all, daemon=True)
        self._thread.start()

    def serve(self, container: Container) -> None:
        def listen() -> socket.socket:
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.bind(("127.0.0.11", 53))
            return server

        with self._lock:
            self._sockets.register(container.inside(listen), selectors.EVENT_READ, container)

    def close(self) -> None:
        self._open = False
        self._thread.join()
        for key in list(self._sockets.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]

    def _answer_all(self) -> None:
        while self._open:
            with self._lock:
                ready = self._sockets.select(0)
            for key, _ in ready:
                with contextlib.suppress(OSError):
                    query, asker = key.fileobj.recvfrom(512)  # type: ignore[union-attr]
                    key.fileobj.sendto(self._answer(query, key.data), asker)  # type: ignore[union-attr]
            if not ready:
                time.sleep(0.01)

    def _answer(self, query: bytes, asker: Container) -> bytes:
        """Return a DNS message: the addresses of a name (RFC 1035), or that it does not exist."""
        end = query.index(b"\0", 12)
        labels, at = [], 12
        while at < end:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        question = query[12 : end + 5]
        found = self._find(labels[0].lower(), asker) if len(labels) == 1 else []
        wanted = found if question[-4:-2] == b"\0\x01" else []
        flags = 0x8180 if found else 0x8183
        head = query[:2] + struct.pack(">HHHHH", flags, 1, len(wanted), 0, 0)
        record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4)
        return head + question + b"".join(record + socket.inet_aton(one) for one in wanted)

    def _find(self, name: str, asker: Container) -> list[str]:
        found = []
        for other in list(self._running()):
            networks = other.spec["networks"]
            for network, address in other.addresses.items():
                named = networks[network] if isinstance(networks, dict) else {}
                if network in asker.addresses and name in (
                    other.service,
                    *named.get("aliases", []),
                ):
                    found.append(address)
        return found


def _as_user(
    root: Path, spec: dict[str, Any], environment: dict[str, str], command: list[str]
) -> list[str]:
    uid, gid = spec["user"].split(":")
    variables = [f"{key}={value}" for key, value in environment.items()]
    folder = spec.get("working_dir", "/opt/rootstock")
    return [
        *("chroot", str(root), "setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"),
        *("--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"),
        *("env", "-i", f"--chdir={folder}", *variables, *command),
    ]


def _inside(root: Path, path: str) -> str:
    """Set $at to the location of a path below the root, following that root's links."""
    return f"at={root}$(chroot {root} realpath -m {path})"


def _bind(source: Path, root: Path, target: str, *, read_only: bool) -> str:
    make = "mkdir -p $at" if source.is_dir() else 'mkdir -p "${at%/*}"; touch $at'
    line = f"{_inside(root, target)}; {make}; mount --bind {source} $at"
    return f"{line}; mount -o remount,bind,ro $at" if read_only else line


def _in_network(pid: int, work: Callable[[], T]) -> T:
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            with open(f"/proc/{pid}/ns/net", "rb") as network:
                if libc.setns(network.fileno(), _NEW_NETWORK):
                    raise OSError(ctypes.get_errno(), "setns")
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failure.append(error)

    # A thread can have a separate network; this process keeps its own.
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def _child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0])


def give_to(user: int, folder: Path) -> None:
    """Make a container's user the owner of a folder and its content."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, user, follow_symlinks=False)


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait for a condition; raise AssertionError if it does not come true."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, IndexError):
            if condition():
                return
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, f"{shlex.join(command)}: {done.stderr}"


def _bridge(network: str) -> str:
    return f"b-{network}"[:15]


def _seconds(text: str) -> float:
    return float(text[:-1]) * {"s": 1, "m": 60}[text[-1]]
