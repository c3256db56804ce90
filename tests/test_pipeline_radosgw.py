"""The protocol with a real S3 server, Ceph radosgw, if it is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from pipeline_runs import TINY, dataset, planned, publish_all, tiny_arguments
from servers import radosgw
from servers.fault_proxy import CUT, LOST, UNSENT, proxying

from gaussianverse.atlas.store import s3
from gaussianverse.atlas.store.errors import Altered
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.s3 import S3Storage
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.dataset import layout, pack
from gaussianverse.pipeline.dataset.finalize import finalize
from gaussianverse.pipeline.node.gpu import Finding
from gaussianverse.pipeline.ops.verify import verify
from gaussianverse.pipeline.run import examining
from gaussianverse.pipeline.run.examining import Asked
from gaussianverse.pipeline.store.probes import prove_conditional_puts
from gaussianverse.pipeline.store.publish import Published, publish

pytestmark = pytest.mark.skipif(bool(radosgw.why_not()), reason=radosgw.why_not() or "it is there")

BUCKET = "bucket"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rgw")


@pytest.fixture(scope="module")
def endpoint(folder: Path) -> Iterator[str]:
    keys = {"AWS_ACCESS_KEY_ID": radosgw.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": radosgw.SECRET_KEY}
    with pytest.MonkeyPatch.context() as patched, radosgw.serving(folder) as url:
        for name, value in keys.items():
            patched.setitem(os.environ, name, value)
        # a session of its own: the default one remembers the credentials of other tests
        client = boto3.session.Session().client("s3", endpoint_url=url, region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        yield url


def storage_at(url: str, name: str, attempts: int = 3) -> S3Storage:
    # another time-out than other tests', so that no client with their credentials is taken from the cache
    config = StoreOptions(endpoint_url=url, region="us-east-1", max_attempts=attempts, read_timeout_s=7.5)
    return S3Storage(f"s3://{BUCKET}/{name}", config)


def test_conditional_puts_hold_and_one_of_eight_racing_writers_wins(endpoint: str) -> None:
    storage = storage_at(endpoint, "race")
    prove_conditional_puts(storage)
    for number in range(10):
        with ThreadPoolExecutor(8) as pool:
            ended = list(pool.map(lambda k, n=number: publish(storage, f"k{n}", f"by {k}".encode()), range(8)))
        assert ended.count(Published.WRITTEN) + ended.count(Published.OURS) == 1
        assert ended.count(Published.ADOPTED) == 7


def test_a_dataset_there_has_the_bytes_of_one_on_disk(endpoint: str, tmp_path: Path) -> None:
    storage, disk = storage_at(endpoint, "whole"), LocalStorage(tmp_path / "disk")
    for place in (storage, disk):
        run = planned(place, ["a", "b", "c"], shard_size=2)
        for stage in layout.STAGES:
            publish_all(place, run, stage, quarantined={"b"})
            for shard in range(run.n_shards):
                pack.pack(place, run, stage, shard)
        finalize(place, run)
        assert list(verify(place, run)) == []
    assert dataset(storage) == dataset(disk)
    storage.delete_many([entry.key for entry in storage.list(layout.WORK)])
    assert list(storage.list(layout.WORK)) == []


@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("fault", [LOST, CUT, UNSENT])
def test_a_put_whose_answer_is_lost_is_recognised_as_ours(endpoint: str, fault: str, attempts: int) -> None:
    """If botocore retries by itself, it repeats the put and gets 412 for what it wrote itself."""
    with proxying(endpoint) as proxy:
        storage = storage_at(proxy.url, f"lost-{fault}-{attempts}", attempts)
        left = [fault]
        proxy.fault = lambda method, path: left.pop() if method == "PUT" and left else ""
        assert publish(storage, "k", b"data" * 1000, pause_s=0) in (Published.OURS, Published.WRITTEN)
        assert storage.get("k") == b"data" * 1000
        assert proxy.met[fault] == 1


@pytest.mark.parametrize("key", ["plain/k.tar", "a b/c+d~e(1)/é%41&=.bin"])
def test_reads_past_boto3_have_signatures_that_it_accepts(
    endpoint: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, data = storage_at(endpoint, "signed reads"), os.urandom(300_000)
    storage.put_if_absent(key, data)
    assert storage.get(key) == data
    monkeypatch.setattr(storage._access().client, "get_object", None)  # not asked again
    assert storage.get(key) == data
    assert storage.read(key, 7, 100_000, len(data)) == data[7:100_007]


def test_a_read_that_breaks_off_goes_on_with_the_same_version(endpoint: str) -> None:
    data = os.urandom(1_000_000)
    with proxying(endpoint) as proxy:
        storage, left = storage_at(proxy.url, "broken"), list[str]()
        storage.put_if_absent("k", data)
        assert storage.get("k") == data  # sent by boto3; the next are not
        proxy.fault = lambda method, path: left.pop() if method == "GET" and left else ""
        left += [CUT, CUT]
        assert storage.read("k", 10, 900_000, len(data)) == data[10:900_010]
        assert proxy.met[CUT] == 2

        def replaced(method: str, path: str) -> str:
            if method == "GET" and proxy.met[CUT] == 3:
                storage._access().client.put_object(Bucket=BUCKET, Key="broken/k", Body=data[::-1])
            return CUT if method == "GET" and proxy.met[CUT] == 2 else ""

        proxy.fault = replaced
        with pytest.raises(Altered, match="k: replaced while it was read"):
            storage.read("k", 10, 900_000, len(data))


def test_the_doctor_says_which_right_is_missing_on_a_prefix(
    endpoint: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second user, whom the bucket's policy lets do one thing less each time."""
    radosgw.add_user(folder, "guest", "GK", "GS")
    owner = boto3.session.Session().client("s3", endpoint_url=endpoint, region_name="us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "GK")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "GS")
    bucket, guest = f"arn:aws:s3:::{BUCKET}", {"AWS": ["arn:aws:iam:::user/guest"]}
    rights = [
        ("s3:ListBucket", bucket), ("s3:PutObject", f"{bucket}/mine/*"), ("s3:GetObject", f"{bucket}/mine/*"),
    ]  # fmt: skip
    # a read time-out of its own, so that no client with the owner's credentials is taken from the cache
    config = load(
        "test", [*TINY, f"store.endpoint_url={endpoint}", "store.region=us-east-1", "store.read_timeout_s=8.5"]
    )

    def store(out: str, *missing: str) -> Finding:
        # denied, and not only left out: whoever wrote an object may read it by its ACL
        statements = [
            {
                "Effect": "Deny" if action in missing else "Allow",
                "Principal": guest,
                "Action": [action],
                "Resource": [on],
            }
            for action, on in rights
        ]
        owner.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": statements}))
        s3._renewals.clear()
        (found,) = [f for f in examining.stores(Asked(config, out)) if f.name == "store"]
        return found

    assert store(f"s3://{BUCKET}/mine").ok
    for out, missing, said in (
        ("theirs", (), "no right to write: s3://bucket/theirs/_probe-"),
        ("mine", ("s3:ListBucket",), "no right to list: s3://bucket/mine/_probe-"),
        ("mine", ("s3:PutObject",), "no right to write: s3://bucket/mine/_probe-"),
        ("mine", ("s3:GetObject",), "no right to read: s3://bucket/mine/_probe-"),
    ):
        found = store(f"s3://{BUCKET}/{out}", *missing)
        assert not found.ok
        assert found.text.startswith(said)
        assert found.text.endswith("s3:GetObject and s3:PutObject on the prefix")


@pytest.mark.skipif(shutil.which("faketime") is None, reason="no faketime: apt-get install faketime")
def test_the_doctor_names_a_clock_that_the_store_refuses(endpoint: str) -> None:
    """In a process whose clock is an hour ahead, so that the real server refuses its signatures."""
    config = ["--set", f"store.endpoint_url={endpoint}", "--set", "store.region=us-east-1"]
    command = [sys.executable, "-m", "gaussianverse.pipeline.cli", "doctor", *tiny_arguments(), "--json"]
    command = ["faketime", "-f", "+1h", *command, *config, "--out", f"s3://{BUCKET}/skewed"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    faults = {one["name"]: one["text"] for one in json.loads(done.stdout) if not one["ok"]}
    assert list(faults) == ["clock", "store"]
    assert "the clock of s3://bucket/skewed is 60 minutes behind this machine" in faults["clock"]
    assert "RequestTimeTooSkewed" in faults["store"]
