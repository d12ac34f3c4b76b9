"""A real S3 server for tests: a Ceph cluster of one monitor, manager, disk in memory and RADOS gateway.

Its processes are ours alone, on free ports of the loopback, and end with the process that started them,
however that ends.  The programs are in Debian's packages, which tools/setup.sh installs.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

ACCESS_KEY, SECRET_KEY = "tests", "secret-of-the-tests"
PROGRAMS = (
    "ceph",
    "ceph-authtool",
    "ceph-mgr",
    "ceph-mon",
    "ceph-osd",
    "monmaptool",
    "radosgw",
    "radosgw-admin",
)
SECONDS = 120
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = {monitor}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
keyring = {folder}/keyring
run dir = {folder}
admin socket = {folder}/$name.socket
log file = {folder}/$name.log
mon cluster log file = {folder}/cluster.log
mon data = {folder}/mon
mon data avail warn = 1
mon data avail crit = 1
mon allow pool size one = true
mon max pg per osd = 1000
mgr data = {folder}/mgr
mgr initial modules =
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 4294967296
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
[client.rgw.a]
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{gateway} tcp_nodelay=1
"""


class Ceph:
    """A running cluster with its gateway."""

    def __init__(self, folder: Path, port: int, stack: contextlib.ExitStack) -> None:
        self.folder, self.port, self._stack = folder, port, stack
        self._gateway: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which AWS clients find the gateway."""
        return {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start_gateway(self) -> None:
        """Start the gateway and wait until it answers."""
        self._gateway = self.daemon("radosgw", "-n", "client.rgw.a")
        self.wait(self._answers)

    def stop_gateway(self) -> None:
        """End the gateway alone, at once: an outage."""
        assert self._gateway is not None
        _end(self._gateway)

    def daemon(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a program that ends with us at the latest, and with the cluster otherwise."""
        parent = os.getpid()

        def end_with_parent() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        with (self.folder / f"{command[0]}.out").open("ab") as output:
            process = subprocess.Popen(
                [*command, "--conf", str(self.folder / "ceph.conf"), "-f"],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=end_with_parent,  # noqa: PLW1509  no other threads hold locks this early
            )
        self._stack.callback(_end, process)
        return process

    def run(self, *command: str) -> None:
        """Run a program to its end, which must be a good one."""
        done = self._done(*command)
        assert done.returncode == 0, f"{command}: {done.stderr.decode()}\n{self._last_lines()}"

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds."""
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end, f"Ceph does not start\n{self._last_lines()}"
            time.sleep(0.2)

    def says(self, text: str, *command: str) -> bool:
        """Whether a program ends well and prints ``text``."""
        done = self._done(*command)
        return done.returncode == 0 and text in done.stdout.decode()

    def _done(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        environment = {**os.environ, "CEPH_CONF": str(self.folder / "ceph.conf")}
        try:
            return subprocess.run(
                command, cwd=self.folder, env=environment, capture_output=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, b"", b"timed out")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.environment["AWS_ENDPOINT_URL_S3"], timeout=5):
                return True
        except OSError:
            return False

    def _last_lines(self) -> str:
        return "\n".join(path.read_text()[-1000:] for path in sorted(self.folder.glob("*.out")))


@contextlib.contextmanager
def running_ceph() -> Iterator[Ceph]:
    """Start a cluster, which takes some 15 s, and end it afterwards."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    assert not missing, f"not installed: {', '.join(missing)} (packages: TEST_PACKAGES in tools/setup.sh)"
    with contextlib.ExitStack() as stack:
        # Its path is short on purpose: names of sockets are limited to 107 bytes.
        folder = Path(tempfile.mkdtemp(prefix="ceph-", dir="/tmp"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        ports = [_reserved_port(stack) for _ in range(3)]
        found = Ceph(folder, ports[2], stack)
        _make_cluster(found, f"[v2:127.0.0.1:{ports[0]},v1:127.0.0.1:{ports[1]}]")
        yield found


def _make_cluster(ceph: Ceph, monitor: str) -> None:
    folder, fsid, disk = ceph.folder, str(uuid.uuid4()), str(uuid.uuid4())
    for name in ("mon", "mgr", "osd", "rgw"):
        (folder / name).mkdir()
    configuration = _CONFIGURATION.format(fsid=fsid, monitor=monitor, folder=folder, gateway=ceph.port)
    (folder / "ceph.conf").write_text(configuration)
    ceph.run(
        "ceph-authtool", "--create-keyring", "keyring", "--gen-key", "-n", "mon.", "--cap", "mon", "allow *"
    )
    for who in ("client.admin", "client.rgw.a", "mgr.x", "osd.0"):
        rights = [word for daemon in ("mon", "osd", "mgr") for word in ("--cap", daemon, "allow *")]
        ceph.run("ceph-authtool", "keyring", "--gen-key", "-n", who, *rights)
    ceph.run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", monitor, "monmap")
    ceph.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", "monmap", "--keyring", "keyring")
    ceph.daemon("ceph-mon", "-i", "a")
    ceph.wait(lambda: ceph.says("", "ceph", "--connect-timeout", "5", "status"))
    ceph.daemon("ceph-mgr", "-i", "x")
    ceph.run("ceph", "osd", "new", disk)
    ceph.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
    ceph.daemon("ceph-osd", "-i", "0")
    ceph.wait(lambda: ceph.says("1 up", "ceph", "osd", "stat"))
    ceph.start_gateway()
    keys = (f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}")
    ceph.run("radosgw-admin", "user", "create", "--uid=tests", "--display-name=tests", *keys)


def _reserved_port(stack: contextlib.ExitStack) -> int:
    """A port that nobody else is given while the cluster runs: bound, which lets a server listen there."""
    held = stack.enter_context(socket.socket())
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return int(held.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
