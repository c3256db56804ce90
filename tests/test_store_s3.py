"""The protocol and a small job against an S3 server, with answers lost, refused and delayed on the way."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from pipeline_runs import dataset, in_process, planned, publish_all, tiny_arguments, write_manifest, write_views
from servers.moto_server import BUCKET

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import SPLATS
from gaussianverse.atlas.store.direct import Direct
from gaussianverse.atlas.store.errors import Altered, NotFound, StoreError, StoreRefused
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.s3 import Access, S3Storage
from gaussianverse.atlas.store.storage import Entry, Head, sha256_of
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.dataset import layout, pack
from gaussianverse.pipeline.dataset.finalize import finalize, is_finalized
from gaussianverse.pipeline.errors import ShardConflict
from gaussianverse.pipeline.ops.verify import verify
from gaussianverse.pipeline.ops.verify_sample import verify_sample
from gaussianverse.pipeline.run import fetching, inputs, job
from gaussianverse.pipeline.store import publish as publishing
from gaussianverse.pipeline.store.probes import prove_conditional_puts
from gaussianverse.pipeline.store.publish import Published, publish_exact

publish = partial(publishing.publish, pause_s=0)


@pytest.fixture
def store(s3_endpoint: str) -> StoreOptions:
    return StoreOptions(endpoint_url=s3_endpoint, region="us-east-1", max_attempts=2)


@pytest.fixture
def storage(store: StoreOptions, tmp_path: Path) -> S3Storage:
    return S3Storage(f"s3://{BUCKET}/{tmp_path.name}/out", store)


class Lossy:
    """A client whose calls fail as told, before they reach the server or after."""

    def __init__(self, client: Any, faults: list[tuple[str, Exception, bool]]) -> None:
        self._client, self.faults = client, faults

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)

        def call(**arguments: Any) -> Any:
            if self.faults and self.faults[0][0] == name:
                _, fault, reaches = self.faults.pop(0)
                if reaches:
                    real(**arguments)
                raise fault
            return real(**arguments)

        return call if name in ("put_object", "head_object", "get_object") else real


def with_client(client: Any) -> Access:
    return Access(client, Direct(StoreOptions(), None, None))


def refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "?"}}, "PutObject")


TIMEOUT = ReadTimeoutError(endpoint_url="http://x")
GONE = EndpointConnectionError(endpoint_url="http://x")


def lossy(storage: S3Storage, *faults: tuple[str, Exception, bool]) -> S3Storage:
    """With one try an operation: what is tested is what the caller makes of its end."""
    access = with_client(Lossy(storage._access().client, list(faults)))
    storage._access, storage._options = lambda: access, replace(storage._options, max_attempts=1)
    return storage


def test_objects_lie_under_the_prefix_with_their_hash(storage: S3Storage, store: StoreOptions) -> None:
    assert publish(storage, "a/b", b"data") is Published.WRITTEN
    client = boto3.client("s3", endpoint_url=store.endpoint_url)
    answer = client.head_object(Bucket=BUCKET, Key=f"{storage.prefix}a/b")
    assert answer["Metadata"] == {"sha256": sha256_of(b"data")}
    assert list(storage.list("")) == [Entry("a/b", 4)]
    assert storage.head("a/b") == Head(4, sha256_of(b"data"))


@pytest.mark.parametrize("url", [f"s3://{BUCKET}", f"s3://{BUCKET}/", f"s3://{BUCKET}/p", f"s3://{BUCKET}/p/q/"])
def test_a_prefix_may_be_missing_or_end_in_a_slash(url: str, store: StoreOptions, tmp_path: Path) -> None:
    storage = S3Storage(url, store)
    key = f"{tmp_path.name}/k"
    storage.put_if_absent(key, b"x")
    assert storage.url == url.rstrip("/")
    assert [e.key for e in storage.list(tmp_path.name)] == [key]


@pytest.mark.parametrize("fault", [TIMEOUT, GONE, refused("InternalError"), refused("SlowDown")])
@pytest.mark.parametrize("reaches", [False, True])
def test_a_lost_answer_is_looked_up(storage: S3Storage, fault: Exception, reaches: bool) -> None:
    ended = publish(lossy(storage, ("put_object", fault, reaches)), "k", b"mine")
    assert ended is (Published.OURS if reaches else Published.WRITTEN)
    assert storage.get("k") == b"mine"


def test_a_412_for_our_own_write_is_recognised(storage: S3Storage) -> None:
    """botocore repeats a put whose answer was lost, and then hears that the key is taken: by itself."""
    assert publish(lossy(storage, ("put_object", refused("PreconditionFailed"), True)), "k", b"m") is Published.OURS


def test_a_409_is_tried_again(storage: S3Storage) -> None:
    lossy(storage, ("put_object", refused("ConditionalRequestConflict"), False))
    assert publish(storage, "k", b"mine") is Published.WRITTEN


def test_when_the_race_is_lost_and_the_answer_too_theirs_stands(storage: S3Storage) -> None:
    storage.put_if_absent("k", b"theirs")
    lossy(storage, ("put_object", TIMEOUT, False), ("head_object", GONE, False))
    assert publish(storage, "k", b"mine") is Published.ADOPTED
    with pytest.raises(ShardConflict, match="Nothing was overwritten"):
        publish_exact(storage, "k", b"mine")
    assert storage.get("k") == b"theirs"


def test_a_store_that_never_answers_is_an_error_with_the_key(storage: S3Storage) -> None:
    lossy(storage, *[("put_object", GONE, False)] * publishing.ATTEMPTS)
    with pytest.raises(StoreError, match="k: not written in"):
        publish(storage, "k", b"mine")


@pytest.mark.parametrize(
    ("code", "word"),
    [("AccessDenied", "check address, region and permissions"), ("NotImplemented", "no conditional puts"),
     ("501", "no conditional puts"), ("SignatureDoesNotMatch", "SignatureDoesNotMatch")],
)  # fmt: skip
def test_a_store_that_refuses_is_asked_once(storage: S3Storage, code: str, word: str) -> None:
    faults = [("put_object", refused(code), False)] * 2
    lossy(storage, *faults)
    with pytest.raises(StoreRefused, match=word):
        publish(storage, "k", b"mine")
    assert len(storage._access().client.faults) == 1


def test_conditional_puts_are_proven(storage: S3Storage) -> None:
    prove_conditional_puts(storage)
    assert list(storage.list("")) == []


def test_bytes_that_were_damaged_on_the_way_are_no_answer(storage: S3Storage, store: StoreOptions) -> None:
    client = boto3.client("s3", endpoint_url=store.endpoint_url)
    client.put_object(Bucket=BUCKET, Key=f"{storage.prefix}k", Body=b"other", Metadata={"sha256": sha256_of(b"data")})
    with pytest.raises(Altered, match="not those of the sha256 in its metadata"):
        storage.get("k")


def test_no_fault_shows_a_credential(storage: S3Storage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    secret = "Authorization: AWS4 test-secret"
    fault = ClientError({"Error": {"Code": "Weird", "Message": secret}}, "PutObject")
    with pytest.raises(StoreError) as caught:
        lossy(storage, ("put_object", fault, False)).put_if_absent("k", b"")
    assert "test-secret" not in str(caught.value) + caplog.text


def test_without_credentials_the_line_says_so(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    config = StoreOptions(endpoint_url="http://127.0.0.1:9", region="us-east-1")
    with pytest.raises(StoreRefused, match="no credentials"):
        S3Storage(f"s3://{BUCKET}/x", config).put_if_absent("k", b"")


def test_a_dataset_on_s3_has_the_bytes_of_one_on_disk(storage: S3Storage, tmp_path: Path) -> None:
    for place in (storage, LocalStorage(tmp_path / "disk")):
        run = planned(place, ["a", "b", "c"], shard_size=2)
        for stage in layout.STAGES:
            publish_all(place, run, stage, quarantined={"b"})
            for shard in range(run.n_shards):
                for _ in range(2):
                    pack.pack(place, run, stage, shard)
        assert not is_finalized(place)
        for _ in range(2):
            finalize(place, run)
        assert list(verify(place, run)) == []
    assert dataset(storage) == dataset(LocalStorage(tmp_path / "disk"))
    storage.delete(dataset_format.shard_tar(SPLATS, 1))
    assert any("splats-000001.tar: missing" in fault for fault in verify(storage, run))
    with pytest.raises(NotFound):
        storage.get(dataset_format.shard_tar(SPLATS, 1))


class Failing(LocalStorage):
    """A folder of which one read, by its number, fails as a store does."""

    def __init__(self, root: Path, at: int) -> None:
        super().__init__(root)
        self.left = at

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise StoreError("503")

    def get(self, key: str) -> bytes:
        self._count()
        return super().get(key)

    def read(self, *span: Any) -> memoryview:
        self._count()
        return super().read(*span)

    def size(self, key: str) -> int:
        self._count()
        return super().size(key)

    def list(self, prefix: str) -> Iterator[Entry]:
        self._count()
        return super().list(prefix)


@pytest.mark.parametrize("look", [verify, partial(verify_sample, count=2)])
def test_a_store_that_fails_is_never_a_fault_of_the_dataset(tmp_path: Path, look: Any) -> None:
    run = planned(LocalStorage(tmp_path), ["a", "b", "c"], shard_size=2)
    for stage in layout.STAGES:
        publish_all(LocalStorage(tmp_path), run, stage)
        for shard in range(run.n_shards):
            pack.pack(LocalStorage(tmp_path), run, stage, shard)
    finalize(LocalStorage(tmp_path), run)
    number = 0
    while True:
        number += 1
        storage, found = Failing(tmp_path, number), list[str]()
        try:
            found += look(storage, run)
        except StoreError:
            assert storage.left == 0
            continue
        assert storage.left > 0
        assert found == []
        break
    assert number > 20


def upload(folder: Path, storage: S3Storage) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            storage.put_if_absent(path.relative_to(folder).as_posix(), path.read_bytes())


@pytest.fixture
def lost_answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every third put is done and then reported as timed out."""
    real, lost, count = S3Storage.put_if_absent, list[str](), [0]

    def put(self: S3Storage, key: str, data: bytes) -> bool:
        written = real(self, key, data)
        count[0] += 1
        if count[0] % 3 == 0:
            lost.append(key)
            raise StoreError(f"{key}: ReadTimeoutError")
        return written

    monkeypatch.setattr(S3Storage, "put_if_absent", put)
    return lost


