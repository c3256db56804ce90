import errno
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.errors import Altered, NotFound, StoreError, StoreRefused
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.storage import Head, Storage, sha256_of


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return LocalStorage(tmp_path / "out")
    endpoint = request.getfixturevalue("s3_endpoint")
    return open_storage(f"s3://bucket/{tmp_path.name}", StoreOptions(endpoint_url=endpoint, max_attempts=2))


def test_the_first_writer_wins(storage: Storage) -> None:
    assert storage.put_if_absent("a/b", b"first")
    assert not storage.put_if_absent("a/b", b"second")
    assert storage.get("a/b") == b"first"
    assert storage.head("a/b") == Head(5, sha256_of(b"first"))
    assert storage.size("a/b") == 5


def test_the_first_writer_wins_also_without_sync(storage: Storage) -> None:
    assert storage.put_unsynced("a/b", b"first")
    assert not storage.put_unsynced("a/b", b"second")
    assert not storage.put_if_absent("a/b", b"third")
    assert storage.get("a/b") == b"first"
    assert [entry.key for entry in storage.list("")] == ["a/b"]


def test_of_many_writers_at_once_one_wins(storage: Storage) -> None:
    outcomes: dict[int, bool] = {}
    start = threading.Barrier(8)

    def write(i: int) -> None:
        start.wait()
        outcomes[i] = storage.put_if_absent("key", str(i).encode())

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [i for i, won in outcomes.items() if won]
    assert len(outcomes) == 8
    assert len(winners) == 1
    assert storage.get("key") == str(winners[0]).encode()


BYTES = bytes(range(100))
SPANS = [(0, 100, None), (10, 5, None), (10, 5, 100), (99, 1, 100), (0, 0, None)]
BEYOND = [(90, 20, None, 110), (100, 1, None, 101), (300, 1, None, 301), (0, 10, 101, 101), (200, 10, 300, 300)]


@pytest.mark.parametrize("key", ["k", "a b/c+d~e(1)/é%41&=.bin"])
def test_ranges(storage: Storage, key: str) -> None:
    storage.put_if_absent(key, BYTES)
    for _ in range(2):  # from S3 the second GET takes another way
        for offset, nbytes, total in SPANS:
            found = storage.read(key, offset, nbytes, total)
            assert found == BYTES[offset : offset + nbytes]
            assert not found.readonly


@pytest.mark.parametrize(("offset", "nbytes", "total", "expected"), BEYOND)
def test_what_is_too_short_says_by_how_much(
    storage: Storage, offset: int, nbytes: int, total: int | None, expected: int
) -> None:
    storage.put_if_absent("k", BYTES)
    how = f"100 bytes, expected {expected}: truncated, {expected - 100} bytes are missing"
    for _ in range(2):
        with pytest.raises(Altered, match=f"/k: {how}"):
            storage.read("k", offset, nbytes, total)
        storage.get("k")
    with pytest.raises(Altered, match="100 bytes, expected 99: longer than it was"):
        storage.read("k", 0, 10, 99)


def test_a_store_may_be_pickled(storage: Storage) -> None:
    storage.put_if_absent("k", BYTES)
    storage.get("k")
    copy = pickle.loads(pickle.dumps(storage))
    assert (copy.url, copy.get("k"), copy.read("k", 3, 4)) == (storage.url, BYTES, BYTES[3:7])


def test_listing_is_by_prefix_and_shows_nothing_unfinished(storage: Storage) -> None:
    for key in ("a/1", "a/2", "ab/3", "top"):
        storage.put_if_absent(key, b"x" * len(key))
    assert {e.key for e in storage.list("a/")} == {"a/1", "a/2"}
    assert {e.key for e in storage.list("a")} == {"a/1", "a/2", "ab/3"}
    assert {(e.key, e.nbytes) for e in storage.list("")} == {("a/1", 3), ("a/2", 3), ("ab/3", 4), ("top", 3)}
    assert list(storage.list("none/")) == []


def test_more_keys_than_a_page_are_listed(s3_endpoint: str, tmp_path: Path) -> None:
    storage = open_storage(f"s3://bucket/{tmp_path.name}", StoreOptions(endpoint_url=s3_endpoint))
    for i in range(1005):
        storage.put_if_absent(f"many/{i}", b"")
    assert len(list(storage.list("many/"))) == 1005


MISSING: list[Callable[[Storage], object]] = [
    lambda s: s.get("no/such"),
    lambda s: s.read("no/such", 0, 1),
    lambda s: s.size("no/such"),
]


@pytest.mark.parametrize("operation", MISSING)
def test_what_is_missing_is_not_found(storage: Storage, operation: Callable[[Storage], object]) -> None:
    with pytest.raises(NotFound, match="no/such"):
        operation(storage)
    assert storage.head("no/such") is None


