"""verify lists every fault: damage to bytes, tars and tables, even if the hashes were made to agree with it."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipeline_runs import dataset, planned, publish_all

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.canonical_json import to_json
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.storage import sha256_of
from gaussianverse.atlas.tar import BLOCK, END, build, index
from gaussianverse.pipeline.dataset import layout, pack
from gaussianverse.pipeline.dataset.finalize import finalize
from gaussianverse.pipeline.dataset.parquet import from_parquet, to_parquet
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import FACTS, METADATA, QUARANTINE, STATS, from_json
from gaussianverse.pipeline.ops.verify import verify

UIDS = ["a", "b", "c", "d"]
SPLATS, ATLAS = (dataset_format.shard_tar(stage, 0) for stage in layout.STAGES)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], Run]:
    """A finished dataset of two shards, of which one object is quarantined, and its run."""
    storage = LocalStorage(tmp_path_factory.mktemp("whole"))
    run = planned(storage, UIDS, shard_size=3)
    for stage in layout.STAGES:
        publish_all(storage, run, stage, quarantined={"b"})
        for shard in range(run.n_shards):
            pack.pack(storage, run, stage, shard)
    finalize(storage, run)
    assert list(verify(storage, run)) == []
    return {e.key: storage.get(e.key) for e in storage.list("") if not e.key.startswith(layout.WORK)}, run


@pytest.fixture
def copy(whole: tuple[dict[str, bytes], Run], tmp_path: Path) -> Copy:
    return Copy(tmp_path, *whole)


class Copy:
    """A copy of the dataset, to be damaged."""

    def __init__(self, root: Path, files: dict[str, bytes], run: Run) -> None:
        self.storage, self.run = LocalStorage(root), run
        for key, data in files.items():
            self.write(key, data)

    def write(self, key: str, data: bytes) -> None:
        path = self.storage.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def faults(self, shards: list[int] | None = None) -> list[str]:
        return list(verify(self.storage, self.run, shards=shards))

    def cover_up(self, stage: str = dataset_format.ATLAS, **changes: Any) -> None:
        """Make shard 0's commit, SHA256SUMS and _SUCCESS agree with the files as they are."""
        key = layout.commit(stage, 0)
        record = json.loads(self.storage.get(key))
        for name in record["files"]:
            data = self.storage.get(name)
            record["files"][name] = {"nbytes": len(data), "sha256": sha256_of(data)}
        self.write(key, (json.dumps(record | changes, indent=1) + "\n").encode())
        sums = "".join(f"{sha256_of(d)}  {k}\n" for k, d in sorted(dataset(self.storage).items())).encode()
        self.write(dataset_format.SUMS, sums)
        self.write(dataset_format.SUCCESS, f"{sha256_of(sums)}  {dataset_format.SUMS}\n".encode())


def test_every_file_is_watched(copy: Copy, whole: tuple[dict[str, bytes], Run]) -> None:
    """Flip a bit in the middle of each file, cut it, remove it: each time verify names it."""
    for key, data in whole[0].items():
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        for damaged in (data[:-1], b"", flipped):
            copy.write(key, damaged)
            assert any(key in fault for fault in copy.faults()), key
        (copy.storage.root / key).unlink()
        assert any(key in fault for fault in copy.faults()), key
        copy.write(key, data)
    assert copy.faults() == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_of_any_file_is_a_fault_and_never_an_exception(copy: Copy, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(e.key for e in copy.storage.list(""))))
    before = copy.storage.get(key)
    position, bit = data.draw(st.integers(0, len(before) - 1)), data.draw(st.integers(0, 7))
    copy.write(key, before[:position] + bytes([before[position] ^ 1 << bit]) + before[position + 1 :])
    try:
        assert copy.faults() != [] or key.startswith(layout.JOURNAL)
    finally:
        copy.write(key, before)


def test_a_file_that_does_not_belong_there_is_named(copy: Copy) -> None:
    copy.write("atlas/notes.txt", b"hello")
    assert copy.faults() == [f"atlas/notes.txt: not in {dataset_format.SUMS}"]


def test_scratch_and_journal_are_no_part_of_the_sums(copy: Copy) -> None:
    copy.write("_work/splats/000000/a.tar", b"half")
    assert copy.faults() == []


