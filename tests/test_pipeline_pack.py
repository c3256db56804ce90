import io
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_runs import data_of, manifest_row, planned, publish_all

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.arrays import read_npy
from gaussianverse.atlas.dataset_format import ATLAS, OK, SPLATS, VIEWS
from gaussianverse.atlas.moments import Moments
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.storage import sha256_of
from gaussianverse.atlas.tar import build
from gaussianverse.pipeline.dataset import layout, pack, records, shards
from gaussianverse.pipeline.dataset.parquet import from_parquet
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import JOURNAL
from gaussianverse.pipeline.errors import FragmentError, ShardConflict

RUN = Run({"schema_version": 2, "config_digest": "d" * 64, "config": {"fit": {}, "run": {"seed": 0}}})


def fragment(stage: str, index: int, uid: str, data: bytes | None) -> bytes:
    row = manifest_row(index, uid)
    if data is None:
        facts = records.facts_of(stage, row, RUN, status="quarantined", reason="low_psnr")
        return build({f"{uid}.json": pack_json(facts)})
    facts = records.facts_of(stage, row, RUN, status=OK)
    return build(
        {
            dataset_format.main_member(stage, uid): data,
            f"{uid}.json": pack_json(facts),
            f"{uid}.txt": str(row["caption"]).encode(),
        }
    )


def pack_json(facts: Any) -> bytes:
    from gaussianverse.atlas.canonical_json import to_json

    return to_json(facts)


OBJECTS = st.dictionaries(
    st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True),
    st.none() | st.binary(max_size=1200),
    min_size=1,
    max_size=7,
)


@given(st.sampled_from(layout.STAGES), OBJECTS, st.data())
def test_any_order_and_repetition_of_fragments_gives_the_same_shard(
    stage: str, objects: dict[str, bytes | None], data: st.DataObject
) -> None:
    uids = sorted(objects)
    found = {uid: fragment(stage, i, uid, objects[uid]) for i, uid in enumerate(uids)}
    expected = pack.assemble(stage, 0, uids, found.__getitem__)
    assert expected.digests == [sha256_of(found[uid]) for uid in uids]
    published: dict[str, bytes] = {}
    again = [*uids, *data.draw(st.lists(st.sampled_from(uids), max_size=5))]
    for uid in data.draw(st.permutations(again)):
        published.setdefault(uid, found[uid])
    assert pack.assemble(stage, 0, uids, published.__getitem__) == expected
    good = [uid for uid in uids if objects[uid] is not None]
    with tarfile.open(fileobj=io.BytesIO(expected.tar)) as archive:
        assert [m.name.split(".")[0] for m in archive if m.name.endswith(".txt")] == good
    assert list(expected.mains()) == [objects[uid] for uid in good]
    assert [r["uid"] for r in expected.rows] == uids
    for row in expected.rows:
        content = objects[str(row["uid"])]
        if content is None:
            assert (row["sample"], row["nbytes"], row["sha256"], row["reason"]) == (-1, 0, "", "low_psnr")
        else:
            offset, nbytes = int(row["offset"]), int(row["nbytes"])
            assert expected.tar[offset : offset + nbytes] == content
            assert row["sha256"] == sha256_of(content)


def test_missing_fragments_are_named_and_counted() -> None:
    def fetch(uid: str) -> bytes:
        if uid == "a":
            return fragment(SPLATS, 0, "a", b"x")
        raise NotFound(uid)

    with pytest.raises(FragmentError, match=r"no fragment of b, c \(2\)"):
        pack.assemble(SPLATS, 0, ["a", "b", "c"], fetch)


def test_a_fragment_of_another_object_is_refused() -> None:
    with pytest.raises(FragmentError):
        pack.assemble(SPLATS, 0, ["b"], lambda uid: fragment(SPLATS, 0, "a", b"x"))


