from pathlib import Path
from typing import Any

from pipeline_runs import planned, publish_all

from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline.dataset import layout, pack
from gaussianverse.pipeline.dataset.shards import Counts, counts_of
from gaussianverse.pipeline.ops.report import counts_text, result_rows
from gaussianverse.pipeline.ops.table import MAX_LINES, table


def row(uid: str, **fields: Any) -> dict[str, Any]:
    return {
        "uid": uid, "n_gaussians": 1000, "atlas_heldout_psnr": 29.0, "psnr": 30.0, "ssim": 0.95,
        "metrics_on": "heldout",
        "smoothness": 0.97, "seconds": 60.0, "status": "ok", "reason": "", "error_message": "", **fields,
    }  # fmt: skip


def packed(root: Path) -> LocalStorage:
    """A store with two packed shards, of which the first has a quarantined object."""
    storage = LocalStorage(root)
    run = planned(storage, ["a", "b", "c"], shard_size=2)
    for stage in layout.STAGES:
        publish_all(storage, run, stage, quarantined={"b"})
        for shard in range(2):
            pack.pack(storage, run, stage, shard)
    return storage


def test_rows_join_both_stages_and_their_times(tmp_path: Path) -> None:
    storage = packed(tmp_path)
    rows = list(result_rows(storage, [0, 1]))
    assert [(r["uid"], r["status"]) for r in rows] == [("a", "ok"), ("b", "quarantined"), ("c", "ok")]
    assert all(0 <= r["seconds"] < 60 for r in rows)
    assert [r["uid"] for r in result_rows(storage, [1])] == ["c"]
    assert list(result_rows(storage, [])) == []


def test_the_table_has_a_line_per_object_and_one_of_medians() -> None:
    text = table([row("a", psnr=28.0), row("b-longer", psnr=32.0, atlas_heldout_psnr=-1), row("c", psnr=29.0)])
    lines = text.splitlines()
    assert "held-out PSNR of atlas     of fit" in lines[0]
    assert lines[1].split()[1:6] == ["1000", "29.00", "dB", "28.00", "dB"]
    assert lines[2].split()[1:6] == ["1000", "-", "dB", "32.00", "dB"]
    assert [line.split()[0] for line in lines[1:]] == ["a", "b-longer", "c", "median"]
    assert "29.00 dB" in lines[-1]
    assert len({line.index(" dB") for line in lines[1:]}) == 1, "columns are aligned"


def test_the_quarantined_are_named_with_their_reason_and_left_out_of_medians() -> None:
    lost = row("bad", status="quarantined", reason="low_psnr", error_message="12 dB", psnr=-1.0)
    text = table([row("a"), lost, row("c")])
    assert "quarantined: low_psnr: 12 dB" in text
    assert text.splitlines()[-1].split()[2:5] == ["29.00", "dB", "30.00"]
    assert "quarantined: low_psnr" in table([lost])


def test_metrics_on_training_views_are_not_called_held_out() -> None:
    assert "held-out" not in table([row("a", metrics_on="train")])


def test_a_long_table_is_cut_and_says_so() -> None:
    text = table([row(f"o{i}") for i in range(MAX_LINES + 7)])
    assert "and 7 more" in text
    assert len(text.splitlines()) == MAX_LINES + 3


def test_the_last_line_says_how_many_were_published_and_why_the_others_were_not(tmp_path: Path) -> None:
    counts = Counts(11, 6, {"decode_error": 3, "missing_views": 2})
    assert counts_text(counts, "s3://lake/set", "b7") == (
        "6 of 11 objects published, 5 quarantined: 3 decode_error, 2 missing_views "
        "(gaussianverse inspect b7 --out s3://lake/set)"
    )
    assert counts_text(counts, "out", "").endswith("(gaussianverse top-errors --out out)")
    assert counts_text(Counts(3, 3, {}), "out", "") == "3 of 3 objects published"


def test_counts_are_those_of_the_given_shards(tmp_path: Path) -> None:
    storage = packed(tmp_path)
    assert counts_of(storage, [0, 1]) == Counts(3, 2, {"bad_input": 1})
    assert counts_of(storage, [1]) == Counts(1, 1, {})


def test_a_message_of_the_table_cannot_steer_the_terminal() -> None:
    text = table([row("bad", status="quarantined", reason="bad_input", error_message="\x1b[2J\nall is well")])
    assert "quarantined: bad_input: \\x1b[2J\\nall is well" in text