def test_deleting_is_idempotent(storage: Storage) -> None:
    storage.put_if_absent("p/x", b"1")
    storage.delete("p/x")
    storage.delete("p/x")
    assert storage.head("p/x") is None
    assert storage.put_if_absent("p/x", b"2")


def test_an_unwritable_place_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreRefused, match="file"):
        LocalStorage(tmp_path / "file" / "out").put_if_absent("k", b"")


def test_a_write_outlives_a_loss_of_power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes reach the disk before they get their name; then the name does, and those of new folders."""
    root, synced, order = tmp_path / "out", list[Path](), list[tuple[Path, bool]]()
    fsync = os.fsync

    def watched(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        synced.append(path)
        order.append((path, (root / "a/b/k").exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    storage = LocalStorage(root)
    assert storage.put_if_absent("a/b/k", b"bytes")
    files = [path for path in synced if not path.is_dir()]
    assert len(files) == 1
    assert order[-1] == (root / "a/b", True)
    assert order[-2] == (files[0], False)
    assert {tmp_path, root, root / "a"} <= set(synced)
    synced.clear()
    order.clear()
    assert storage.put_if_absent("a/b/l", b"more")  # every folder is there
    assert [path.is_dir() for path in synced] == [False, True]
    synced.clear()
    assert storage.put_unsynced("a/b/m", b"a journal")
    assert synced == []


def test_keys_stay_inside(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "out")
    for key in ("../x", "/etc/x", "a/../../x"):
        with pytest.raises(ValueError, match="leaves"):
            storage.put_if_absent(key, b"")


def test_a_missing_bucket_is_refused(s3_endpoint: str) -> None:
    storage = open_storage("s3://nobody-has-this/x", StoreOptions(endpoint_url=s3_endpoint))
    with pytest.raises(StoreRefused, match="NoSuchBucket"):
        storage.put_if_absent("k", b"")


def test_an_unreachable_store_is_a_fault_that_may_pass() -> None:
    config = StoreOptions(endpoint_url="http://127.0.0.1:9", region="us-east-1", max_attempts=1, connect_timeout_s=1)
    with pytest.raises(StoreError) as caught:
        open_storage("s3://bucket/x", config).put_if_absent("k", b"")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://host/x", "http://host/x", "s3://"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(StoreRefused):
        open_storage(url)


def test_an_object_without_our_metadata_still_has_a_sha256(s3_endpoint: str, tmp_path: Path) -> None:
    import boto3

    boto3.client("s3", endpoint_url=s3_endpoint).put_object(Bucket="bucket", Key=f"{tmp_path.name}/k", Body=b"abc")
    storage = open_storage(f"s3://bucket/{tmp_path.name}", StoreOptions(endpoint_url=s3_endpoint))
    assert storage.head("k") == Head(3, sha256_of(b"abc"))


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_folder_that_cannot_be_listed_is_no_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    storage, scandir = LocalStorage(tmp_path), os.scandir
    storage.put_if_absent("a/b/c", b"x")

    def fails(path: str) -> Any:
        if str(path).endswith("/b"):
            raise OSError(number, os.strerror(number), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fails)
    with pytest.raises(StoreError, match=f"a/: {os.strerror(number)}"):
        list(storage.list("a/"))
    monkeypatch.undo()
    assert [entry.key for entry in storage.list("a/")] == ["a/b/c"]
    assert list(storage.list("none/")) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_said_at_once_with_its_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(StoreRefused, match=rf"{tmp_path}/a: {os.strerror(number)}; (free|raise)"):
        LocalStorage(tmp_path).put_if_absent("a", b"x")
    assert list(LocalStorage(tmp_path).list("")) == []


def test_a_file_is_put_as_its_bytes_are(storage: Storage, tmp_path: Path) -> None:
    path = tmp_path / "given"
    path.write_bytes(BYTES * 100)
    assert storage.put_file("a/file", path)
    assert not storage.put_file("a/file", path)
    assert storage.head("a/file") == Head(10_000, sha256_of(BYTES * 100))
    assert storage.get("a/file") == BYTES * 100


def test_folders_are_told_without_what_is_in_them(storage: Storage) -> None:
    assert list(storage.folders("w/")) == []
    for key in ("w/s/1/a", "w/s/1/b", "w/s/22/c/d", "w/s/file", "w/t/3/a", "top/a"):
        storage.put_if_absent(key, b"")
    assert sorted(storage.folders("w/s/")) == ["1", "22"]
    assert sorted(storage.folders("w/")) == ["s", "t"]
    assert sorted(storage.folders("")) == ["top", "w"]
