"""OpenStack Swift with its s3api, a real store without conditional puts, on 127.0.0.1, in a folder of its own.

apt-get install -y --no-install-recommends python3-swift

One proxy, one account, one container and one object server, one replica on a plain folder. It is Debian's Swift under
Debian's Python; the package with the code is enough, those named after the daemons only add services to the machine.
"""

from __future__ import annotations

import errno
import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from servers.processes import answers, free_ports, processes, run

# -I: nothing of the environment that the tests themselves run in
PYTHON = ("/usr/bin/python3", "-I")
ACCESS_KEY, SECRET_KEY = "test:tester", "testing"

_STORES = ("account", "container", "object")

_HASHING = """\
[swift-hash]
swift_hash_path_suffix = suffix
"""

_COMMON = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {folder}
user = {user}
workers = 0
log_level = WARNING
"""

_STORE = (
    _COMMON
    + """\
devices = {folder}/devices
mount_check = false
fallocate_reserve = 0
conn_timeout = 5
container_update_timeout = 10
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""
)

# tempauth wants a cache client even where it has nothing to cache; nobody answers that one
_PROXY = (
    _COMMON
    + """\
[pipeline:main]
pipeline = catch_errors cache s3api tempauth bulk slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 5
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{cache}
[filter:s3api]
use = egg:swift#s3api
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
"""
)

# arguments: the folder, and a port for each ring
_RINGS = """\
import sys
from swift.common.ring import RingBuilder

for name, port in zip(("account", "container", "object"), sys.argv[2:]):
    builder = RingBuilder(part_power=2, replicas=1, min_part_hours=1)
    here = {"ip": "127.0.0.1", "port": int(port), "replication_ip": "127.0.0.1", "replication_port": int(port)}
    builder.add_dev({"region": 1, "zone": 1, "device": "disk", "weight": 1, **here})
    builder.rebalance()
    builder.get_ring().save(f"{sys.argv[1]}/{name}.ring.gz")
"""

# arguments: the folder, and which server. Its own programs only know /etc/swift/swift.conf
_SERVER = """\
import sys
from swift.common import utils
from swift.common.wsgi import run_wsgi

folder, name = sys.argv[1:]
utils.set_swift_dir(folder)
sys.exit(run_wsgi(f"{folder}/{name}.conf", f"{name}-server", verbose=True))
"""


@cache
def why_not() -> str:
    """Why it cannot run here; "" if it can."""
    try:
        run(*PYTHON, "-c", "import swift.proxy, eventlet")
    except (OSError, subprocess.CalledProcessError):
        return "no OpenStack Swift; install python3-swift, see tests/servers/swift.py"
    with tempfile.NamedTemporaryFile() as file:
        try:
            os.setxattr(file.name, "user.swift", b"x")
        except OSError as fault:
            kind = errno.errorcode.get(fault.errno or 0, "")
            return f"Swift keeps metadata in extended attributes, and {tempfile.gettempdir()} has none ({kind})"
    return ""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The endpoint's URL, for as long as the context lasts. Takes three seconds."""
    (folder / "devices" / "disk").mkdir(parents=True)
    (folder / "log").mkdir()
    *stores, proxy, cache = free_ports(5)
    common = {"folder": folder, "user": pwd.getpwuid(os.geteuid()).pw_name}
    (folder / "swift.conf").write_text(_HASHING)
    for name, port in zip(_STORES, stores, strict=True):
        (folder / f"{name}.conf").write_text(_STORE.format(name=name, port=port, **common))
    (folder / "proxy.conf").write_text(_PROXY.format(port=proxy, cache=cache, **common))
    run(*PYTHON, "-c", _RINGS, str(folder), *map(str, stores))
    with processes(folder / "log") as started:
        for name in (*_STORES, "proxy"):
            started.start(name, *PYTHON, "-c", _SERVER, str(folder), name)
        started.until(lambda: all(map(answers, (*stores, proxy))), "Swift")
        yield f"http://127.0.0.1:{proxy}"
