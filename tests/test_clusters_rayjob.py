"""The command of deploy's RayJob as KubeRay submits it, on a Ray with a token whose nodes come and go.

The autoscaler is Ray's own; its provider, Ray's `fake_multinode`, starts nodes on this machine in place of instances.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import yaml
from pipeline_runs import PATIENCE_S, TINY, dataset, tiny_arguments, undisturbed_dataset, until, write_inputs
from servers import ray_cluster
from servers.moto_server import BUCKET, CREDENTIALS
from servers.processes import free_ports
from servers.ray_cluster import RAY, Cluster

from gaussianverse.atlas.store import StoreOptions, open_storage
from gaussianverse.manifests import authored, runform
from gaussianverse.pipeline.config import load

ROOT = Path(__file__).resolve().parents[1]
UIDS = [f"o{i}" for i in range(6)]
LONGER = "fit.steps=400"
"""Fits that last long enough for nodes to come."""


@pytest.fixture
def autoscaled(s3_endpoint: str) -> Iterator[tuple[Cluster, str]]:
    """A cluster that begins with its head alone, and the address of its jobs."""
    node_types = {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "spot": {
            "resources": {"CPU": 1, "object_store_memory": 80 << 20}, "node_config": {}, "min_workers": 0,
            "max_workers": 2,
        },
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder, (port, jobs) = Path(name), free_ports(2)
        config = {
            "cluster_name": "here", "max_workers": 2, "idle_timeout_minutes": 0.1, "upscaling_speed": 1.0,
            "provider": {
                "type": "fake_multinode", "gcs_address": f"127.0.0.1:{port}", "use_node_id_as_ip": True,
                "disable_node_updaters": True,
            },
            "available_node_types": node_types, "head_node_type": "ray.head.default",
        }  # fmt: skip
        for key in ("auth", "docker", "file_mounts"):
            config[key] = {}
        commands = ("initialization", "setup", "head_start_ray", "worker_setup", "worker_start_ray")
        for key in ("cluster_synced_files", *(f"{name}_commands" for name in commands)):
            config[key] = []
        (folder / "autoscaling.yaml").write_text(json.dumps(config))
        with ray_cluster.serving(
            folder, f"--autoscaling-config={folder}/autoscaling.yaml", "--include-dashboard=true",
            f"--dashboard-port={jobs}", port=port,
            environment={
                "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "AWS_ENDPOINT_URL": s3_endpoint,
                **CREDENTIALS,
            },
        ) as cluster:  # fmt: skip
            yield cluster, f"http://127.0.0.1:{jobs}"


def command(events: Path) -> list[str]:
    """The entry point as it stands, but for the profile, which is one for CPUs, and the folder of events."""
    found = {one["kind"]: one for one in yaml.safe_load_all((ROOT / "deploy" / "eks.yaml").read_text())}
    words = shlex.split(found["RayJob"]["spec"]["entrypoint"])
    words[words.index("--events") + 1] = str(events)
    for option, count in (("--profile", 2), ("--set", 2)):
        place = words.index(option)
        del words[place : place + count]
    return [*words, *tiny_arguments(), "--set", LONGER, "--set", "run.shard_size=3"]


@pytest.mark.slow
def test_nodes_come_with_the_job_and_leave_after_it(
    autoscaled: tuple[Cluster, str], s3_endpoint: str, tmp_path: Path
) -> None:
    cluster, jobs = autoscaled
    manifest = write_inputs(tmp_path, UIDS)
    config = load("test", [*TINY, LONGER, "run.shard_size=3"])
    whole = undisturbed_dataset(tmp_path / "whole", manifest, config)
    rows = authored.read(Path(manifest)).rows
    (tmp_path / "objects.parquet").write_bytes(runform.encode(rows, shard_size=3))
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    for path in [tmp_path / "objects.parquet", *(tmp_path / "views").rglob("*.*")]:
        client.upload_file(str(path), BUCKET, str(path.relative_to(tmp_path)))
    assert cluster.count() == 1
    submit = [*RAY, "job", "submit", "--address", jobs, "--", *command(tmp_path / "events.jsonl")]
    done = subprocess.run(
        submit, env=cluster.environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The dataset is complete: s3://bucket/dataset" in done.stdout
    storage = open_storage(f"s3://{BUCKET}/dataset", StoreOptions(endpoint_url=s3_endpoint))
    assert dataset(storage) == whole
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert sorted(event["uid"] for event in events if event["event"] == "finished") == UIDS
    assert events[-1]["event"] == "ended"
    until(lambda: cluster.count() == 1)
