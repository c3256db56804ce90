"""The published bytes are those of the work: not of the folder, host, process, hash seed or day it was done in.

Objects that fail in many ways are among them, since the texts of errors are where a machine would show.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pipeline_runs import TINY, build_in_process, data_of, dataset, write_views

from gaussianverse.atlas.dataset_format import METADATA, QUARANTINE, SPLATS, SUCCESS, SUMS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.dataset.shards import journal_rows
from gaussianverse.pipeline.run import job, tasks
from gaussianverse.pipeline.run.executor import Job

TESTS = Path(__file__).resolve().parent
POLICY = ("breaker_streak=1000", "breaker_fraction=1.0", "pause_s=0.01", "pause_max_s=0.02")
CONFIG = load("test", [*TINY, *(f"policy.{setting}" for setting in POLICY), "run.shard_size=9"])
FOLDERS = ("first", "second place é/deeper/and deeper")
HOSTS = ("a-host-of-ours", "b-host-of-ours")
DAY = 86400.0
GOOD = ("amber", "birch", "cedar")
ODD = "odd"
"""An object whose fit raises what nobody foresaw."""


def write_objects(folder: Path) -> None:
    """Three good objects, and one for each way in which an object can be broken that we know of."""
    rows: list[dict[str, Any]] = []

    def add(uid: str, views: str = "", **more: Any) -> Path:
        rows.append({"uid": uid, "views": views or f"views/{uid}", "license": "MIT", "caption": uid, **more})
        return folder / (views or f"views/{uid}")

    for seed, uid in enumerate(GOOD[:2]):
        write_views(add(uid), seed)
    (folder / "fits").mkdir(parents=True)
    add(GOOD[2], "fits/cedar.npz", format="splats").write_bytes(data_of(SPLATS, "cedar"))

    for uid, image in (("cut", None), ("garbage", b"GIF89a what"), ("empty", b""), ("page", b"<html>no</html>")):
        for path in write_views(add(f"image-{uid}"), 0).glob("*/*.png"):
            path.write_bytes(path.read_bytes()[:-60] if image is None else image)
    for uid, camera in (("cut", "{"), ("list", "[]"), ("null", '{"x": null}'), ("nan", '{"x": NaN}')):
        for path in write_views(add(f"camera-{uid}"), 0).glob("*/*.json"):
            path.write_text(camera)
    add("missing")
    add("hollow").mkdir()
    add("file").write_bytes(b"no folder")
    add("archive", "views/archive.tar").write_bytes(b"no archive" * 60)
    with tarfile.open(add("short", "views/short.tar.gz"), "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("short/campos_512_v1/00000/00000.json"), io.BytesIO())
    frames = {"camera_angle_x": 0.7, "frames": [{"file_path": "./a", "transform_matrix": np.eye(4).tolist()}]}
    for uid, text in (("cut", "{"), ("images", json.dumps(frames)), ("keys", '{"frames": [{}]}')):
        add(f"transforms-{uid}").mkdir()
        (folder / "views" / f"transforms-{uid}" / "transforms.json").write_text(text)
    with zipfile.ZipFile(add("pickled", "fits/pickled.npz", format="splats"), "w") as file:
        file.writestr("means.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }")
    for uid, data in (("zip", b"PK\x03\x04"), ("empty", b""), ("short", data_of(SPLATS, "x")[:900])):
        add(f"fit-{uid}", f"fits/{uid}.npz", format="splats").write_bytes(data)
    add("ply", "fits/x.ply", format="splats").write_bytes(b"ply\nformat ascii 1.0\nelement vertex 1\nend_header\n")
    add("away", "fits/away.ply", format="splats")
    write_views(add(ODD), 0)
    add("row", split="nowhere")
    add("elsewhere", "views/a\tb")
    manifest = folder / "objects.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))


def build(folder: Path, host: str, days: int) -> None:
    """Build the dataset of a folder's manifest as another host would on another day."""
    now, fit = time.time, tasks._fit

    def odd(given: Job, row: Facts, *rest: Any) -> Facts:
        if row["uid"] == ODD:
            raise RuntimeError(
                f"{object()} of {host} cannot open {given.base}/views and '{given.url}/x y' at {now()}"
            )
        return fit(given, row, *rest)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "time", lambda: now() + days * DAY)
        patched.setattr(tasks, "_fit", odd)
        patched.setattr(socket, "gethostname", lambda: host)
        storage, run, base = job.plan(str(folder / "out"), str(folder / "objects.jsonl"), CONFIG)
        build_in_process(storage, run, CONFIG, base)


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalStorage, LocalStorage]:
    """Datasets of the same objects: here and today; elsewhere in two days, in a process with another hash seed."""
    here, there = (tmp_path_factory.mktemp("twin") / name for name in FOLDERS)
    here.mkdir()
    write_objects(here)
    shutil.copytree(here, there)
    build(here, HOSTS[0], 0)
    code = "import sys; from pathlib import Path; from test_pipeline_same_bytes import *; "
    code += "build(Path(sys.argv[1]), HOSTS[1], 2)"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": f"{TESTS}:{TESTS.parent}", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", code, str(there)], cwd=there, env=environment, check=True)
    return LocalStorage(here / "out"), LocalStorage(there / "out")


