import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reader_datasets import publish_dataset, upload
from servers.flaky_server import Behaviour, serving

from gaussianverse.atlas import AtlasDataset, AtlasLoader, StoreOptions
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.store import open_storage, retries
from gaussianverse.atlas.store.errors import Altered, NotFound, StoreError, StoreRefused
from gaussianverse.atlas.store.s3 import S3Storage

BLOB = np.random.default_rng(0).bytes(1_000_000)
UIDS = [f"obj{i:02d}" for i in range(12)]


@pytest.fixture
def flaky(tmp_path: Path, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Behaviour, str]]:
    # `s3_endpoint` is there for its credentials
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.001)
    (tmp_path / "b/x").mkdir(parents=True)
    (tmp_path / "b/x/blob").write_bytes(BLOB)
    behaviour = Behaviour(tmp_path)
    with serving(behaviour) as endpoint:
        yield behaviour, endpoint


def s3(endpoint: str, **options: Any) -> S3Storage:
    return S3Storage("s3://b/x", StoreOptions(endpoint_url=endpoint, region="us-east-1", **options))


def test_a_bucket(flaky: tuple[Behaviour, str]) -> None:
    behaviour, endpoint = flaky
    store = s3(endpoint)
    assert store.url == "s3://b/x"
    assert store.get("blob") == BLOB
    assert store.read("blob", 100, 1000, len(BLOB)) == BLOB[100:1100]
    assert behaviour.requests == [("GET", "/b/x/blob", ""), ("GET", "/b/x/blob", "bytes=100-1099")]
    assert pickle.loads(pickle.dumps(store)).get("blob") == BLOB


def test_a_broken_answer_is_gone_on_with_where_it_broke(flaky: tuple[Behaviour, str]) -> None:
    behaviour, endpoint = flaky
    behaviour.cut_after = [400_000, 0, 300_000]
    assert s3(endpoint).read("blob", 50, 900_000, len(BLOB)) == BLOB[50:900_050]
    starts = [int(span.removeprefix("bytes=").partition("-")[0]) for _, _, span in behaviour.requests]
    assert starts == [50, 400_050, 400_050, 700_050]
    assert {span.rpartition("-")[2] for _, _, span in behaviour.requests} == {"900049"}


def test_a_broken_whole_read_is_gone_on_with(flaky: tuple[Behaviour, str]) -> None:
    behaviour, endpoint = flaky
    behaviour.cut_after = [400_000]
    assert s3(endpoint).get("blob") == BLOB
    assert [span for _, _, span in behaviour.requests] == ["", "bytes=400000-"]


def test_a_link_that_brings_a_little_each_time_gets_there(flaky: tuple[Behaviour, str]) -> None:
    behaviour, endpoint = flaky
    behaviour.cut_after = [1 << 17] * 5
    assert s3(endpoint, max_attempts=2).get("blob") == BLOB


def test_a_store_that_is_slow_is_asked_again_but_not_for_ever(flaky: tuple[Behaviour, str]) -> None:
    behaviour, endpoint = flaky
    behaviour.refuse = [503, 500, 503]
    assert s3(endpoint).get("blob") == BLOB
    behaviour.refuse = [503] * 9
    with pytest.raises(StoreError, match=r"s3://b/x/blob: 0 of 10 bytes after 4 tries in a row \(SlowDown"):
        s3(endpoint, max_attempts=4).read("blob", 0, 10, len(BLOB))
    assert len(behaviour.refuse) == 1  # a try asks twice: past boto3, as the first object showed, and through it


