"""Ceph radosgw, a real S3 server, on 127.0.0.1: one monitor, one disk, one gateway, in a folder of their own.

apt-get install -y --no-install-recommends ceph-mon ceph-osd radosgw ceph-common
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("ceph-mon", "ceph-osd", "monmaptool", "ceph", "radosgw", "radosgw-admin")
ACCESS_KEY, SECRET_KEY = "AK", "SK"

_CONFIG = """\
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{mon}
auth cluster required = none
auth service required = none
auth client required = none
ms bind ipv6 = false
ms bind msgr2 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
run dir = {folder}/run
log file = {folder}/log/$name.log
admin socket = {folder}/run/$name.asok
mon cluster log file = {folder}/log/cluster.log
[mon.a]
mon data = {folder}/mon
mon addr = 127.0.0.1:{mon}
[osd.0]
osd data = {folder}/osd0
osd objectstore = bluestore
bluestore block path =
bluestore block create = true
bluestore block size = 10737418240
bluestore cache autotune = false
bluestore cache size = 134217728
osd memory target = 939524096
[client.rgw.x]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw thread pool size = 64
keyring = /dev/null
"""


def why_not() -> str:
    """Why it cannot run here; "" if it can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"no {', '.join(missing)}; install Ceph's radosgw, see tests/servers/radosgw.py"
    return "" if os.geteuid() == 0 else "radosgw is started as root"


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The endpoint's URL, for as long as the context lasts. Takes twenty seconds."""
    for name in ("mon", "osd0", "log", "run"):
        (folder / name).mkdir(parents=True)
    fsid, mon, port = str(uuid.uuid4()), _free_port(), _free_port()
    config = folder / "ceph.conf"
    config.write_text(_CONFIG.format(fsid=fsid, mon=mon, port=port, folder=folder))
    common, started = ["-c", str(config)], list[subprocess.Popen[bytes]]()

    def run(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
        return done.stdout

    def start(*command: str) -> None:
        with (folder / "log" / f"{command[0]}.out").open("wb") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))

    try:
        monmap = str(folder / "monmap")
        run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v1:127.0.0.1:{mon}]", monmap)
        run("ceph-mon", *common, "--mkfs", "-i", "a", "--monmap", monmap)
        start("ceph-mon", *common, "-i", "a", "-f")
        osd = str(uuid.uuid4())
        run("ceph", *common, "osd", "new", osd)
        run("ceph-osd", *common, "-i", "0", "--mkfs", "--osd-uuid", osd)
        start("ceph-osd", *common, "-i", "0", "-f")
        _until(lambda: "1 up" in run("ceph", *common, "osd", "stat"), "the disk")
        run(
            "radosgw-admin", *common, "user", "create", "--uid=t", "--display-name=t",
            f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}",
        )  # fmt: skip
        start("radosgw", *common, "-n", "client.rgw.x", "-f")
        _until(lambda: _answers(f"http://127.0.0.1:{port}/"), "the gateway")
        yield f"http://127.0.0.1:{port}"
    finally:
        for process in reversed(started):
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _until(ready: object, what: str, seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not ready():  # type: ignore[operator]
        if time.monotonic() > until:
            raise TimeoutError(f"radosgw: {what} did not come up in {seconds:.0f} s")
        time.sleep(0.3)
