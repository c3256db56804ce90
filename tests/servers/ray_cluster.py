"""A Ray cluster as operators start it, by `ray start`, on 127.0.0.1 and with a token.

with serving(folder) as cluster:
    cluster.join("--num-cpus=1")
    run(.., environment=cluster.environment)
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipeline_commands import descendants, kill

from servers.processes import free_ports

ROOT = Path(__file__).resolve().parents[2]
RAY = (sys.executable, "-m", "ray.scripts.scripts")
_START = (
    *RAY, "start", "--block", "--node-ip-address=127.0.0.1", f"--object-store-memory={80 << 20}",
    "--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0",
)  # fmt: skip
_PATIENCE_S = 600.0


@dataclass
class Cluster:
    """A head, which runs no task, and the nodes that joined it.

    Attributes:
        address: of the head.
        environment: with which a process may join: RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH.
        folder: of all files.
        nodes: processes of the head and the nodes, in their order.
    """

    address: str
    environment: dict[str, str]
    folder: Path
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *options: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start the processes of a node; they end with the process that is returned."""
        log = self.folder / f"node-{len(self.nodes)}.out"
        with log.open("wb") as out:
            started = subprocess.Popen(
                [*_START, *options], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                env={**self.environment, **(environment or {})}, cwd=self.folder,
            )  # fmt: skip
        self.nodes.append(started)
        return started

    def join(self, *options: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a node of the cluster, and return when it is there; on a busy machine Ray may give up, so twice."""
        for _ in range(2):
            node = self.start(f"--address={self.address}", *options, environment=environment)
            if self.wait():
                return node
        raise AssertionError(self.last_log())

    def wait(self) -> bool:
        """Wait until the node that was started last says that it runs; False if it ends instead."""
        node, until = self.nodes[-1], time.monotonic() + _PATIENCE_S
        while "Ray runtime started" not in self.last_log():
            if node.poll() is not None:
                return False
            assert time.monotonic() < until, "it never started"
            time.sleep(0.05)
        return True

    def last_log(self) -> str:
        """What the node that was started last has printed."""
        return (self.folder / f"node-{len(self.nodes) - 1}.out").read_text(errors="replace")

    def count(self) -> int:
        """Number of the nodes that live."""
        code = (
            "import sys; from ray._raylet import GcsClient; client = GcsClient(address=sys.argv[1]); "
            "print(sum(node.state == 0 for node in client.get_all_node_info().values()))"
        )
        command = [sys.executable, "-c", code, self.address]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    def end(self, node: subprocess.Popen[bytes]) -> None:
        """End a node, as a machine that is shut down does, with all that it started."""
        below = descendants(node.pid)
        node.terminate()
        with suppress(subprocess.TimeoutExpired):
            node.wait(30)
        for pid in (*below, node.pid):
            kill(pid)
        node.wait()


@contextmanager
def serving(
    folder: Path, *options: str, port: int = 0, environment: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """A head without cores; all nodes end with the context.

    Args:
        folder: of all files; with a short name, since Ray's sockets lie in it.
        options: of `ray start`.
        port: of the head; 0 = one that is free.
        environment: further variables of all nodes.
    """
    token = folder / "token"
    token.write_text("the-token-of-this-cluster-and-no-other")
    token.chmod(0o600)
    port = port or free_ports(1)[0]
    settings = {
        **os.environ, **(environment or {}), "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # the suite's 0 keeps Ray on 127.0.0.1, and to one node
    }  # fmt: skip
    for name in ("RAY_AUTH_TOKEN", "RAY_ADDRESS"):
        settings.pop(name, None)
    cluster = Cluster(f"127.0.0.1:{port}", settings, folder)
    try:
        cluster.start(
            "--head", f"--port={port}", "--num-cpus=0", f"--temp-dir={folder}/ray",
            *(options or ("--include-dashboard=false",)),
        )  # fmt: skip
        assert cluster.wait(), cluster.last_log()
        yield cluster
    finally:
        for node in reversed(cluster.nodes):
            cluster.end(node)
