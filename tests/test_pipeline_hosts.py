"""The job on a cluster of hosts, each on a network that breaks in the middle; the store is one of the hosts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from pipeline_runs import dataset, differing, tiny_arguments, undisturbed_dataset, until, write_inputs
from servers import hosts, moto_server
from servers.hosts import Host, Wires
from servers.moto_server import BUCKET

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import SPLATS
from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.parquet import from_parquet
from gaussianverse.pipeline.dataset.schemas import JOURNAL, QUARANTINE
from gaussianverse.pipeline.policy import INFRASTRUCTURE

pytestmark = pytest.mark.skipif(bool(why := hosts.why_not()), reason=why)

ROOT = Path(__file__).resolve().parents[1]
UIDS = [f"o{i}" for i in range(6)]
ARGUMENTS = [*tiny_arguments(), "--set", "run.shard_size=3"]
RAY = (sys.executable, "-m", "ray.scripts.scripts", "start", f"--object-store-memory={80 << 20}")
RAY_PORT = 6379
QUICK = {"health_check_period_ms": 500, "health_check_timeout_ms": 500, "health_check_failure_threshold": 3}
NOTICED_S = 8.0
"""Seconds after which Ray, with these settings, has declared a silent node dead."""
CUT_S = 20.0


@dataclass
class Site:
    """A cluster, its store, and one run.

    Attributes:
        head: runs the driver and no task.
        workers: nodes of one core each.
        spare: host that is not a node yet.
        store: host of the inputs and the output.
        wires: network between the hosts.
        url: address of the inputs' folder.
        endpoint: the store's, over the wires.
        storage: the output, which this process reaches without the wires.
    """

    head: Host
    workers: list[Host]
    spare: Host
    store: Host
    wires: Wires
    url: str
    endpoint: str
    storage: Storage
    outside: str

    def start_node(self, host: Host, *options: str) -> subprocess.Popen[str]:
        """Make a host a node of the cluster."""
        return host.start(
            *RAY,
            *options,
            f"--node-ip-address={host.address}",
            f"--temp-dir={host.folder}/ray",
            environment={"PYTHONPATH": str(ROOT)},
        )

    def join(self, *joining: Host) -> None:
        """Make hosts nodes that run tasks."""
        address = f"--address={self.head.address}:{RAY_PORT}"
        starts = [self.start_node(host, "--num-cpus=1", address) for host in joining]
        assert [start.wait(60) for start in starts] == [0] * len(joining)

    @contextmanager
    def running(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        """The job on the head, as users start it."""
        driver = self.head.start(
            *(
                sys.executable,
                "-m",
                "gaussianverse.pipeline.cli",
                "fit-shard",
                f"--manifest={self.url}/objects.jsonl",
            ),
            *(f"--out={self.url}/out", f"--ray-address={self.head.address}:{RAY_PORT}"),
            *(f"--events={self.head.folder}/events", *ARGUMENTS, *options),
            *("--set", f"store.endpoint_url={self.endpoint}"),
            environment={"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
        )
        with driver:
            try:
                yield driver
            finally:
                driver.kill()

    def reasons(self) -> list[str]:
        """Reasons of the retries."""
        lines = map(json.loads, self.head.run("cat", f"{self.head.folder}/events").splitlines())
        return [line["reason"] for line in lines if line["event"] == "retried"]

    def names_in_journal(self) -> set[str]:
        """Names of the hosts whose fits are in the dataset."""
        tables = [
            from_parquet(JOURNAL[SPLATS], self.storage.get(layout.journal(SPLATS, shard))) for shard in range(2)
        ]
        return {row["host"].partition("/")[0] for table in tables for row in table.to_pylist()}

    def is_whole(self, undisturbed: dict[str, bytes]) -> bool:
        """Check that nothing is missing, double or quarantined, and every byte is right."""
        assert from_parquet(QUARANTINE, self.storage.get(dataset_format.QUARANTINE)).num_rows == 0
        assert differing(dataset(self.storage), undisturbed) == []
        read_at = f"store.endpoint_url={self.outside}"
        return cli.main(["verify", f"--out={self.url}/out", "--set", read_at]) == 0


def end_well(driver: subprocess.Popen[str]) -> None:
    _, complaint = driver.communicate(timeout=300)
    assert driver.returncode == 0, complaint


def at_work(host: Host) -> list[int]:
    """Processes of a host that are in the middle of a fit."""
    return [pid for pid, title in host.processes().items() if title.startswith("ray::fit_object")]


def in_the_middle(site: Site, host: Host) -> int:
    """Wait until something is done and this host is in the middle of another fit; returns the process of that fit."""
    until(lambda: any(site.storage.list(f"{layout.WORK}{SPLATS}/")))
    return int(until(lambda: at_work(host))[0])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_inputs(tmp_path_factory.mktemp("inputs"), UIDS)).parent


@pytest.fixture(scope="module")
def undisturbed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The dataset that one process makes of the inputs, in a folder."""
    out, config = tmp_path_factory.mktemp("whole") / "out", load("test", ARGUMENTS[3::2])
    return undisturbed_dataset(out, str(inputs / "objects.jsonl"), config)


