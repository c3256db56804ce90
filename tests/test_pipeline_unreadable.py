"""Single objects that S3 does not give, in whole runs: each costs itself, and the run comes to its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from pipeline_runs import TINY, build_in_process, write_inputs
from servers.moto_server import BUCKET

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.store import retries
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.s3 import S3Storage
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.dataset.parquet import from_parquet
from gaussianverse.pipeline.dataset.schemas import QUARANTINE
from gaussianverse.pipeline.run import job

ARCHIVED = {"StorageClass": "GLACIER"}
FOREIGN_SHA256 = {"Metadata": {"sha256": "0" * 64}}


def store_at(endpoint: str) -> list[str]:
    return [f"store.endpoint_url={endpoint}", "store.region=us-east-1"]


def upload(folder: Path, endpoint: str, prefix: str, more: Callable[[Path], dict[str, Any]]) -> None:
    """Put the files of a folder below a prefix of the bucket, each with more arguments of `put_object`."""
    client = boto3.client("s3", endpoint_url=endpoint)
    for path in folder.rglob("*.*"):
        name = path.relative_to(folder)
        client.put_object(Bucket=BUCKET, Key=f"{prefix}/{name.as_posix()}", Body=path.read_bytes(), **more(name))


@pytest.fixture
def bucket(tmp_path: Path, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> S3Storage:
    """A manifest in which every second object cannot be read: archived, with another's sha256, in no bucket."""
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.0)
    folder, uids = tmp_path / "inputs", ["archived", "good1", "misspelt", "good2", "sha256"]
    manifest = Path(write_inputs(folder, uids))
    manifest.write_text(manifest.read_text().replace("views/misspelt", "s3://no-such-bucket/views/misspelt"))
    faults: dict[str, dict[str, Any]] = {"archived": ARCHIVED, "sha256": FOREIGN_SHA256}
    upload(folder, s3_endpoint, tmp_path.name, lambda name: faults.get(name.parts[-3:][0], {}))
    return S3Storage(f"s3://{BUCKET}/{tmp_path.name}", StoreOptions(endpoint_url=s3_endpoint, region="us-east-1"))


def test_archived_misspelt_and_foreign_objects_cost_one_object_each(
    bucket: S3Storage, tmp_path: Path, s3_endpoint: str
) -> None:
    given = [*store_at(s3_endpoint), "store.max_attempts=2", "policy.pause_s=0"]
    config = load("test", [*TINY, *given])
    storage, run, base = job.plan(str(tmp_path / "out"), f"{bucket.url}/objects.jsonl", config)
    outcome = build_in_process(storage, run, config, base)
    assert (outcome.counts.published, dict(outcome.counts.reasons)) == (2, {"unreadable": 3})
    rows = from_parquet(QUARANTINE, storage.get(dataset_format.QUARANTINE)).to_pylist()
    told = {row["uid"]: row["error_message"] for row in rows}
    assert list(told) == ["archived", "misspelt", "sha256"]
    assert "archived (InvalidObjectState); restore it" in told["archived"]
    assert "NoSuchBucket" in told["misspelt"]
    assert "sha256 in its metadata" in told["sha256"]
    assert not [text for text in told.values() if "while others beside it can be read" not in text]
    assert outcome.summary.retries == 3 * 4, "five tries each"


def test_where_every_object_is_archived_the_run_stops_and_condemns_nobody(
    tmp_path: Path, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.0)
    folder = tmp_path / "inputs"
    write_inputs(folder, ["a", "b"])
    upload(folder, s3_endpoint, tmp_path.name, lambda name: ARCHIVED if name.suffix != ".jsonl" else {})
    given = [*store_at(s3_endpoint), "policy.pause_s=0", "policy.breaker_store_s=0"]
    config = load("test", [*TINY, *given])
    storage, run, base = job.plan(str(tmp_path / "out"), f"s3://{BUCKET}/{tmp_path.name}/objects.jsonl", config)
    with pytest.raises(job.BreakerOpen, match=r"restore it from its archive.*No object was quarantined"):
        build_in_process(storage, run, config, base)