def test_memory_holds_the_tar_once_and_one_fragment() -> None:
    uids, size = [f"o{i:02}" for i in range(40)], 1 << 19
    tracemalloc.start()
    try:
        assembled = pack.assemble(SPLATS, 0, uids, lambda uid: fragment(SPLATS, 0, uid, bytes(size)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # a bytearray grows by an eighth; a fragment is held about four times while it is checked
    assert peak < 1.3 * len(assembled.tar) + 6 * size


def test_a_shard_that_exists_is_left_alone_though_its_fragments_are_gone(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    run = planned(storage, ["a", "b"])
    publish_all(storage, run, SPLATS)
    first = pack.pack(storage, run, SPLATS, 0)
    for uid in ("a", "b"):
        storage.delete(layout.fragment(SPLATS, 0, uid))
    assert pack.pack(storage, run, SPLATS, 0) == first


def test_a_shard_that_is_packed_and_cleaned_up_by_another_meanwhile_is_adopted(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    run = planned(storage, ["a", "b"])
    publish_all(storage, run, SPLATS)
    get, others = storage.get, list[dict[str, Any]]()

    def overtaken(key: str) -> bytes:
        if key == layout.fragment(SPLATS, 0, "b") and not others:
            others.append({})
            others[0] = pack.pack(storage, run, SPLATS, 0)
            storage.delete(key)
        return get(key)

    storage.get = overtaken  # type: ignore[method-assign]
    assert pack.pack(storage, run, SPLATS, 0) == others[0]


def test_views_are_packed_by_what_a_committed_shard_of_atlases_says(tmp_path: Path) -> None:
    """Its table alone says nothing: a shard without its commit record may still come out differently."""
    storage = LocalStorage(tmp_path)
    run = planned(storage, ["a", "b", "c"])
    for stage in (ATLAS, VIEWS):
        publish_all(storage, run, stage, quarantined={"b"} if stage == ATLAS else None)
    pack.pack(storage, run, ATLAS, 0)
    commit = storage.get(layout.commit(ATLAS, 0))
    storage.delete(layout.commit(ATLAS, 0))
    with pytest.raises(NotFound, match=layout.commit(ATLAS, 0)):
        pack.pack(storage, run, VIEWS, 0)
    assert storage.head(dataset_format.shard_tar(VIEWS, 0)) is None
    storage.put_if_absent(layout.commit(ATLAS, 0), commit)
    assert pack.pack(storage, run, VIEWS, 0)["quarantined"] == {"bad_input": 1}


def test_publishing_twice_changes_nothing_and_the_commit_comes_last(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    run = planned(storage, ["a", "b", "c"])
    publish_all(storage, run, ATLAS, quarantined={"b"})
    keys: list[str] = []
    put = storage.put_if_absent
    storage.put_if_absent = lambda key, data: (keys.append(key), put(key, data))[1]  # type: ignore[method-assign]
    first = pack.pack(storage, run, ATLAS, 0)
    assert keys[-1] == layout.commit(ATLAS, 0)
    before = {e.key: storage.get(e.key) for e in storage.list("")}
    assert pack.pack(storage, run, ATLAS, 0) == first
    assert {e.key: storage.get(e.key) for e in storage.list("")} == before
    assert first == shards.read_commit(storage, ATLAS, 0)
    assert (first["objects"], first["samples"], first["quarantined"]) == (3, 2, {"bad_input": 1})
    atlases = [read_npy(data_of(ATLAS, uid)) for uid in "ac"]
    moments = Moments.from_bytes(storage.get(layout.moments(0)))
    assert moments.count == 2
    np.testing.assert_allclose(moments.mean(), np.mean(atlases, 0), atol=1e-12)
    entries = from_parquet(JOURNAL[ATLAS], storage.get(layout.journal(ATLAS, 0))).to_pylist()
    assert [(e["uid"], e["attempts"], e["status"]) for e in entries] == [
        ("a", 1, "ok"), ("b", 1, "quarantined"), ("c", 1, "ok"),
    ]  # fmt: skip
    assert all(e["host"] and e["started"] > 0 for e in entries)


@pytest.mark.parametrize("key", [dataset_format.shard_tar(SPLATS, 0), layout.stats(SPLATS, 0)])
def test_foreign_bytes_under_a_key_are_a_conflict_and_nothing_is_committed(tmp_path: Path, key: str) -> None:
    storage = LocalStorage(tmp_path)
    run = planned(storage, ["a"])
    publish_all(storage, run, SPLATS)
    storage.put_if_absent(key, b"something else")
    with pytest.raises(ShardConflict, match=key):
        pack.pack(storage, run, SPLATS, 0)
    with pytest.raises(NotFound):
        shards.read_commit(storage, SPLATS, 0)
    assert storage.get(key) == b"something else"


def test_the_bytes_do_not_depend_on_when_and_where_an_object_was_made(tmp_path: Path) -> None:
    shards = []
    for name, attempts in (("one", 1), ("two", 3)):
        storage = LocalStorage(tmp_path / name)
        run = planned(storage, ["a", "b"])
        publish_all(storage, run, SPLATS, attempts=attempts)
        pack.pack(storage, run, SPLATS, 0)
        shards.append({e.key: storage.get(e.key) for e in storage.list("") if layout.in_dataset(e.key)})
    assert shards[0] == shards[1]


@settings(max_examples=50)
@given(st.binary(max_size=300) | st.sampled_from([b"{}", b"[]", b"null", b'{"schema_version":1}']))
def test_a_damaged_commit_record_is_an_error_with_a_name(data: bytes) -> None:
    from gaussianverse.pipeline.errors import PipelineError

    class One(LocalStorage):
        def get(self, key: str) -> bytes:
            return data

    with pytest.raises(PipelineError, match="commit"):
        shards.read_commit(One("nowhere"), SPLATS, 0)
