"""Causes of quarantine, counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_runs import data_of, planned

from gaussianverse.atlas.dataset_format import ATLAS, OK
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline.dataset import layout, pack, records
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.versions import open_version
from gaussianverse.pipeline.ops.top_errors import errors_text, pattern_of, top_errors


def give_up(storage: LocalStorage, run: Run, stage: str, uid: str, reason: str, text: str) -> None:
    for shard in range(run.n_shards):
        for row in shard_rows(storage, run, shard):
            if row["uid"] == uid:
                why = {"reason": reason, "error_class": "Fault", "error_message": text}
                records.publish_quarantine(storage, stage, {**row, "shard": shard}, run, why, records.Stopwatch(1))


def test_causes_are_counted_once_per_object_across_stages_and_shards(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    uids = [f"o{i}" for i in range(8)]
    run = planned(storage, uids, shard_size=4)
    assert errors_text(top_errors(storage, open_version(storage)), 5) == "no object was quarantined"
    for uid, psnr in (("o0", 12.5), ("o1", 9.0), ("o5", 7)):  # o5 in a shard that is not committed
        for stage in layout.STAGES:
            give_up(storage, run, stage, uid, "low_psnr", f"{uid}: {psnr} dB")
    give_up(storage, run, ATLAS, "o2", "rough_atlas", "smoothness 0.1")
    for shard in range(2):
        for row in shard_rows(storage, run, shard):
            for stage in layout.STAGES:
                facts = records.facts_of(stage, {**row, "shard": shard}, run, status=OK)
                records.publish_sample(storage, stage, facts, data_of(stage, "o"), records.Stopwatch(1), {})
    for stage in layout.STAGES:
        pack.pack(storage, run, stage, 0)
    first, second = top_errors(storage, open_version(storage))
    assert (first.stage, first.reason, first.count) == ("splats", "low_psnr", 3)
    assert (first.pattern, first.message) == ("<uid>: # dB", "o0: 12.5 dB")
    assert first.uids == ["o0", "o1", "o5"]
    assert (second.stage, second.count) == ("atlas", 1)
    text = errors_text([first, second], 1)
    assert "3  splats: low_psnr: o0: 12.5 dB" in text
    assert "1  of 1 other causes" in text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("o1: 12.5 dB, expected 20", "o2: 7 dB, expected 20"),
        ("views/o1: view 00003: cannot be decoded", "s3://lake/r/o2/campos_512_v4: view top: cannot be decoded"),
        ("no 'origin' in view a", 'no "x_fov" in view 00017'),
        ("loss is nan at step 30", "loss is -1e-07 at step 1250"),
        ("view 00012: last row [0.0, 0.1, 0.0, 2.0]", "view 3: last row [0, 1, 0.5]"),
        ("object at 0x7fa7d1dbd190", "object at 0x7fa7d1dbd3c8"),
        ("o1: member r_12.png is not a regular file", "o2: member train/../x is not a regular file"),
        ("00003.png: truncated (12 bytes)", "frame-7.jpeg: truncated (90112 bytes)"),
        ("sha256 0f3a9c77d0e1b2c3d4 differs", "sha256 aaaabbbbccccdddd0000 differs"),
    ],
)
def test_messages_that_differ_in_numbers_names_and_paths_have_one_pattern(one: str, other: str) -> None:
    assert pattern_of(one, "o1") == pattern_of(other, "o2")


def test_messages_of_different_kinds_have_different_patterns() -> None:
    texts = (
        "view 1: cannot be decoded",
        "view 1: no alpha",
        "3 complete views, expected 4",
        "view 1: NaN in its pose",
    )
    assert len({pattern_of(text) for text in texts}) == len(texts)
    assert pattern_of("boat: a float is no boat", "boat") == "<uid>: a float is no <uid>"


def test_a_message_cannot_steer_the_terminal(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    run = planned(storage, ["o0"])
    give_up(storage, run, "splats", "o0", "bad_input", "\x1b[2J\nall is well")
    assert "splats: bad_input: \\x1b[2J all is well\n" in errors_text(top_errors(storage, open_version(storage)), 5)
