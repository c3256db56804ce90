"""Manifests of any size on their way into objects.parquet."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gaussianverse.manifests import authored, intake, parts, row_groups, runform, sorting
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.table import Rules

Outcome = tuple[bytes, list[str]] | str


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts, runs and blocks of a few rows."""
    for module, name, value in (
        (parts, "_ROWS", 7), (sorting, "_RUN_BYTES", 600), (sorting, "_BATCH", 3), (row_groups, "_BLOCK", 4),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)


def by_rows(path: Path, rules: Rules) -> Outcome:
    try:
        found = authored.read(path, rules=rules)
        return runform.encode(found.rows, shard_size=found.shard_size or 5), found.faults
    except ManifestError as error:
        return str(error)


def in_parts(path: Path, rules: Rules) -> Outcome:
    out = io.BytesIO()
    try:
        found = intake.convert(path, out, shard_size=5, rules=rules)
    except ManifestError as error:
        return str(error)
    assert found.objects == pq.ParquetFile(io.BytesIO(out.getvalue())).metadata.num_rows
    return out.getvalue(), found.faults


_FAULTS: list[dict[str, Any]] = [
    {"uid": "bad uid!"}, {"views": "http://x"}, {"score": "text"}, {"caption": 5}, {"other": 1}, {"license": None},
    {"uid": "bad-line-3"}, {"uid": "o1"}, {"uid": "O1"}, {"score": 10**30}, {"score": True},
]  # fmt: skip


def rows_of(rng: random.Random) -> list[dict[str, Any]]:
    rows = []
    faulty = rng.choice([0.0, 0.0, 0.2])
    own = rng.random() < 0.6
    for k in range(rng.choice([1, 6, 40])):
        row: dict[str, Any] = {"uid": f"o{rng.choice([k, 100 + k])}", "views": f"v/{k}"}
        row |= rng.choice([{"caption": "é"}, {"captions": ["a", "b"]}, {"captions": []}, {}])
        row |= {"score": rng.choice([1, 2.5]), "name": "x"} if own else {}
        if rng.random() < 0.1:
            row.pop("name", None)
        rows.append(row | (rng.choice(_FAULTS) if rng.random() < faulty else {}))
    return sorted(rows, key=lambda row: str(row["uid"])) if rng.random() < 0.4 else rows


@pytest.mark.parametrize("seed", range(12))
def test_it_does_what_the_reader_of_rows_does(seed: int, tmp_path: Path, small: None) -> None:
    rng = random.Random(seed)
    rows = rows_of(rng)
    rules = Rules(
        defaults=rng.choice([{}, {"name": "d"}, {"score": 7}]), sources=rng.choice([(), ("v",)]), base=str(tmp_path)
    )
    text = tmp_path / "m.jsonl"
    text.write_text("\n".join(["", *map(json.dumps, rows), rng.choice(["[]", '{"uid":1', ""])]))
    assert in_parts(text, rules) == by_rows(text, rules)
    try:
        names = dict.fromkeys(name for row in rows for name in row)
        table = pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})
    except (pa.ArrowException, OverflowError):
        table = None
    if table is not None:
        columns = tmp_path / "m.parquet"
        pq.write_table(table, columns, row_group_size=4)
        assert in_parts(columns, rules) == by_rows(columns, rules)
    made = by_rows(text, Rules(defaults=rules.defaults))
    if not isinstance(made, str):
        shards = tmp_path / "objects.parquet"
        shards.write_bytes(made[0])
        assert in_parts(shards, rules) == by_rows(shards, rules)


def test_a_column_whose_type_only_the_rest_tells(tmp_path: Path, small: None) -> None:
    path = tmp_path / "m.jsonl"
    rows = [{"uid": f"o{k:03}", "views": "v", "score": 1 if k < 10 else 0.5} for k in range(60)]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = in_parts(path, Rules())
    assert found == by_rows(path, Rules())
    assert not isinstance(found, str)
    assert runform.extent_of(found[0]).kinds == {"score": "number"}


def peak_of(path: Path) -> int:
    """Largest number of bytes that Arrow holds while a manifest is converted."""
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    try:
        with (path.parent / "out").open("wb") as out:
            intake.convert(path, out, shard_size=256)
    finally:
        pa.set_memory_pool(before)
    return int(pool.max_memory())


@pytest.mark.parametrize("ordered", [True, False])
def test_memory_does_not_grow_with_the_rows(ordered: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row has 300 bytes here; the peaks of both sizes are alike, where all rows in memory would add 10 MB."""
    monkeypatch.setattr(parts, "_ROWS", 1024)
    monkeypatch.setattr(sorting, "_RUN_BYTES", 1 << 20)
    monkeypatch.setattr(sorting, "_BATCH", 128)
    monkeypatch.setattr(row_groups, "_BLOCK", 4)
    peaks = []
    for count in (8_000, 40_000):
        path = tmp_path / f"{count}.parquet"
        uids = [f"{k if ordered else k * 7919 % count:032d}" for k in range(count)]
        captions = [f"{uid * 6}" for uid in uids]
        pq.write_table(pa.table({"uid": uids, "views": uids, "caption": captions}), path, row_group_size=1024)
        peaks.append(peak_of(path))
    assert peaks[1] < peaks[0] + (4 << 20), peaks
