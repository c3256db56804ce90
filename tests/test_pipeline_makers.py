"""Shards that other code or packages made than the run began with are named by verify and the card, and no fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pipeline_runs import data_of, planned, publish_one

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import ATLAS, SPLATS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.dataset import layout, pack, records
from gaussianverse.pipeline.dataset.finalize import finalize
from gaussianverse.pipeline.dataset.makers import ranges
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.provenance import code_digest, made_with
from gaussianverse.pipeline.dataset.shards import read_commit
from gaussianverse.pipeline.errors import PipelineError

ELSEWHERE = "gaussianverse 0.3.0, numpy 2.1.0"


def built(folder: Path, elsewhere: set[tuple[str, str]]) -> LocalStorage:
    """A dataset of six objects in shards of two, of which some (stage, uid) were made with other packages."""
    storage = LocalStorage(folder / "out")
    run = planned(storage, [f"o{k}" for k in range(6)], shard_size=2)
    for stage in layout.STAGES:
        for shard in range(run.n_shards):
            for row in shard_rows(storage, run, shard):
                with pytest.MonkeyPatch.context() as patched:
                    if (stage, row["uid"]) in elsewhere:
                        patched.setattr(records, "made_with", lambda: ELSEWHERE)
                        patched.setattr(records, "code_digest", lambda: "e" * 64)
                    publish_one(storage, run, stage, {**row, "shard": shard}, data=data_of(stage, row["uid"]))
            pack.pack(storage, run, stage, shard)
    finalize(storage, run)
    return storage


def verified(storage: LocalStorage, capsys: pytest.CaptureFixture[str], *more: str) -> list[str]:
    assert cli.main(["verify", "--out", storage.url, "--json", *more]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["faults"] == []
    notes: list[str] = said["notes"]
    return notes


def test_what_the_first_call_made_is_not_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = built(tmp_path, set())
    assert verified(storage, capsys) == []
    card = storage.get(dataset_format.CARD).decode()
    assert code_digest() in card
    assert made_with() in card
    assert "other code" not in card


def test_verify_and_card_name_the_shards_that_others_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = built(tmp_path, {(SPLATS, "o1"), (SPLATS, "o4"), (SPLATS, "o5"), (ATLAS, "o2")})
    began = f"the run began with {made_with()} (code {code_digest()[:12]})"
    expected = [
        f"shards 0,2 of splats: 3 objects were made by {ELSEWHERE} (code eeeeeeeeeeee), {began}",
        f"shard 1 of atlas: 1 object was made by {ELSEWHERE} (code eeeeeeeeeeee), {began}",
    ]
    assert verified(storage, capsys) == expected
    assert verified(storage, capsys, "--sample", "1") == expected
    assert verified(storage, capsys, "--shards", "1") == expected[1:]
    assert cli.main(["verify", "--out", storage.url]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line.startswith("note: ")] == [f"note: {text}" for text in expected]
    assert printed[-1].endswith("is right")
    card = storage.get(dataset_format.CARD).decode()
    assert f"| splats | 0,2 | 3 | {'e' * 64} | {ELSEWHERE} |" in card
    assert f"| atlas | 1 | 1 | {'e' * 64} | {ELSEWHERE} |" in card


def test_the_row_of_each_object_says_the_same(tmp_path: Path) -> None:
    storage = built(tmp_path, {(SPLATS, "o1")})
    made = read_commit(storage, SPLATS, 0)["made_with"]
    assert sorted((m["versions"], m["objects"]) for m in made) == sorted([(ELSEWHERE, 1), (made_with(), 1)])


@pytest.mark.parametrize(
    "made", [None, {}, [1], [{}], [{"code_digest": 1, "versions": "", "objects": 1}],
             [{"code_digest": "", "versions": "", "objects": -1}]],
)  # fmt: skip
def test_a_commit_record_whose_makers_are_damaged_is_refused(tmp_path: Path, made: object) -> None:
    storage = built(tmp_path, set())
    path = storage.root / layout.commit(SPLATS, 0)
    path.write_text(json.dumps({**json.loads(path.read_text()), "made_with": made}))
    with pytest.raises(PipelineError, match="made_with is"):
        read_commit(storage, SPLATS, 0)


def test_numbers_are_said_as_the_option_shards_takes_them() -> None:
    assert [ranges(n) for n in ((), (3,), (0, 1, 2), (0, 2, 3, 7))] == ["", "3", "0-2", "0,2-3,7"]
