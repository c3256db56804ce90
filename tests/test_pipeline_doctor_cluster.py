"""`doctor` before a run on a cluster: tokens, what nodes lack, clocks. Started as operators do."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pipeline_runs import tiny_arguments, write_inputs
from servers import ray_cluster
from servers.ray_cluster import Cluster

DOCTOR = [sys.executable, "-m", "gaussianverse.pipeline.cli", "doctor", *tiny_arguments()]
LIBFAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, ray_cluster.serving(Path(folder)) as started:
        yield started


@pytest.fixture(scope="module")
def joined(cluster: Cluster) -> Cluster:
    """The cluster with a node that has a core."""
    cluster.join("--num-cpus=1")
    return cluster


def doctor(cluster: Cluster, *options: str, **environment: str) -> tuple[int, list[str]]:
    """Exit code, and the lines that it prints about clusters and nodes, whose address is N."""
    given = {name: value for name, value in {**cluster.environment, **environment}.items() if value}
    command = [*DOCTOR, "--ray-address", cluster.address, *options]
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr
    starts = ("FAULT", "ok    cluster: ", "ok    node: ")
    lines = [line for line in done.stdout.splitlines() if line.startswith(starts)]
    return done.returncode, [re.sub(r"\bnode(:?) \d+\.\d+\.\d+\.\d+:", r"node\1 N:", line) for line in lines]


def test_nodes_that_can_do_the_work_and_read_the_views(joined: Cluster, tmp_path: Path) -> None:
    manifest = write_inputs(tmp_path, ["a"])
    code, lines = doctor(joined, "--manifest", manifest, "--out", str(tmp_path / "out"))
    assert lines == [
        f"ok    cluster: {joined.address}: 2 nodes, 1 of them with a core for fits; those that join later are not "
        "checked",
        "ok    node: N: can do the work",
    ]
    assert code == 0


def test_another_token_and_none_are_named_at_once_with_the_mend(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("another-token")
    mend = (
        "; write the cluster's token to a file that only you can read, and set RAY_AUTH_MODE=token and "
        "RAY_AUTH_TOKEN_PATH to it (docs/clusters.md)"
    )
    start = f"FAULT cluster: Ray cluster at {cluster.address}: it "
    other = tmp_path / "other"
    refused = f"{start}refuses the token of {other} (RAY_AUTH_TOKEN_PATH), which is not its own{mend}"
    assert doctor(cluster, RAY_AUTH_TOKEN_PATH=str(other)) == (1, [refused])
    unset = f"{start}asks for a token, and none is sent since RAY_AUTH_MODE is not set{mend}"
    assert doctor(cluster, RAY_AUTH_MODE="", RAY_AUTH_TOKEN_PATH="") == (1, [unset])


def test_what_a_node_lacks_is_named_with_the_node(joined: Cluster, tmp_path: Path) -> None:
    views = write_inputs(tmp_path, ["a"])
    shutil.rmtree(tmp_path / "views")
    code, lines = doctor(joined, "--set", "fit.loss.lpips_net=vgg", "--manifest", views)
    faults = [line for line in lines if line.startswith("FAULT") and "node N: " in line]
    assert code == 1
    assert len(faults) == 2
    assert "fitting: node N: LPIPS with vgg needs its backbone's weights" in faults[0]
    assert "set loss.lpips_weights to a copy of torchvision's vgg16-397923af.pth" in faults[0]
    assert f"views: node N: {tmp_path}/views/a: no views at this address" in faults[1]


@pytest.mark.skipif(LIBFAKETIME is None, reason="no libfaketime: apt-get install faketime")
def test_a_node_whose_clock_is_an_hour_ahead_is_named(cluster: Cluster) -> None:
    wrong = {"LD_PRELOAD": str(LIBFAKETIME), "FAKETIME": "+1h"}
    node = cluster.join("--num-cpus=1", environment=wrong)
    try:
        code, lines = doctor(cluster)
    finally:
        cluster.end(node)
    (fault,) = [line for line in lines if line.startswith("FAULT")]
    assert code == 1
    assert fault.startswith("FAULT clock: node N: its clock is 60 minutes ahead of this machine; ")
    assert "by NTP" in fault
