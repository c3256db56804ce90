"""`Version`: which shards and rows count, which run made them, and what is said of damaged or missing ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pipeline_runs import planned, publish_all

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import ATLAS, SPLATS
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline.dataset import extension, layout, new_version, pack, shards
from gaussianverse.pipeline.dataset.finalize import finalize
from gaussianverse.pipeline.dataset.live_rows import LiveRows
from gaussianverse.pipeline.dataset.versions import begun_version, finished_versions, open_version
from gaussianverse.pipeline.errors import NoObject, PipelineError


def remove(storage: LocalStorage, *uids: str) -> None:
    """Begin a version without these objects."""
    parent = new_version.open_parent(storage)
    plan = extension.plan_of(LiveRows(storage, parent), None, remove=uids)
    new_version.begin(storage, parent, plan, parent.identity["config"])


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    """Five made-up objects in shards of two; b and then c, d removed."""
    storage = LocalStorage(tmp_path)
    run = planned(storage, list("abcde"), shard_size=2)
    for stage in layout.STAGES:
        publish_all(storage, run, stage)
        for shard in run.shards:
            pack.pack(storage, run, stage, shard)
    finalize(storage, run)
    remove(storage, "b")
    finalize(storage, open_version(storage, 2).run)
    remove(storage, "c", "d")
    return storage


def test_a_version_says_which_shards_and_rows_count(storage: LocalStorage) -> None:
    one, two, three = (open_version(storage, n) for n in (1, 2, 3))
    assert [list(v.shards) for v in (one, two, three)] == [[0, 1, 2], [0, 1, 2], [0, 2]]
    assert [v.parent for v in (one, two, three)] == [0, 1, 2]
    table = shards.stats_table(storage, ATLAS, 0)
    assert [v.live(table, 0)["uid"].to_pylist() for v in (one, two, three)] == [["a", "b"], ["a"], ["a"]]
    assert (two.superseded.samples_in(SPLATS, 0), two.superseded.samples_in(SPLATS, 1)) == (1, 0)
    assert three.run_of(2).number == 1
    row, shard = three.find(storage, "e")
    assert (row["uid"], shard) == ("e", 2)
    for version, uid in ((two, "b"), (three, "c"), (one, "z")):
        with pytest.raises(NoObject, match=f"no object '{uid}'"):
            version.find(storage, uid)
    assert two.find(storage, "c")[1] == 1


def test_the_newest_is_the_highest_that_is_finished(storage: LocalStorage) -> None:
    assert (finished_versions(storage), begun_version(storage), open_version(storage).number) == ([1, 2], 3, 2)
    finalize(storage, open_version(storage, 3).run)
    assert (finished_versions(storage), begun_version(storage), open_version(storage).number) == ([1, 2, 3], None, 3)
    for number in (0, 4, 10_000):
        with pytest.raises(NotFound, match=f"no version {number}; finished versions: 1, 2, 3"):
            open_version(storage, number)
    storage.delete(dataset_format.SUCCESS)
    assert (finished_versions(storage), begun_version(storage)) == ([2, 3], None), "a purged one is not begun"


def test_the_next_version_counts_on_where_no_row_was_made(storage: LocalStorage) -> None:
    run = open_version(storage, 3).run
    assert (run.first_shard, run.first_index, run.n_shards, list(run.shards)) == (3, 5, 0, [])
    assert [entry["version"] for entry in run.history] == [2, 3]


DAMAGE: list[tuple[str, Callable[[dict[str, Any]], None]]] = [
    ("which shards and rows", lambda v: v.pop("first_index")),
    ("version is 7", lambda v: v.update(version=7)),
    ("sha256 of its tables", lambda v: v.update(superseded_sha256="x")),
    ("runs is", lambda v: v.update(runs=[2, 1])),
    ("configs are not", lambda v: v.update(configs={"0": {}})),
    ("no shard 3; there are shards 0 to 2", lambda v: v.update(shards="0-9")),
    ("its changes are not numbers", lambda v: v["changes"].update(added="many")),
    ("contradict one another", lambda v: v.update(config_digest="0" * 64)),
]


@pytest.mark.parametrize(("words", "damage"), DAMAGE)
def test_a_damaged_version_is_named(
    storage: LocalStorage, words: str, damage: Callable[[dict[str, Any]], None]
) -> None:
    path = storage.root / "versions/0003/version.json"
    values = json.loads(path.read_text())
    damage(values)
    path.write_text(json.dumps(values))
    with pytest.raises(PipelineError, match=words) as caught:
        open_version(storage, 3)
    assert "versions/0003/version.json" in str(caught.value)


def test_damaged_tables_are_named(storage: LocalStorage) -> None:
    path = storage.root / "versions/0003/superseded.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(PipelineError, match=r"0003/superseded\.parquet: its sha256 is not that of"):
        open_version(storage, 3)
    path = storage.root / "versions/0002/metadata.parquet"
    path.write_bytes((storage.root / "metadata.parquet").read_bytes())
    with pytest.raises(PipelineError, match="its rows are not those that count"):
        list(LiveRows(storage, open_version(storage, 2)).tables(["status"]))