def test_a_whole_job_from_s3_to_s3_with_answers_lost(
    store: StoreOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    monkeypatch.setattr(job, "ray_executor", in_process)
    folder, url = tmp_path / "input", f"s3://{BUCKET}/{tmp_path.name}"
    write_views(folder / "views" / "ball")
    write_manifest(folder, ["ball", "missing"])
    upload(folder, S3Storage(f"{url}/input", store))
    chosen = ["--set", f"store.endpoint_url={store.endpoint_url}", "--set", "store.region=us-east-1"]

    def build(manifest: str, out: str) -> int:
        return cli.main(["build", "--manifest", manifest, "--out", out, *tiny_arguments(), *chosen])

    lost = request.getfixturevalue("lost_answers")
    assert build(f"{url}/input/objects.jsonl", f"{url}/out") == 0
    assert len(lost) > 5
    monkeypatch.undo()
    monkeypatch.setattr(job, "ray_executor", in_process)
    printed = capsys.readouterr().out
    assert f"The dataset is complete: {url}/out" in printed
    assert "quarantined: missing_views: " in printed
    assert cli.main(["verify", "--out", f"{url}/out", *chosen]) == 0
    assert cli.main(["status", "--out", f"{url}/out", "--json", *chosen]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["finalized"]
    assert build(f"{url}/input/objects.jsonl", f"{url}/out") == 0
    assert "Nothing to do" in capsys.readouterr().out
    # and the good object's samples are those of the same job on disk
    assert build(str(folder / "objects.jsonl"), str(tmp_path / "disk")) == 0
    on_s3, on_disk = dataset(S3Storage(f"{url}/out", store)), dataset(LocalStorage(tmp_path / "disk"))
    assert on_s3.keys() == on_disk.keys()
    for stage in layout.STAGES:
        key = dataset_format.shard_tar(stage, 0)
        assert on_s3[key] == on_disk[key]


def test_inputs_are_fetched_and_removed_again(storage: S3Storage, store: StoreOptions) -> None:
    for key in ("views/ball/0.png", "views/ball/deep/1.png", "views/balloon/0.png", "views/one.tar"):
        storage.put_if_absent(key, key.encode())
    with inputs.local(f"{storage.url}/views/ball", store) as root:
        found = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
        assert (root.name, found) == ("ball", ["0.png", "deep/1.png"])
    assert not root.exists()
    with inputs.local(f"{storage.url}/views/one.tar", store) as path:
        assert path.read_bytes() == b"views/one.tar"
    with pytest.raises(inputs.NoViews, match="no views at this address"), inputs.local(f"{storage.url}/none", store):
        pass


LIMITS: list[Callable[[pytest.MonkeyPatch], None]] = [
    lambda m: m.setattr(fetching, "MAX_BYTES", 5),
    lambda m: m.setattr(fetching, "MAX_FILES", 1),
]


@pytest.mark.parametrize("limit", LIMITS)
def test_inputs_beyond_any_object_are_refused(
    storage: S3Storage, store: StoreOptions, monkeypatch: pytest.MonkeyPatch, limit: Callable[..., None]
) -> None:
    for i in range(3):
        storage.put_if_absent(f"views/{i}", b"1234")
    limit(monkeypatch)
    with pytest.raises(inputs.InputTooLarge, match="more than"), inputs.local(f"{storage.url}/views", store):
        pass


def test_a_manifest_on_s3_that_is_not_there(store: StoreOptions, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--set", f"store.endpoint_url={store.endpoint_url}", *tiny_arguments()]
    assert cli.main(["build", "--manifest", f"s3://{BUCKET}/no.jsonl", "--out", f"s3://{BUCKET}/o", *chosen]) == 1
    assert "no.jsonl: no such file" in capsys.readouterr().err


def test_a_list_that_fails_half_way_is_a_fault(storage: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def list_objects_v2(self, ContinuationToken: str = "", **_: Any) -> dict[str, Any]:
            if ContinuationToken:
                raise refused("SlowDown")
            item = {"Key": f"{storage.prefix}a", "Size": 1}
            return {"Contents": [item], "IsTruncated": True, "NextContinuationToken": "a"}

    access = with_client(Client())
    storage._access = lambda: access
    with pytest.raises(StoreError, match="SlowDown"):
        list(storage.list(""))


def test_many_keys_are_deleted_at_once(storage: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaussianverse.atlas.store.s3._MOST_DELETES", 2)
    for name in "abcde":
        storage.put_if_absent(name, b"x")
    storage.delete_many(["a", "b", "c", "none", "d"])
    assert [entry.key for entry in storage.list("")] == ["e"]
    storage.delete_many([])
