"""Views that are fetched ahead, from a real S3 server: the same bytes, bounded, and never another object's fault."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.fault_proxy import STALLED, UNAVAILABLE, FaultProxy, proxying
from servers.moto_server import BUCKET

from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.errors import StoreError
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.fitter.sources.selection import Selection
from gaussianverse.pipeline.run import ahead, fetching, inputs, scratch
from gaussianverse.pipeline.run.executor import Job
from gaussianverse.pipeline.run.reading import local_views

ALL = Selection("gobjaverse")
FILES = {f"{v:05d}/{v:05d}{kind}": os.urandom(3000) for v in range(5) for kind in (".json", ".png", "_mr.png")}
READ = {name: data for name, data in FILES.items() if "_mr" not in name}


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[FaultProxy]:
    with proxying(s3_endpoint) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: FaultProxy) -> StoreOptions:
    return StoreOptions(endpoint_url=proxy.url, region="us-east-1", max_attempts=2)


@pytest.fixture
def prefix(s3_endpoint: str, tmp_path: Path) -> str:
    """Address of a prefix with the objects a to e, each in a folder and in a file."""
    url = f"s3://{BUCKET}/{tmp_path.name}"
    storage = open_storage(url, StoreOptions(endpoint_url=s3_endpoint, region="us-east-1"))
    for uid in "abcde":
        for name, data in FILES.items():
            storage.put_if_absent(f"{uid}/{name}", uid.encode() + data)
        storage.put_if_absent(f"{uid}.tar", uid.encode() * 4_000_000)
    return url


def offered(address: str, store: StoreOptions, place: Path) -> None:
    thread = ahead.begin(address, store, ALL, str(place))
    assert thread is not None
    thread.join()


def found(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def offers(place: Path) -> list[Path]:
    return sorted(place.glob("*/*.ahead"))


def test_what_was_fetched_ahead_is_what_is_fetched_now_and_is_asked_for_once(
    prefix: str, store: StoreOptions, proxy: FaultProxy, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    for address in (f"{prefix}/a", f"{prefix}/a.tar"):
        with inputs.local(address, store, ALL) as path:
            now = path.read_bytes() if path.is_file() else found(path)
        if isinstance(now, dict):
            assert now == {name: b"a" + data for name, data in READ.items()}
        offered(address, store, place)
        proxy.met.clear()
        with inputs.local(address, store, ALL, str(place)) as path:
            assert path.name == address.rpartition("/")[2]
            assert (path.read_bytes() if path.is_file() else found(path)) == now
            assert not offers(place)
        assert not proxy.met
        with inputs.local(address, store, ALL, str(place)):
            assert proxy.met[""] == (1 if path.suffix else 1 + len(READ))  # a list, and no HEAD
    assert {p.name for p in place.glob("*/*")} == {"owner"}


def test_an_object_whose_name_has_no_suffix_is_fetched_as_the_file_it_is(
    prefix: str, store: StoreOptions, s3_endpoint: str
) -> None:
    storage = open_storage(prefix, StoreOptions(endpoint_url=s3_endpoint, region="us-east-1"))
    storage.put_if_absent("one", b"an archive, perhaps")
    for selection in (ALL, Selection("transforms"), None):
        with inputs.local(f"{prefix}/one", store, selection) as path:
            assert path.read_bytes() == b"an archive, perhaps"


def test_a_camera_file_that_names_its_images_needs_no_list_and_one_that_names_too_many_costs_one(
    prefix: str, store: StoreOptions, proxy: FaultProxy, s3_endpoint: str
) -> None:
    storage = open_storage(prefix, StoreOptions(endpoint_url=s3_endpoint, region="us-east-1"))
    for uid, named in {"t": "abc", "u": "abcd"}.items():
        frames = [{"file_path": f"./train/{name}.png"} for name in named]
        storage.put_if_absent(f"{uid}/transforms.json", json.dumps({"frames": frames}).encode())
        for name in ("a", "b", "c", "unnamed"):
            storage.put_if_absent(f"{uid}/train/{name}.png", name.encode())
    read = {"transforms.json", "train/a.png", "train/b.png", "train/c.png"}
    with inputs.local(f"{prefix}/t", store, Selection("transforms")) as path:
        assert set(found(path)) == read
        assert proxy.met[""] == 4
    asked = list[str]()
    proxy.fault = lambda method, path: asked.append(path) or ""  # type: ignore[func-returns-value]
    with inputs.local(f"{prefix}/u", store, Selection("transforms")) as path:
        assert set(found(path)) == read
    assert sum("list-type=2" in path for path in asked) == 1


def test_what_others_select_is_not_taken(prefix: str, store: StoreOptions, tmp_path: Path) -> None:
    offered(f"{prefix}/a", store, tmp_path / "place")
    with inputs.local(f"{prefix}/a", store, Selection("auto"), str(tmp_path / "place")) as path:
        assert set(found(path)) == set(READ)
    with inputs.local(f"{prefix}/a", store, None, str(tmp_path / "place")) as path:
        assert set(found(path)) == set(FILES)
    assert len(offers(tmp_path / "place")) == 1


def test_who_comes_while_views_are_on_their_way_waits_for_them(
    prefix: str, store: StoreOptions, proxy: FaultProxy, tmp_path: Path
) -> None:
    held, asked = threading.Event(), threading.Event()

    def slowly(method: str, path: str) -> str:
        asked.set()
        held.wait(60)
        return ""

    proxy.fault = slowly
    thread = ahead.begin(f"{prefix}/b.tar", store, ALL, str(tmp_path / "place"))
    assert asked.wait(60)
    threading.Timer(0.3, held.set).start()
    with inputs.local(f"{prefix}/b.tar", store, ALL, str(tmp_path / "place")) as path:
        assert path.stat().st_size == 4_000_000
    assert thread is not None
    thread.join()
    assert proxy.met[""] == 1


def test_a_fetch_that_fails_leaves_nothing_and_the_object_itself_says_why(
    prefix: str, store: StoreOptions, proxy: FaultProxy, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    proxy.fault = lambda method, path: UNAVAILABLE if path.endswith("00003.png") else ""
    offered(f"{prefix}/c", store, place)
    offered(f"{prefix}/missing", store, place)
    assert {p.name for p in place.glob("*/*")} == {"owner"}
    with pytest.raises(StoreError, match=r"c/00003/00003\.png"), inputs.local(f"{prefix}/c", store, ALL, str(place)):
        pass
    job = Job("/out", prefix, store=store, scratch=str(place))
    with (
        pytest.raises(inputs.NoViews, match=r"^missing: no views at this address$"),
        local_views(job, "missing", ["d"], None, ALL),
    ):
        pass
    proxy.fault = ""  # it was a moment's fault
    with inputs.local(f"{prefix}/c", store, ALL, str(place)) as path:
        assert set(found(path)) == set(READ)


def test_a_process_keeps_few_and_small_ones(
    prefix: str, store: StoreOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    for uid in "abcd":
        offered(f"{prefix}/{uid}", store, place)
        assert len(offers(place)) <= ahead.MOST
    kept = [(offer / uid).is_dir() for offer in offers(place) for uid in "cd"]
    assert sum(kept) == 2  # the last ones
    monkeypatch.setattr(ahead, "LARGEST", 3_999_999)
    offered(f"{prefix}/e.tar", store, place)
    monkeypatch.setattr(ahead, "MIN_FREE", 1 << 60)
    offered(f"{prefix}/e", store, place)
    assert not [offer for offer in offers(place) if (offer / "e").exists() or (offer / "e.tar").exists()]


def test_what_is_local_is_not_fetched(store: StoreOptions, tmp_path: Path) -> None:
    assert ahead.begin(str(tmp_path), store, ALL, str(tmp_path / "place")) is None
    assert not (tmp_path / "place").exists()


FETCH = """
import sys
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.fitter.sources.selection import Selection
from gaussianverse.pipeline.run import ahead
store = StoreOptions(endpoint_url=sys.argv[1], region="us-east-1", max_attempts=2)
for address in sys.argv[3:]:
    thread = ahead.begin(address, store, Selection("gobjaverse"), sys.argv[2])
    thread.join(None if address.endswith("/a") else 0)
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_process_that_is_killed_leaves_nothing_for_long_and_holds_up_nobody(
    prefix: str, store: StoreOptions, proxy: FaultProxy, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    proxy.fault = lambda method, path: STALLED if path.endswith("b/00002/00002.png") else ""
    command = [sys.executable, "-c", FETCH, store.endpoint_url, str(place), f"{prefix}/a", f"{prefix}/b"]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"ready\n"
    until = time.monotonic() + 60
    while not proxy.met[STALLED]:
        assert time.monotonic() < until
        time.sleep(0.05)
    (left,) = place.glob("w-*")
    assert len(list(left.glob("*.part"))) == len(offers(place)) == 1
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    proxy.fault = ""
    with inputs.local(f"{prefix}/b", store, ALL, str(place)) as path:  # its lock has ended with it
        assert set(found(path)) == set(READ)
    assert not left.exists()
    assert {p.name for p in place.glob("*/*")} == {"owner"}


def test_a_large_image_is_refused_before_it_takes_memory(store: StoreOptions, prefix: str, tmp_path: Path) -> None:
    storage = open_storage(prefix, store)
    cameras = json.dumps({"frames": [{"file_path": "large.png"}]}).encode()
    storage.put_if_absent("large/transforms.json", cameras)
    storage.put_if_absent("large/large.png", bytes(2000))
    with pytest.raises(inputs.InputTooLarge, match="1000 bytes"):
        fetching.fetch(storage, "large", tmp_path, Selection("transforms"), at_once=4, most_bytes=1000)
    assert not list(tmp_path.rglob("large.png"))


def test_what_a_thread_writes_while_its_process_ends_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / "w-left"
    (left / "KEY.part").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(scratch.shutil, "rmtree", lambda *_, **__: None)
        scratch._remove(left, os.getpid())
    assert left.exists()
    scratch._remove_left(tmp_path)
    assert not left.exists()


def test_a_folder_that_is_another_users_is_refused(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "place").chmod(0o777)
    with pytest.raises(inputs.NoRoom, match="not a folder of this user alone"):
        scratch.own_folder(str(tmp_path / "place"))
