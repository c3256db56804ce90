"""Causes of quarantine, counted."""

from __future__ import annotations

from pathlib import Path

from pipeline_runs import data_of, planned

from gaussianverse.atlas.dataset_format import ATLAS, OK
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline.dataset import layout, pack, records
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.ops.top_errors import errors_text, top_errors


def give_up(storage: LocalStorage, run: Run, stage: str, uid: str, reason: str, text: str) -> None:
    for shard in range(run.n_shards):
        for row in shard_rows(storage, shard):
            if row["uid"] == uid:
                why = {"reason": reason, "error_class": "Fault", "error_message": text}
                records.publish_quarantine(storage, stage, {**row, "shard": shard}, run, why, records.Stopwatch(1))


def test_causes_are_counted_once_per_object_across_stages_and_shards(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    uids = [f"o{i}" for i in range(8)]
    run = planned(storage, uids, shard_size=4)
    assert errors_text(top_errors(storage), 5) == "no object was quarantined"
    for uid, psnr in (("o0", 12.5), ("o1", 9.0), ("o5", 7)):  # o5 in a shard that is not committed
        for stage in layout.STAGES:
            give_up(storage, run, stage, uid, "low_psnr", f"{uid}: {psnr} dB")
    give_up(storage, run, ATLAS, "o2", "rough_atlas", "smoothness 0.1")
    for shard in range(2):
        for row in shard_rows(storage, shard):
            for stage in layout.STAGES:
                facts = records.facts_of(stage, {**row, "shard": shard}, run, status=OK)
                records.publish_sample(storage, stage, facts, data_of(stage, "o"), records.Stopwatch(1), {})
    for stage in layout.STAGES:
        pack.pack(storage, run, stage, 0)
    first, second = top_errors(storage)
    assert (first.stage, first.reason, first.count) == ("splats", "low_psnr", 3)
    assert (first.pattern, first.message) == ("<uid>: # dB", "o0: 12.5 dB")
    assert first.uids == ["o0", "o1", "o5"]
    assert (second.stage, second.count) == ("atlas", 1)
    text = errors_text([first, second], 1)
    assert "3  splats: low_psnr: o0: 12.5 dB" in text
    assert "1  of 1 other causes" in text