@pytest.fixture
def site(inputs: Path, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    # it would keep Ray on 127.0.0.1, which no other host reaches
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    for path in inputs.rglob("*.*"):
        key = f"{tmp_path.name}/{path.relative_to(inputs)}"
        client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
    url = f"s3://{BUCKET}/{tmp_path.name}"
    storage = open_storage(f"{url}/out", StoreOptions(endpoint_url=s3_endpoint))
    with ExitStack() as stack:
        (head, first, second, spare, store), wires = stack.enter_context(hosts.network(5))
        with store.here():  # the same server again, on the store's network
            endpoint = stack.enter_context(moto_server.serving(store.address))
        site = Site(head, [first, second], spare, store, wires, url, endpoint, storage, s3_endpoint)
        options = ("--head", "--num-cpus=0", "--include-dashboard=false", f"--port={RAY_PORT}")
        assert site.start_node(head, *options, f"--system-config={json.dumps(QUICK)}").wait(60) == 0
        site.join(first, second)
        yield site


def test_what_a_cut_wire_carries_is_lost_without_a_word() -> None:
    with hosts.network(3) as ((one, two, other), wires):
        with two.here():
            listening = socket.create_server((two.address, 7))

        def reaches(host: Host) -> bool:
            with host.here():
                try:
                    socket.create_connection((two.address, 7), timeout=0.5).close()
                except TimeoutError:  # not refused, and nothing that says "unreachable"
                    return False
            return True

        with listening:
            assert reaches(one)
            wires.cut(two)
            assert not reaches(one)
            wires.mend(two)
            assert reaches(one)
            wires.cut_between(one, two)
            assert (reaches(one), reaches(other)) == (False, True)
            wires.mend_between(one, two)
            assert reaches(one)


def test_a_dead_host_leaves_no_process() -> None:
    with hosts.network(1) as ((host,), _):
        process = host.start("sleep", "600")
        until(lambda: "sleep 600" in host.processes().values())
        host.end()
        assert process.wait(10) != 0


def test_a_run_across_hosts_gives_the_bytes_of_one_machine(site: Site, undisturbed: dict[str, bytes]) -> None:
    with site.running() as driver:
        end_well(driver)
    assert site.reasons() == []
    assert site.is_whole(undisturbed)
    assert site.names_in_journal() == {host.name for host in site.workers}


@pytest.mark.slow
def test_a_host_is_cut_off_and_comes_back(site: Site, undisturbed: dict[str, bytes]) -> None:
    """Ray declares the host dead meanwhile, and its node ends when it learns that; its object is not blamed."""
    host = site.workers[1]
    with site.running() as driver:
        in_the_middle(site, host)
        site.wires.cut(host)
        time.sleep(CUT_S)
        site.wires.mend(host)
        end_well(driver)
        until(lambda: not any("/raylet" in title for title in host.processes().values()))
    assert set(site.reasons()) <= {INFRASTRUCTURE}
    assert site.is_whole(undisturbed)


@pytest.mark.slow
def test_a_host_that_was_declared_dead_publishes_after_the_end_of_the_run(
    site: Site, undisturbed: dict[str, bytes]
) -> None:
    """The host is cut off from the head but not from the store, and slow: another host fits the object meanwhile."""
    host = site.workers[1]
    site.join(site.spare)
    with site.running("--set", "policy.repeat_after_s=3") as driver:
        fit = in_the_middle(site, host)
        os.kill(fit, signal.SIGSTOP)
        site.wires.cut_between(site.head, host)
        end_well(driver)
        assert site.is_whole(undisturbed)
        assert at_work(host) == [fit]
        os.kill(fit, signal.SIGCONT)
        until(lambda: not at_work(host))
    assert site.is_whole(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("from_whom", ["everybody", "the driver", "a worker"])
def test_the_store_cannot_be_reached_for_a_while(from_whom: str, site: Site, undisturbed: dict[str, bytes]) -> None:
    other = {"the driver": site.head, "a worker": site.workers[1]}.get(from_whom)
    with site.running() as driver:
        in_the_middle(site, site.workers[1])
        site.wires.cut_between(site.store, other) if other else site.wires.cut(site.store)
        time.sleep(CUT_S)
        assert driver.poll() is None, "it is missed"
        site.wires.mend_between(site.store, other) if other else site.wires.mend(site.store)
        end_well(driver)
    assert set(site.reasons()) <= {INFRASTRUCTURE}
    assert site.is_whole(undisturbed)


@pytest.mark.slow
def test_every_worker_dies_at_once_and_another_host_takes_over(site: Site, undisturbed: dict[str, bytes]) -> None:
    with site.running() as driver:
        in_the_middle(site, site.workers[1])
        for host in site.workers:
            host.end()
        time.sleep(NOTICED_S)
        assert driver.poll() is None
        site.join(site.spare)
        end_well(driver)
    assert set(site.reasons()) == {INFRASTRUCTURE}
    assert site.is_whole(undisturbed)
    assert site.spare.name in site.names_in_journal()