def test_two_folders_two_hosts_and_two_days_have_the_same_bytes(twins: tuple[LocalStorage, LocalStorage]) -> None:
    one, other = ({**dataset(s), **{key: s.get(key) for key in (SUMS, SUCCESS)}} for s in twins)
    assert sorted(one) == sorted(other)
    for name in (QUARANTINE, METADATA):
        rows, others = (pq.read_table(io.BytesIO(files[name])).to_pylist() for files in (one, other))
        assert rows == others
    assert [key for key in one if one[key] != other[key]] == []


def test_the_journals_and_summaries_alone_differ(twins: tuple[LocalStorage, LocalStorage]) -> None:
    """They hold times, hosts and whole texts, and no sum lists them."""
    one, other = ({e.key: s.get(e.key) for e in s.list("") if not e.key.startswith(layout.WORK)} for s in twins)
    differ = {key for key in {*one, *other} if one.get(key) != other.get(key)}
    assert differ
    assert all(key.startswith(layout.JOURNAL) for key in differ)


def test_the_broken_objects_are_quarantined_each_with_its_reason(twins: tuple[LocalStorage, LocalStorage]) -> None:
    rows = pq.read_table(twins[0].root / METADATA).to_pylist()
    assert [r["uid"] for r in rows if r["status"] == "ok"] == list(GOOD)
    lost = {r["uid"]: r for r in rows if r["status"] != "ok"}
    assert len(lost) >= 20
    odd = lost.pop(ODD)
    assert (odd["reason"], odd["error_message"]) == ("unknown", "unexpected RuntimeError; the journal has its text")
    assert all(r["reason"] != "unknown" and r["error_message"] for r in lost.values())
    assert {"decode_error", "missing_views", "bad_input"} <= {r["reason"] for r in lost.values()}


def test_the_journal_has_the_whole_text(twins: tuple[LocalStorage, LocalStorage]) -> None:
    for storage, host in zip(twins, HOSTS, strict=True):
        shards = len({key for key in dataset(storage) if key.startswith(layout.COMMITS + SPLATS)})
        rows = [r for shard in range(shards) for r in journal_rows(storage, SPLATS, shard)]
        (entry,) = (r for r in rows if r["uid"] == ODD)
        assert host in entry["host"]
        assert all(word in entry["error_text"] for word in (host, str(storage.root), " at 0x"))


def texts(data: bytes, key: str) -> Iterator[bytes]:
    """The bytes of a file, and of what is compressed in it."""
    yield data
    if key.endswith(".parquet"):
        yield repr(pq.read_table(io.BytesIO(data)).to_pylist()).encode()
        yield repr(pq.read_schema(io.BytesIO(data)).metadata).encode()
    elif key.endswith(".npz"):
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            yield from (file.read(name) for name in file.namelist())


def test_no_published_byte_tells_of_the_machine(twins: tuple[LocalStorage, LocalStorage]) -> None:
    """Neither its folders, nor its name, nor addresses in its memory, nor the day."""
    for storage, host, folder in zip(twins, HOSTS, FOLDERS, strict=True):
        parts = [str(storage.root.parent), *folder.split("/"), host, socket.gethostname(), str(Path.home()), "/tmp"]
        words = [part.encode() for part in parts if len(part) > 3]
        for key, data in dataset(storage).items():
            for text in texts(data, key):
                assert [word for word in words if word in text] == [], key
                assert re.findall(rb"0x[0-9a-f]{8,}", text) == [], key
