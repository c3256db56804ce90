"""A real store without conditional puts, OpenStack Swift: refused before any work, and good enough to read from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from pipeline_runs import tiny_arguments, write_manifest, write_views
from reader_datasets import publish_dataset, upload
from servers import swift

from gaussianverse.atlas import AtlasDataset, StoreOptions
from gaussianverse.atlas.store.errors import StoreRefused
from gaussianverse.atlas.store.s3 import S3Storage
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.run import job
from gaussianverse.pipeline.store.probes import prove_conditional_puts
from gaussianverse.pipeline.store.publish import publish

pytestmark = pytest.mark.skipif(bool(swift.why_not()), reason=swift.why_not() or "it is there")

BUCKET = "bucket"
REFUSAL = r"s3://bucket/.*: this store has no conditional puts \(501\), .*; use one that has \(AWS S3, "


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    keys = {
        "AWS_ACCESS_KEY_ID": swift.ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": swift.SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patched, swift.serving(tmp_path_factory.mktemp("swift")) as url:
        for name, value in keys.items():
            patched.setenv(name, value)
        boto3.session.Session().client("s3", endpoint_url=url).create_bucket(Bucket=BUCKET)
        yield url


@pytest.fixture
def client(endpoint: str) -> Any:
    """A plain boto3 client and an empty bucket."""
    made = boto3.session.Session().client("s3", endpoint_url=endpoint)
    for key in keys_of(made):
        made.delete_object(Bucket=BUCKET, Key=key)
    return made


@pytest.fixture
def store(endpoint: str) -> StoreOptions:
    return StoreOptions(endpoint_url=endpoint, region="us-east-1", max_attempts=3)


def keys_of(client: Any) -> list[str]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return [item["Key"] for page in pages for item in page.get("Contents", ())]


def chosen(store: StoreOptions) -> list[str]:
    return ["--set", f"store.endpoint_url={store.endpoint_url}", "--set", f"store.region={store.region}"]


def test_it_works_as_a_store_of_plain_puts(client: Any, store: StoreOptions) -> None:
    """The store takes plain puts, so the puts below are refused because of their condition alone."""
    client.put_object(Bucket=BUCKET, Key="p/a/b", Body=b"data")
    client.put_object(Bucket=BUCKET, Key="p/a/b", Body=b"other")
    assert client.get_object(Bucket=BUCKET, Key="p/a/b")["Body"].read() == b"other"
    storage = S3Storage(f"s3://{BUCKET}/p", store)
    assert (storage.get("a/b"), storage.read("a/b", 1, 3), storage.size("a/b")) == (b"other", b"the", 5)
    assert storage.head("nothing") is None
    assert [entry.key for entry in storage.list("a/")] == ["a/b"]


def test_the_preflight_refuses_it_with_the_reason_and_leaves_nothing(client: Any, store: StoreOptions) -> None:
    storage = S3Storage(f"s3://{BUCKET}/out", store)
    with pytest.raises(StoreRefused, match=REFUSAL):
        prove_conditional_puts(storage)
    assert keys_of(client) == []


@pytest.mark.parametrize("nbytes", [0, 1, 20_000_000])
def test_nothing_is_ever_published_there(client: Any, store: StoreOptions, nbytes: int) -> None:
    """Puts of any size are refused, after one attempt: another would be refused as well."""
    client.put_object(Bucket=BUCKET, Key="out/taken", Body=b"theirs")
    storage, answered = S3Storage(f"s3://{BUCKET}/out", store), list[object]()
    storage._access().client.meta.events.register("after-call.s3.PutObject", lambda **_: answered.append(None))
    for key in ("free", "taken"):
        with pytest.raises(StoreRefused, match=REFUSAL):
            publish(storage, key, bytes(nbytes), pause_s=0)
    assert len(answered) == 2
    assert keys_of(client) == ["out/taken"]
    assert storage.get("taken") == b"theirs"


@pytest.mark.parametrize("verb", ["build", "fit-shard"])
def test_a_run_ends_with_one_line_before_any_fit(
    verb: str, client: Any, store: StoreOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def build(*_: object, **__: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr(job, "build", build)
    write_views(tmp_path / "views" / "ball")
    manifest = str(write_manifest(tmp_path, ["ball"]))
    out = f"s3://{BUCKET}/out"
    assert cli.main([verb, "--manifest", manifest, "--out", out, *tiny_arguments(), *chosen(store)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith(f"error: {out}: this store has no conditional puts (501), ")
    assert keys_of(client) == []


def test_the_doctor_names_the_fault(client: Any, store: StoreOptions, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["doctor", "--out", f"s3://{BUCKET}/out", "--json", *tiny_arguments(), *chosen(store)]
    assert cli.main(asked) == 1
    found = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert [name for name, finding in found.items() if not finding["ok"]] == ["store"]
    assert "no conditional puts (501)" in found["store"]["text"]
    assert keys_of(client) == []


def test_where_no_run_is_status_says_so(client: Any, store: StoreOptions, capsys: pytest.CaptureFixture[str]) -> None:
    out = f"s3://{BUCKET}/out"
    for verb in (["status"], ["verify"], ["inspect", "ball"]):
        assert cli.main([*verb, "--out", out, *chosen(store)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {out}: ")
        assert "no run" in line


def test_a_finished_dataset_that_was_copied_there_is_read_and_checked_and_never_changed(
    client: Any, endpoint: str, store: StoreOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uids = [f"obj{i:02}" for i in range(6)]
    root = publish_dataset(tmp_path, uids, shard_size=2, quarantined=frozenset({"obj03"}))
    upload(root, endpoint, BUCKET, "set")
    before, out = keys_of(client), f"s3://{BUCKET}/set"

    options = StoreOptions(endpoint_url=endpoint, region="us-east-1")
    there = list(AtlasDataset(out, s3=options, hashes=True, standardise=True, neighbours=1))
    here = list(AtlasDataset(root, standardise=True))
    assert [item["uid"] for item in there] == [item["uid"] for item in here]
    assert all((a["atlas"] == b["atlas"]).all() for a, b in zip(there, here, strict=True))

    assert cli.main(["verify", "--out", out, *chosen(store)]) == 0
    assert cli.main(["status", "--out", out, "--json", *chosen(store)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["finalized"]
    again = ["retry-failed", "--out", out, "--set", "fit.loss.lpips_net=none"]  # whose weights are nowhere
    assert cli.main([*again, *chosen(store)]) == 1
    assert "no conditional puts (501)" in capsys.readouterr().err
    assert keys_of(client) == before


def test_many_keys_are_deleted_with_the_checksum_that_it_asks_for(client: Any, store: StoreOptions) -> None:
    for name in "abc":
        client.put_object(Bucket=BUCKET, Key=f"out/{layout.WORK}{name}", Body=b"x")
    storage = S3Storage(f"s3://{BUCKET}/out", store)
    storage.delete_many([layout.WORK + name for name in ("a", "c", "none")])
    assert [entry.key for entry in storage.list("")] == [f"{layout.WORK}b"]
