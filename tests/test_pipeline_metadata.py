"""The tables of the whole from those of the shards."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pipeline_runs import planned, publish_all

from gaussianverse.atlas.dataset_format import ATLAS, SPLATS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.storage import sha256_of
from gaussianverse.pipeline.dataset import layout, pack
from gaussianverse.pipeline.dataset.metadata import Totals, tables_of
from gaussianverse.pipeline.dataset.parquet import from_parquet, to_parquet
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import METADATA, STATS, row
from gaussianverse.pipeline.dataset.spread import Spread
from gaussianverse.pipeline.dataset.versions import Version, version_of
from gaussianverse.pipeline.errors import PipelineError


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([row(METADATA, r) for r in rows], schema=METADATA)


def test_totals_do_not_depend_on_how_the_rows_are_cut() -> None:
    rows = [
        {"uid": f"o{i}", "status": "quarantined" if i % 3 == 0 else "ok", "reason": "low_psnr" if i % 3 == 0 else "",
         "license": "MIT" if i % 2 else "", "psnr": float(i), "metrics_on": "heldout" if i < 10 else "train"}
        for i in range(20)
    ]  # fmt: skip
    whole, parts = Totals(), Totals()
    whole.add(table(rows))
    for start in (0, 1, 7, 8):
        stop = {0: 1, 1: 7, 7: 8, 8: 20}[start]
        parts.add(table(rows[start:stop]))
    good = [r["uid"] for r in rows if r["status"] == "ok"]
    assert whole.uids_sha256 == parts.uids_sha256 == sha256_of("\n".join(good).encode())
    assert (parts.objects, parts.samples, parts.reasons) == (20, len(good), {"low_psnr": 7})
    assert parts.licences == whole.licences == {"MIT": 7, "": 6}
    assert parts.measured_on == whole.measured_on == {"heldout", "train"}
    values = [float(u[1:]) for u in good]
    assert parts.spread("psnr") == whole.spread("psnr") == Spread(float(np.median(values)), values[0], values[-1])


def test_tables_of_other_objects_do_not_become_one(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    run = planned(storage, ["a", "b"])
    for stage in layout.STAGES:
        publish_all(storage, run, stage)
        pack.pack(storage, run, stage, 0)
    key = layout.stats(ATLAS, 0)
    rows = from_parquet(STATS[ATLAS], storage.get(key)).to_pylist()
    storage.delete(key)
    storage.put_if_absent(key, to_parquet(STATS[ATLAS], rows[::-1]))
    with pytest.raises(PipelineError, match="different objects"):
        tables_of(storage, version_of(storage, run))


class Repeated(LocalStorage):
    """Any number of shards that are all the same."""

    def __init__(self, rows: int) -> None:
        super().__init__("nowhere")
        facts = {"uid": "x" * 32, "caption": "a caption of ordinary length, of one object", "status": "ok"}
        self._tables = {stage: to_parquet(STATS[stage], [row(STATS[stage], facts)] * rows) for stage in layout.STAGES}

    def get(self, key: str) -> bytes:
        return self._tables[SPLATS if SPLATS in key else ATLAS]


def test_memory_does_not_grow_with_every_object() -> None:
    """As dicts 20,000 rows are over 150 MB; here the pieces of one row group are the most."""
    storage = Repeated(256)

    def version(n_shards: int) -> Version:
        run = Run({"schema_version": 2, "n_shards": n_shards, "config": {"run": {}}})
        return Version(run, (run,), run.shards)

    tables_of(storage, version(1))
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        assert tables_of(storage, version(80)).totals.samples == 80 * 256
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 << 20
    assert pa.default_memory_pool().max_memory() - before < 100 << 20