def test_another_version_in_the_middle_is_refused(
    flaky: tuple[Behaviour, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    behaviour, endpoint = flaky
    behaviour.cut_after = [400_000]
    store = s3(endpoint)
    client, get = store._access().client, store._access().client.get_object

    def then_another(**request: Any) -> Any:
        answer = get(**request)
        behaviour.etag = '"two"'
        return answer

    monkeypatch.setattr(client, "get_object", then_another)
    with pytest.raises(Altered, match="blob: replaced while it was read"):
        store.read("blob", 0, 900_000, len(BLOB))


@pytest.mark.parametrize(("offset", "length"), [(0, 999_999), (999_999, 1_200_000), (1_100_000, 1_200_000)])
def test_another_length_is_named(flaky: tuple[Behaviour, str], offset: int, length: int) -> None:
    _, endpoint = flaky
    how = "longer" if length < len(BLOB) else "truncated"
    with pytest.raises(Altered, match=f"blob: 1000000 bytes, expected {length}: {how}"):
        s3(endpoint).read("blob", offset, 10, length)


def test_final_answers_are_not_asked_for_again(flaky: tuple[Behaviour, str]) -> None:
    behaviour, endpoint = flaky
    with pytest.raises(NotFound, match="nothing: no such object"):
        s3(endpoint).get("nothing")
    behaviour.ranges = False
    with pytest.raises(StoreRefused, match="does not do range reads"):
        s3(endpoint).read("blob", 1, 10, len(BLOB))
    assert len(behaviour.requests) == 2


def test_anonymous_requests_are_not_signed(flaky: tuple[Behaviour, str]) -> None:
    behaviour, endpoint = flaky
    behaviour.anonymous = True
    with pytest.raises(StoreRefused, match=r"the store refuses \(AccessDenied\)"):
        s3(endpoint).get("blob")
    assert s3(endpoint, anonymous=True).get("blob") == BLOB


def test_without_credentials_it_says_what_to_do(
    flaky: tuple[Behaviour, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(StoreRefused, match=r"no credentials; .*StoreOptions\(anonymous=True\)"):
        s3(flaky[1]).get("blob")


def test_without_boto3_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.delitem(sys.modules, "gaussianverse.atlas.store.s3")
    with pytest.raises(StoreRefused, match=r"gaussianverse\[read\]"):
        open_storage("s3://b/x")


def test_an_address_without_a_bucket_is_refused() -> None:
    with pytest.raises(StoreRefused, match="no bucket"):
        open_storage("s3://")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_in_a_bucket_is_the_one_in_the_folder(tmp_path: Path, s3_endpoint: str, workers: int) -> None:
    root = publish_dataset(tmp_path, UIDS[:6], shard_size=2)
    upload(root, s3_endpoint, "bucket", f"some/prefix{workers}")
    options = StoreOptions(endpoint_url=s3_endpoint, region="us-east-1")
    remote = AtlasDataset(f"s3://bucket/some/prefix{workers}", s3=options, hashes=True, standardise=True)
    # a folder's samples are shuffled singly unless it is told otherwise
    local = list(AtlasDataset(root, standardise=True, neighbours=16))
    found = [
        (u, a, c)
        for batch in AtlasLoader(remote, 2, num_workers=workers)
        for u, a, c in zip(batch["uid"], batch["atlas"], batch["caption"], strict=True)
    ]
    assert [(u, c) for u, _, c in found] == [(i["uid"], i["caption"]) for i in local]
    assert all((a == i["atlas"]).all() for (_, a, _), i in zip(found, local, strict=True))
    assert remote.get("obj03")["caption"] == "caption of obj03: é"


def test_a_cut_object_in_a_bucket_is_named(tmp_path: Path, flaky: tuple[Behaviour, str]) -> None:
    behaviour, endpoint = flaky
    root = publish_dataset(tmp_path / "b/set", UIDS[:3], shard_size=4)
    dataset = AtlasDataset("s3://b/set", s3=StoreOptions(endpoint_url=endpoint, region="us-east-1"), shuffle=False)
    shard = root / "atlas/atlas-000000.tar"
    whole = shard.read_bytes()
    for cut in range(512, len(whole), 512):
        shard.write_bytes(whole[:cut])
        dataset.set_epoch(0)
        with pytest.raises(DatasetError, match=rf"{cut} bytes, .* truncated"):
            list(dataset)
    assert all(method in ("GET", "HEAD") for method, _, _ in behaviour.requests)


def test_what_a_trainer_sees_of_a_store_that_fails_is_no_damage(tmp_path: Path, flaky: tuple[Behaviour, str]) -> None:
    behaviour, endpoint = flaky
    options = StoreOptions(endpoint_url=endpoint, region="us-east-1", max_attempts=2)
    root = publish_dataset(tmp_path / "b/set", UIDS[:4], shard_size=2)
    opening = len(behaviour.requests)
    AtlasDataset("s3://b/set", s3=options)
    opening = len(behaviour.requests) - opening
    for number in range(opening):
        behaviour.refuse = [0] * number + [503] * 5
        with pytest.raises(StoreError, match="SlowDown"):
            AtlasDataset("s3://b/set", s3=options)
    behaviour.refuse = []
    dataset = AtlasDataset("s3://b/set", s3=options, shuffle=False, readahead=0, neighbours=1)
    samples = iter(dataset)
    next(samples)
    behaviour.refuse = [503] * 5
    with pytest.raises(StoreError, match="SlowDown"):
        next(samples)
    behaviour.refuse = []
    (root / "atlas/atlas-000001.tar").unlink()
    with pytest.raises(DatasetError, match=r"atlas-000001.tar: no such object; fetch it again"):
        list(dataset)