def rebuilt(tar: bytes, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> bytes:
    """The tar with changed members, as fragments of one member each."""
    members = {m.name: tar[m.offset : m.offset + m.nbytes] for m in index(tar)}
    return b"".join(build({n: d}) for n, d in change(members).items()) + END


def lost(name: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda members: {n: d for n, d in members.items() if n != name}


def swapped(one: str, two: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda members: {**members, one: members[two], two: members[one]}


def with_(name: str, data: bytes) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda members: {**members, name: data}


COVERED: dict[str, tuple[Callable[[dict[str, bytes]], dict[str, bytes]], str]] = {
    "a member is gone": (lost("a.txt"), "its members are not those of its table"),
    "a stranger": (with_("z.txt", b"!"), "its members are not those of its table"),
    "another order": (
        lambda members: dict(reversed(members.items())), "its members are not those of its table",
    ),
    "swapped captions": (swapped("a.txt", "c.txt"), "a.txt is not the object's caption"),
    "swapped arrays": (swapped("a.atlas.npy", "c.atlas.npy"), "a: offset, size or sha256"),
    "swapped facts": (swapped("a.json", "c.json"), "a.json differs from its row of the table"),
    "facts that are no JSON": (with_("a.json", b"{"), "invalid JSON"),
    "no data": (with_("a.atlas.npy", b"DATA of a"), "AtlasError: not a .npy file"),
}  # fmt: skip


@pytest.mark.parametrize("name", COVERED)
def test_damage_to_samples_is_found_even_when_every_hash_was_made_to_agree(copy: Copy, name: str) -> None:
    change, words = COVERED[name]
    copy.write(ATLAS, rebuilt(copy.storage.get(ATLAS), change))
    copy.cover_up()
    assert any(words in fault for fault in copy.faults())
    assert any(words in fault for fault in copy.faults([0]))
    assert copy.faults([1]) == []


def test_a_cut_tar_is_found_even_when_every_hash_was_made_to_agree(copy: Copy) -> None:
    for cut in (BLOCK, 3 * BLOCK, 700):
        copy.write(SPLATS, copy.storage.get(SPLATS)[:-cut])
        copy.cover_up(dataset_format.SPLATS)
        assert any(SPLATS in fault for fault in copy.faults([0])), cut


def test_a_sample_twice_is_found(copy: Copy) -> None:
    tar = copy.storage.get(SPLATS)
    copy.write(SPLATS, tar[: -len(END)] + tar)
    copy.cover_up(dataset_format.SPLATS)
    assert any(SPLATS in fault for fault in copy.faults([0]))


TABLES: dict[str, tuple[Callable[[list[Any]], Any], str]] = {
    "swapped rows": (lambda rows: [rows[1], rows[0], *rows[2:]], "its rows are not the manifest's"),
    "a row less": (lambda rows: rows[:-1], "its rows are not the manifest's"),
    "another caption": (lambda rows: [{**rows[0], "caption": "?"}, *rows[1:]], "a.json differs from its row"),
    "another place": (lambda rows: [{**rows[0], "offset": 0}, *rows[1:]], "a: offset, size or sha256"),
    "one that was quarantined": (
        lambda rows: [{**rows[0], "sample": -1, "reason": "low_psnr"}, *rows[1:]], "a: sample is -1, its status ok",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_damage_to_tables_is_found_even_when_every_hash_was_made_to_agree(copy: Copy, name: str) -> None:
    change, words = TABLES[name]
    key = layout.stats(dataset_format.ATLAS, 0)
    rows = from_parquet(STATS[dataset_format.ATLAS], copy.storage.get(key)).to_pylist()
    copy.write(key, to_parquet(STATS[dataset_format.ATLAS], change(rows)))
    copy.cover_up()
    assert any(words in fault for fault in copy.faults([0]))


def test_a_table_that_is_none_is_found_even_when_every_hash_was_made_to_agree(copy: Copy) -> None:
    copy.write(layout.stats(dataset_format.ATLAS, 0), b"PAR1")
    copy.cover_up()
    assert any("not a readable Parquet file" in fault for fault in copy.faults([0]))


def test_a_commit_that_names_other_files_is_found(copy: Copy) -> None:
    commit = layout.commit(dataset_format.ATLAS, 0)
    record = json.loads(copy.storage.get(commit))
    for key in ("../../etc/passwd", "/etc/passwd", layout.RUN):
        record["files"] = {key: {"nbytes": 1, "sha256": "0" * 64}}
        copy.write(commit, json.dumps(record).encode())
        assert any("its files are not" in fault for fault in copy.faults())


def test_wrong_counts_in_a_commit_are_found(copy: Copy) -> None:
    copy.cover_up(samples=3)
    assert any("do not add up" in fault for fault in copy.faults())
    copy.cover_up(samples=0, quarantined={"bad_input": 3})
    assert any("does not match the contents of the shard" in fault for fault in copy.faults())


def test_moments_of_something_else_are_found(copy: Copy) -> None:
    copy.write(layout.moments(0), copy.storage.get(layout.moments(1)))
    copy.cover_up()
    assert any("not the moments of the shard's atlases" in fault for fault in copy.faults())


@pytest.mark.parametrize("key", dataset_format.STATISTICS)
def test_statistics_of_something_else_are_found(copy: Copy, key: str) -> None:
    copy.write(key, b"mean?")
    index = json.loads(copy.storage.get(dataset_format.INDEX))
    index["statistics"][key]["sha256"] = sha256_of(b"mean?")
    copy.write(dataset_format.INDEX, json.dumps(index).encode())
    copy.cover_up()
    assert copy.faults() == [f"{key}: does not match the shards' moments"]


def test_tables_and_index_of_something_else_are_found(copy: Copy) -> None:
    index = json.loads(copy.storage.get(dataset_format.INDEX))
    for change in ({"samples": 4}, {"uids_sha256": ""}, {"shards": index["shards"][::-1]}, {"size": 9}):
        copy.write(dataset_format.INDEX, json.dumps(index | change).encode())
        copy.cover_up()
        assert copy.faults() == [f"{dataset_format.INDEX}: does not match the contents of the shards"]
    copy.write(dataset_format.INDEX, json.dumps(index).encode())
    for key, schema in ((dataset_format.METADATA, METADATA), (dataset_format.QUARANTINE, QUARANTINE)):
        before = copy.storage.get(key)
        copy.write(key, to_parquet(schema, []))
        copy.cover_up()
        assert copy.faults() == [f"{key}: not the rows of the shards"]
        copy.write(key, before)


def test_the_helpers_here_change_nothing_by_themselves(copy: Copy) -> None:
    """Otherwise the tests above could pass for a wrong reason."""
    tar = copy.storage.get(ATLAS)
    assert rebuilt(tar, lambda members: members) == tar
    copy.cover_up(dataset_format.SPLATS)
    copy.cover_up(dataset_format.ATLAS)
    assert copy.faults() == []
    with tarfile.open(fileobj=BytesIO(tar)) as archive:
        facts = archive.extractfile("a.json").read()  # type: ignore[union-attr]
    assert to_json(from_json(FACTS[dataset_format.ATLAS], facts)) == facts
