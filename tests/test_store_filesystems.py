"""Datasets under az:// (Azurite) and hf:// (a Hub of our own): read as from a folder, and never written to."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dataset_versions import next_version
from reader_datasets import publish_dataset
from reader_loops import uids
from servers import azurite, hub
from test_store_contract import BEYOND, MISSING, SPANS

from gaussianverse import AtlasDataset, AtlasLoader
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.store import filesystems, open_storage
from gaussianverse.atlas.store.errors import Altered, NotFound, StoreError, StoreRefused
from gaussianverse.atlas.store.storage import Head, Storage, sha256_of

BYTES = bytes(range(100))
FILES = {"k": BYTES, "empty": b"", "a/1": b"x", "a/2": b"xy", "ab/3": b"xyz", "a b/c+d~e(1)/é%41&=.bin": BYTES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stores serve: a dataset and some keys."""
    root = tmp_path_factory.mktemp("files")
    publish_dataset(root / "set", [f"obj{i}" for i in range(12)], shard_size=5)
    next_version(root / "set", corrected={"obj3": {"caption": "other"}}, removed=["obj7"])
    for key, data in FILES.items():
        path = root / "keys" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


@pytest.fixture(scope="module")
def container(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a container of Azurite with the folder in it."""
    if why := azurite.missing():
        pytest.skip(why)
    from azure.storage.blob import BlobServiceClient

    with azurite.serving(tmp_path_factory.mktemp("azurite")) as connection, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
        client = BlobServiceClient.from_connection_string(connection).create_container("sets")
        for path in folder.rglob("*"):
            if path.is_file():
                client.upload_blob(path.relative_to(folder).as_posix(), path.read_bytes())
        yield "az://sets"


@pytest.fixture(scope="module")
def asked() -> list[str]:
    """The requests that the Hub got."""
    return []


@pytest.fixture(scope="module")
def repo(folder: Path, asked: list[str]) -> Iterator[str]:
    """The address of a repository of the Hub with the folder in it."""
    with hub.serving(folder, asked) as endpoint, pytest.MonkeyPatch.context() as patch:
        # what HF_ENDPOINT gives where it is set before the library is imported
        patch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield f"hf://datasets/{hub.REPO}"


@pytest.fixture(params=["container", "repo"])
def root(request: pytest.FixtureRequest) -> str:
    address: str = request.getfixturevalue(request.param)
    return address


@pytest.fixture
def storage(root: str) -> Storage:
    return open_storage(f"{root}/keys/")


def test_a_dataset_is_read_as_from_a_folder(root: str, folder: Path) -> None:
    local, remote = AtlasDataset(folder / "set", neighbours=16, hashes=True), AtlasDataset(f"{root}/set", hashes=True)
    assert local.catalogue.version == remote.catalogue.version == 2
    assert len(AtlasDataset(f"{root}/set", version=1)) == len(remote) + 1
    for expected, found in zip(local, remote, strict=True):
        assert found["uid"] == expected["uid"]
        assert found["row"] == expected["row"]
        assert bool((found["atlas"] == expected["atlas"]).all())
    # processes that are forked after the parent has read
    loader = AtlasLoader(remote.with_family("splats"), 4, num_workers=2)
    for epoch in (0, 1):
        local.set_epoch(epoch)
        assert uids(loader) == uids(local)


def test_ranges_and_lengths(storage: Storage) -> None:
    for key in ("k", "a b/c+d~e(1)/é%41&=.bin"):
        for offset, nbytes, total in SPANS:
            found = storage.read(key, offset, nbytes, total)
            assert found == BYTES[offset : offset + nbytes]
            assert not found.readonly
        assert storage.get(key) == BYTES
        assert storage.size(key) == 100
    assert storage.get("empty") == b""
    assert storage.head("k") == Head(100, sha256_of(BYTES))
    assert storage.head("none") is None


def test_a_read_is_one_request_for_its_range(repo: str, asked: list[str]) -> None:
    storage = open_storage(f"{repo}/keys")
    storage.read("k", 0, 1)
    asked.clear()
    assert storage.read("k", 10, 5, 100) == BYTES[10:15]
    assert asked == [f"GET /datasets/{hub.REPO}/resolve/main/keys/k bytes=10-14"]


def test_what_is_too_short_says_by_how_much(storage: Storage) -> None:
    for offset, nbytes, total, expected in BEYOND:
        with pytest.raises(Altered, match=f"/k: 100 bytes, expected {expected}: truncated"):
            storage.read("k", offset, nbytes, total)
    with pytest.raises(Altered, match="100 bytes, expected 99: longer than it was"):
        storage.read("k", 0, 10, 99)


@pytest.mark.parametrize("operation", MISSING)
def test_what_is_missing_is_not_found(storage: Storage, operation: object) -> None:
    with pytest.raises(NotFound, match="no/such"):
        operation(storage)  # type: ignore[operator]
    with pytest.raises(NotFound, match="keys/a: "):
        storage.size("a")


def test_listing_is_by_prefix(storage: Storage) -> None:
    assert {(e.key, e.nbytes) for e in storage.list("a/")} == {("a/1", 1), ("a/2", 2)}
    assert {e.key for e in storage.list("a")} == {"a/1", "a/2", "ab/3", "a b/c+d~e(1)/é%41&=.bin"}
    assert {e.key: e.nbytes for e in storage.list("")} == {key: len(data) for key, data in FILES.items()}
    assert list(storage.list("none/")) == []


def test_a_store_may_be_pickled(storage: Storage) -> None:
    copy = pickle.loads(pickle.dumps(storage))
    assert (copy.url, copy.read("k", 3, 4)) == (storage.url, BYTES[3:7])


def test_writing_is_refused_with_a_sentence(storage: Storage) -> None:
    for write in (lambda: storage.put_if_absent("new", b"x"), lambda: storage.delete("k")):
        with pytest.raises(StoreRefused, match=r"(az|hf):// is for reading only, .* build into a folder or s3://"):
            write()
    assert storage.head("new") is None
    assert storage.get("k") == BYTES


def test_no_dataset_there_is_named(root: str) -> None:
    with pytest.raises(DatasetError, match="_SUCCESS: no such object; not a finished dataset, or not its root"):
        AtlasDataset(f"{root}/nothing")


def test_credentials_that_are_refused_say_so(container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = os.environ["AZURE_STORAGE_CONNECTION_STRING"]
    key = re.search("AccountKey=([^;]+);", right)
    assert key
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", right.replace(key[1], "c2VjcmV0"))
    # an address of its own, for which this process has no connection yet
    with pytest.raises(StoreRefused, match=r"keys/a/1: the store refuses \(\w+ 403\); check address") as caught:
        open_storage(f"{container}/keys/a").get("1")
    assert "c2VjcmV0" not in str(caught.value)


class Coded(Exception):
    """An error that tells an HTTP status."""

    def __init__(self, code: int) -> None:
        super().__init__("Authorization: Bearer secret")
        self.code = code


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError(), NotFound), (PermissionError(), StoreRefused), (Coded(401), StoreRefused),
        (Coded(503), StoreError), (ConnectionError(), StoreError), (TimeoutError(), StoreError),
        (ValueError("no account"), StoreRefused), (MemoryError(), MemoryError),
    ],
    ids=repr,
)  # fmt: skip
def test_errors_of_libraries_are_ours(
    repo: str, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception]
) -> None:
    storage = open_storage(f"{repo}/keys")

    class Failing:
        def info(self, path: str) -> None:
            raise error

        cat_file = find = info

    monkeypatch.setattr(filesystems, "_filesystem", lambda url, process: (Failing(), "x"))
    for operation in (lambda: storage.get("k"), lambda: storage.read("k", 0, 1), lambda: storage.size("k")):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            operation()
        assert type(caught.value) is kind
        assert "secret" not in str(caught.value)


def test_a_missing_library_names_the_extra() -> None:
    program = """
import sys
from gaussianverse.atlas.store import filesystems, open_storage
from gaussianverse.atlas.store.errors import StoreRefused
for library in ("adlfs", "gcsfs", "huggingface_hub"):
    sys.modules[library] = None
for url in ("az://c/x", "abfss://c@a.dfs.core.windows.net/x", "gs://b/x", "hf://datasets/a/b"):
    try:
        open_storage(url)
    except StoreRefused as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found = re.findall(
        r"^(\w+)://\S+: needs another library: pip install 'gaussianverse\[(\w+)\]'", done.stdout, re.M
    )
    assert found == [("az", "azure"), ("abfss", "azure"), ("gs", "gcs"), ("hf", "hf")]
