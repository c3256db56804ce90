"""Whose fault it is that views cannot be read: what lies beside them tells."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers.moto_server import BUCKET

from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.store.errors import Altered, NotFound, StoreError, StoreRefused
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.s3 import S3Storage
from gaussianverse.fitter.errors import BadInput, DecodeError, MissingViews
from gaussianverse.pipeline.run import inputs
from gaussianverse.pipeline.run.executor import Job
from gaussianverse.pipeline.run.neighbours import Neighbours
from gaussianverse.pipeline.run.reading import Unreachable, Unread, local_views

Raised = BaseException | type[BaseException]
EIO = OSError(errno.EIO, "Input/output error")


def write(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def verdict(base: Path | str, views: str, beside: list[str], error: BaseException | None = None) -> BaseException:
    """The error that reading `views` ends with, if the reader raises `error`, or MissingViews where nothing is."""
    try:
        with local_views(Job("/out", str(base)), views, beside) as path:
            raise error or MissingViews(f"{path}: no such file or folder")
    except Exception as found:
        return found


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Path]:
    """A folder of a manifest with the views of objects a, b and c; d is missing."""
    write(*(tmp_path / "views" / uid / "00000" / "00000.png" for uid in "abc"), tmp_path / "objects.jsonl")
    return tmp_path


def test_an_object_that_is_missing_among_others_is_the_objects_fault(share: Path) -> None:
    for beside in (["views/c"], ["views/e", "views/a"], []):
        error = verdict(share, "views/d", beside)
        assert isinstance(error, MissingViews)
        assert str(error) == "views/d: no such file or folder"


def empty(share: Path) -> None:
    shutil.rmtree(share / "views")
    (share / "views").mkdir()


def gone(share: Path) -> None:
    shutil.rmtree(share / "views")


def dead_link(share: Path) -> None:
    gone(share)
    (share / "views").symlink_to(share / "mnt" / "views")
    write(share / "out" / "file")  # something else beside the link is no proof


def dead_links(share: Path) -> None:
    empty(share)
    for uid in "abcd":
        (share / "views" / uid).symlink_to(share / "mnt" / uid)


def all_gone(share: Path) -> None:
    shutil.rmtree(share)


@pytest.mark.parametrize("lost", [empty, gone, dead_link, dead_links, all_gone])
@pytest.mark.parametrize("error", [None, AtlasError("expected one of"), DecodeError("cut off"), FileNotFoundError()])
def test_a_lost_share_is_no_objects_fault(
    share: Path, lost: Callable[[Path], None], error: BaseException | None
) -> None:
    if error is not None and not isinstance(error, FileNotFoundError | AtlasError) and lost is dead_links:
        pytest.skip("a link that leads nowhere has no bytes that could be broken")
    lost(share)
    if isinstance(error, FileNotFoundError):
        error = FileNotFoundError(errno.ENOENT, "No such file or directory")
    found = verdict(share, "views/d", ["views/c", "views/a"], error)
    assert isinstance(found, Unreachable)
    assert "mount the share" in str(found)
    assert str(share / "views") in str(found)


def test_one_dead_link_among_good_ones_is_the_objects_fault(share: Path) -> None:
    (share / "views" / "d").symlink_to(share / "nowhere")
    assert isinstance(verdict(share, "views/d", ["views/c"]), MissingViews)


def test_a_missing_folder_of_objects_beside_others_is_theirs(share: Path) -> None:
    # GObjaverse: <dict>/<inst>; dict 148 was never rendered, 149 was
    write(share / "149" / "7" / "00000" / "00000.png")
    assert isinstance(verdict(share, "148/3", ["148/2", "149/7"]), MissingViews)
    assert isinstance(verdict(share, "148/3", ["148/2"]), Unreachable)


def test_of_two_shares_one_may_be_lost(share: Path) -> None:
    write(share / "one" / "a" / "00000.png")
    (share / "two").mkdir()
    assert isinstance(verdict(share, "two/b", ["two/c", "one/a"]), Unreachable)


def test_an_object_whose_folder_is_empty_is_judged_by_those_beside_it(share: Path) -> None:
    (share / "views" / "d").mkdir()
    assert isinstance(verdict(share, "views/d", ["views/c"]), MissingViews)
    for uid in "abc":
        shutil.rmtree(share / "views" / uid / "00000")
    assert isinstance(verdict(share, "views/d", ["views/c"]), Unreachable)


def test_views_that_are_there_and_too_few_are_the_objects_fault(share: Path) -> None:
    error = verdict(share, "views/a", [], MissingViews(f"{share}/views/a: 1 complete views, expected at least 8"))
    assert isinstance(error, MissingViews)
    assert str(error) == "views/a: 1 complete views, expected at least 8"


@pytest.mark.parametrize("kind", [BadInput, DecodeError, AtlasError])
def test_what_is_wrong_with_views_that_are_there_stays(share: Path, kind: type[Exception]) -> None:
    error = verdict(share, "views/a", [], kind(f"{share}/views/a: wrong"))
    assert type(error) is kind
    assert str(error) == "views/a: wrong"


def test_an_error_of_the_system_is_the_machines_unless_others_can_be_read(share: Path) -> None:
    at = OSError(errno.EIO, "Input/output error", str(share / "views" / "a" / "00000" / "00000.png"))
    error = verdict(share, "views/a", ["views/b"], at)
    assert isinstance(error, Unread)
    assert str(error).startswith("views/a/00000/00000.png: Input/output error, while others beside it can be read")
    gone(share)
    error = verdict(share, "views/a", ["views/b"], at)
    assert isinstance(error, Unreachable)
    assert str(at.filename) in str(error)


def test_only_the_nearest_tell_about_an_error_of_the_system(share: Path) -> None:
    write(share / "one" / "a.ply")
    assert isinstance(verdict(share, "two/b", ["two/c", "one/a.ply"], EIO), Unreachable)
    assert isinstance(verdict(share, "two/b", ["one/a.ply"], EIO), Unread)


def test_no_others_no_verdict(share: Path) -> None:
    assert isinstance(verdict(share, "views/a", [], EIO), Unreachable)


def test_errors_without_a_number_pass(share: Path) -> None:
    assert type(verdict(share, "views/a", [], OSError("no gzip"))) is OSError


def test_neighbours_are_the_nearest_of_the_shard_then_those_read_lately() -> None:
    shard = Neighbours(["b/2", "a/1", "a/2", "a/3", "b/1", "a/2"])
    assert shard.beside("a/2", ["z", "a/2", "b/1"]).split("\n") == ["a/1", "a/3", "z", "b/1"]
    assert shard.beside("a/1").split("\n") == ["a/2"]
    assert shard.beside("b/2").split("\n") == ["b/1"]
    assert Neighbours(["a"]).beside("a") == ""
    assert Neighbours(["a", "b" * 700]).beside("a", ["c"]) == ""


# S3


@pytest.fixture
def bucket(s3_endpoint: str, tmp_path: Path) -> tuple[S3Storage, Job]:
    store = StoreOptions(endpoint_url=s3_endpoint, region="us-east-1", max_attempts=2)
    storage = S3Storage(f"s3://{BUCKET}/{tmp_path.name}", store)
    for uid in "abc":
        storage.put_if_absent(f"views/{uid}/00000/00000.png", b"x")
    return storage, Job("/out", storage.url, store=store)


def at(job: Job, views: str, beside: list[str], error: BaseException | None = None) -> BaseException:
    try:
        with local_views(job, views, beside):
            assert error
            raise error
    except Exception as found:
        return found


def test_no_such_key_is_the_objects_fault_where_others_have_theirs(bucket: tuple[S3Storage, Job]) -> None:
    _, job = bucket
    error = at(job, "views/d", ["views/e", "views/c"])
    assert isinstance(error, inputs.NoViews)
    assert str(error) == "views/d: no views at this address"
    assert isinstance(at(job, "views/d", ["views/e", "views/f"]), Unreachable)


def test_a_bucket_that_is_misspelt_in_one_row_is_that_rows_fault(bucket: tuple[S3Storage, Job]) -> None:
    _, job = bucket
    error = at(job, "s3://misspelt/views/d", ["views/c"])
    assert isinstance(error, Unread)
    assert "NoSuchBucket" in str(error)
    error = at(job, "s3://misspelt/views/d", ["s3://misspelt/views/e", "views/c"])
    assert isinstance(error, Unreachable)


@pytest.mark.parametrize("error", [StoreError("503"), StoreRefused("AccessDenied"), Altered("shorter"), EIO])
def test_a_store_that_fails_one_object_and_gives_others(bucket: tuple[S3Storage, Job], error: Exception) -> None:
    storage, job = bucket
    assert isinstance(at(job, "views/a", ["views/c"], error), Unread)
    storage.delete("views/c/00000/00000.png")
    assert isinstance(at(job, "views/a", ["views/c"], error), Unreachable)


def test_a_key_that_is_listed_and_cannot_be_read_is_unread(bucket: tuple[S3Storage, Job]) -> None:
    assert isinstance(at(bucket[1], "views/a", ["views/c"], NotFound("views/a: no such object")), Unread)


def test_a_full_folder_for_temporary_files_is_named_with_its_mend(
    bucket: tuple[S3Storage, Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(inputs.NoRoom) as caught, local_views(bucket[1], "views/a", ["views/c"]):
        pass
    mend = "free space there, or set TMPDIR to a folder that has room"
    assert str(caught.value) == f"temporary files ({tmp_path}): No space left on device; {mend}"


def test_keys_that_cannot_be_files_beside_each_other_are_the_objects_fault(bucket: tuple[S3Storage, Job]) -> None:
    storage, job = bucket
    for uid, keys in {"x": ["1", "1/2"], "y": ["n" * 300]}.items():
        for key in keys:
            storage.put_if_absent(f"views/{uid}/{key}", b"x")
        error = at(job, f"views/{uid}", ["views/c"])
        assert isinstance(error, inputs.InputTooLarge)
        assert str(error).startswith(f"views/{uid}: its keys cannot be file names")
