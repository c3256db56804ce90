"""verify of a dataset on an S3 server names all that is wrong with it in one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest
from pipeline_runs import planned, publish_all
from servers.moto_server import BUCKET

from gaussianverse.atlas.dataset_format import ATLAS, INDEX, MEAN, SPLATS, SUMS, shard_tar
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.s3 import S3Storage
from gaussianverse.atlas.store.storage import sha256_of
from gaussianverse.pipeline.dataset import layout, pack
from gaussianverse.pipeline.dataset.finalize import finalize
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.ops.verify import verify
from gaussianverse.pipeline.ops.verify_sample import verify_sample


class Bucket:
    """A finished dataset of four shards, and the client of somebody else."""

    def __init__(self, endpoint: str, prefix: str) -> None:
        self.storage = S3Storage(
            f"s3://{BUCKET}/{prefix}/out", StoreOptions(endpoint_url=endpoint, region="us-east-1", max_attempts=2)
        )
        self._client: Any = boto3.client("s3", endpoint_url=endpoint)
        self.run: Run = planned(self.storage, [f"o{k}" for k in range(8)], shard_size=2)
        for stage in layout.STAGES:
            publish_all(self.storage, self.run, stage, quarantined={"o5"})
            for shard in range(self.run.n_shards):
                pack.pack(self.storage, self.run, stage, shard)
        finalize(self.storage, self.run)
        assert list(verify(self.storage, self.run)) == []

    def put(self, key: str, data: bytes, sha256: str | None = None) -> None:
        """Overwrite an object; with `sha256` as its metadata, as ours have it."""
        metadata = {} if sha256 is None else {"sha256": sha256}
        self._client.put_object(Bucket=BUCKET, Key=self.storage.prefix + key, Body=data, Metadata=metadata)

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=BUCKET, Key=self.storage.prefix + key)


@pytest.fixture
def bucket(s3_endpoint: str, tmp_path: Path) -> Bucket:
    return Bucket(s3_endpoint, tmp_path.name)


def flipped(data: bytes) -> bytes:
    return data[:700] + bytes([data[700] ^ 1]) + data[701:]


def test_all_faults_are_named_in_one_call(bucket: Bucket) -> None:
    """Objects that are gone, cut, replaced with and without our metadata, and ones too many."""
    storage = bucket.storage
    cut, swapped, own, other = (shard_tar(f, k) for f, k in ((SPLATS, 0), (ATLAS, 1), (SPLATS, 2), (ATLAS, 3)))
    bucket.put(cut, storage.get(cut)[:-1024])
    bucket.put(swapped, flipped(storage.get(swapped)))
    bucket.put(own, flipped(storage.get(own)), sha256_of(storage.get(own)))
    bucket.put(other, flipped(storage.get(other)), sha256_of(flipped(storage.get(other))))
    gone = (layout.stats(ATLAS, 0), layout.moments(2), layout.commit(SPLATS, 3), MEAN, layout.journal(ATLAS, 1))
    for key in gone:
        bucket.delete(key)
    bucket.put(INDEX, b"{}")
    bucket.put("atlas/notes.txt", b"?")
    found = list(verify(storage, bucket.run))
    named = {key for key in (cut, swapped, own, other, *gone, INDEX, "atlas/notes.txt") if key in " ".join(found)}
    assert named == {cut, swapped, own, other, *gone, INDEX, "atlas/notes.txt"}
    for key in (cut, swapped, own, other):
        assert any(fault.startswith((f"{key}: ", f"{storage.url}/{key}: ")) for fault in found), key
    assert f"atlas/notes.txt: not in {SUMS}" in found


def test_a_sample_names_all_that_it_meets(bucket: Bucket) -> None:
    storage = bucket.storage
    bucket.delete(shard_tar(SPLATS, 0))
    bucket.put(shard_tar(ATLAS, 1), storage.get(shard_tar(ATLAS, 1))[:-1024])
    bucket.put(shard_tar(ATLAS, 2), storage.get(shard_tar(ATLAS, 2)).replace(b"\x93NUMPY", b"\x93NUMPX"))
    found = list(verify_sample(storage, bucket.run, 8))
    assert [fault.split(": ")[0] for fault in found] == [shard_tar(*k) for k in ((SPLATS, 0), (ATLAS, 1), (ATLAS, 2))]
