"""Ceph radosgw, a real S3 server, on 127.0.0.1: one monitor, one disk, one gateway, in a folder of their own.

apt-get install -y --no-install-recommends ceph-mon ceph-osd radosgw ceph-common
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.processes import answers, free_ports, processes, run

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


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The endpoint's URL, for as long as the context lasts. Takes twenty seconds."""
    for name in ("mon", "osd0", "log", "run"):
        (folder / name).mkdir(parents=True)
    fsid, (mon, port) = str(uuid.uuid4()), free_ports(2)
    config = folder / "ceph.conf"
    config.write_text(_CONFIG.format(fsid=fsid, mon=mon, port=port, folder=folder))
    # who fetches the configuration first forgets the fsid over it, and may ask before it is told: "wrong fsid"
    common, monmap = ("-c", str(config), "--no-mon-config"), str(folder / "monmap")

    def disk_is_up() -> bool:
        try:
            return "1 up" in run("ceph", *common, "osd", "stat")
        except subprocess.CalledProcessError:  # `ceph` always fetches it first
            return False

    with processes(folder / "log") as started:
        run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v1:127.0.0.1:{mon}]", monmap)
        run("ceph-mon", *common, "--mkfs", "-i", "a", "--monmap", monmap)
        started.start("ceph-mon", "ceph-mon", *common, "-i", "a", "-f")
        run("ceph-osd", *common, "-i", "0", "--mkfs", "--osd-uuid", str(uuid.uuid4()))
        started.start("ceph-osd", "ceph-osd", *common, "-i", "0", "-f")
        started.until(disk_is_up, "the disk")
        add_user(folder, "t", ACCESS_KEY, SECRET_KEY)
        started.start("radosgw", "radosgw", *common, "-n", "client.rgw.x", "-f")
        started.until(lambda: answers(port), "the gateway")
        yield f"http://127.0.0.1:{port}"


def add_user(folder: Path, name: str, key: str, secret: str) -> None:
    """Give a server, whose folder this is, another user, who may do nothing yet in the buckets of others."""
    common = ("-c", str(folder / "ceph.conf"), "--no-mon-config")
    run(
        "radosgw-admin", *common, "user", "create", f"--uid={name}", f"--display-name={name}",
        f"--access-key={key}", f"--secret-key={secret}",
    )  # fmt: skip
