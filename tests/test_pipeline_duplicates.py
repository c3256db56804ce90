"""Duplicates: every pair within a distance, groups in which all that is dropped is near to what is kept, the verb."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline_runs import finished, write_inputs

from gaussianverse import AtlasDataset
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.dataset import near
from gaussianverse.pipeline.dataset.duplicates import COLUMNS, SCHEMA, duplicates
from gaussianverse.pipeline.errors import PipelineError


def by_definition(words: list[int], distance: int) -> list[tuple[int, int]]:
    n = len(words)
    return [(i, j) for i in range(n) for j in range(i + 1, n) if (words[i] ^ words[j]).bit_count() <= distance]


@pytest.mark.parametrize("distance", range(near.MOST + 1))
def test_every_pair_is_found_and_no_other(distance: int) -> None:
    rng = np.random.default_rng(distance)
    words = set(rng.integers(0, 2**64, 20, np.uint64).tolist())
    for word in list(words):
        for bits in range(1, near.MOST + 3):
            words.add(word ^ sum(1 << int(b) for b in rng.choice(64, bits, replace=False)))
            # all flips in one band, the hardest for the others, and evenly over the three
            words.add(word ^ sum(1 << (3 * int(b)) for b in rng.choice(21, bits, replace=False)))
            words.add(word ^ sum(1 << (3 * b + b % 3) for b in range(bits)))
    given = list(words)
    found = near.pairs_within(np.array(given, np.uint64), distance)
    assert [tuple(pair) for pair in found.tolist()] == by_definition(given, distance)
    assert len(found) > 0 or distance == 0


def test_too_many_pairs_are_an_error_and_many_in_pieces_none(monkeypatch: pytest.MonkeyPatch) -> None:
    words = np.arange(256, dtype=np.uint64)
    whole = near.pairs_within(words, 2)
    assert len(whole) == 256 * (8 + 28) // 2
    monkeypatch.setattr(near, "_CHUNK", 7)
    assert (near.pairs_within(words, 2) == whole).all()
    monkeypatch.setattr(near, "MOST_PAIRS", 100)
    with pytest.raises(PipelineError, match="more than 100 pairs of objects within 2 bits; give a lower --distance"):
        near.pairs_within(words, 2)


def objects(*rows: tuple[str, str, str, float]) -> pa.Table:
    uids, files, hashes, psnr = zip(*rows, strict=True)
    columns = [list(uids), list(files), list(hashes), list(psnr), [1.0] * len(rows)]
    return pa.table(dict(zip(COLUMNS, columns, strict=True)))


def listed(table: pa.Table) -> list[tuple[Any, ...]]:
    assert table.schema == SCHEMA
    return [tuple(row.values())[:-1] for row in table.to_pylist()]


def test_the_best_is_kept_and_no_chain_is_a_group() -> None:
    table = objects(
        ("a", "s1", "0000000000000000", 30.0),
        ("b", "s2", "0000000000000007", 31.0),  # 3 bits from a
        ("c", "s3", "000000000000003f", 29.0),  # 3 bits from b, 6 from a
        ("d", "s4", "00000000000001ff", 28.0),  # 3 bits from c, 6 from b
        ("e", "s5", "ff00000000000000", 20.0),
        ("f", "s5", "ff00000000000000", 25.0),
        ("g", "", "", 25.0),
        ("h", "", "", 25.0),
    )
    assert listed(duplicates(table, 3)) == [
        ("b", 0, "kept", False, "b", 0),
        ("a", 0, "near", True, "b", 3),
        ("c", 0, "near", True, "b", 3),
        ("f", 1, "kept", False, "f", 0),
        ("e", 1, "exact", True, "f", 0),
    ]
    assert [row[0] for row in listed(duplicates(table, 0))] == ["f", "e"]
    assert [row[0] for row in listed(duplicates(table, 6))] == ["b", "a", "c", "d", "f", "e"]


def test_equal_files_follow_the_one_that_stands_for_them_also_without_a_hash() -> None:
    table = objects(
        ("a", "s1", "0000000000000001", 30.0),
        ("b", "s1", "", 20.0),
        ("c", "s2", "0000000000000000", 40.0),
        ("d", "s3", "0000000000000000", 40.0),  # as good as c: the uid decides
        ("e", "s4", "", 1.0),
        ("f", "s4", "", 2.0),
    )
    assert listed(duplicates(table, 1)) == [
        ("c", 0, "kept", False, "c", 0),
        ("a", 0, "near", True, "c", 1),
        ("b", 0, "near", True, "c", -1),
        ("d", 0, "near", True, "c", 0),
        ("f", 1, "kept", False, "f", -1),
        ("e", 1, "exact", True, "f", -1),
    ]
    older = table.drop_columns(["view_hash", "atlas_heldout_psnr"])
    assert [(row[0], row[2]) for row in listed(duplicates(older, 8))] == [
        ("a", "kept"), ("b", "exact"), ("e", "kept"), ("f", "exact"),
    ]  # fmt: skip
    assert len(duplicates(table.slice(0, 0), 4)) == 0


@pytest.mark.parametrize("seed", range(4))
def test_groups_have_their_properties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    words = [int(w) for w in rng.integers(0, 2**10, 120)]
    rows = [
        (f"u{i:03}", f"s{rng.integers(0, 90)}", f"{w:016x}", float(rng.integers(20, 30))) for i, w in enumerate(words)
    ]
    by_uid = {row[0]: row for row in rows}
    found = duplicates(objects(*rows), 2).to_pylist()
    dropped = {row["uid"] for row in found if row["drop"]}
    for row in found:
        one, kept = by_uid[row["uid"]], by_uid[row["kept"]]
        assert kept[0] not in dropped
        assert (kept[3], one[0]) >= (one[3], one[0]) or one == kept, "the better one is kept"
        assert row["distance"] == (int(one[2], 16) ^ int(kept[2], 16)).bit_count()
        assert (row["kind"] == "exact") <= (one[1] == kept[1])
    left = [row for row in rows if row[0] not in dropped]
    for i, one in enumerate(left):
        for other in left[:i]:
            assert one[1] != other[1]
            assert (int(one[2], 16) ^ int(other[2], 16)).bit_count() > 2
    shuffled = [rows[i] for i in rng.permutation(len(rows))]
    assert duplicates(objects(*shuffled), 2).to_pylist() == found


def test_the_verb_lists_what_readers_leave_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = finished(tmp_path / "out", write_inputs(tmp_path, "abcdefg"))  # g has the views of a
    file = tmp_path / "same.parquet"
    assert cli.main(["duplicates", out, "--distance", "0", "--out", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["objects"], told["exact"]) == (7, 1)
    table = pq.read_table(file)
    assert told["rows"] == table.to_pylist()
    for name, words in ((f"{out}/metadata.parquet", "lies in the dataset"), (f"{file}.csv", "the list is Parquet")):
        before = Path(name).read_bytes() if Path(name).exists() else None
        assert cli.main(["duplicates", out, "--out", name]) == 2
        assert words in capsys.readouterr().err
        assert (Path(name).read_bytes() if Path(name).exists() else None) == before
    drop = [row["uid"] for row in table.to_pylist() if row["drop"]]
    assert {"a", "g"} & set(drop)
    left = AtlasDataset(out, filters=[("uid", "not in", drop)])
    assert len(left) == 7 - len(drop)
    # filters take the columns as they take any
    whole = AtlasDataset(out).catalogue
    hashes = {uid: whole.row(whole.find(uid))["view_hash"] for uid in "abcdefg"}
    assert hashes["a"] == hashes["g"] != ""
    assert len(AtlasDataset(out, filters=[("view_hash", "==", hashes["a"])])) == list(hashes.values()).count(
        hashes["a"]
    )
    assert len(AtlasDataset(out, filters=[("normal_agreement", "==", -1), ("thinness", ">", 0)])) == 7
    assert cli.main(["duplicates", out]) == 0
    assert "of 7 objects to drop" in capsys.readouterr().out


def test_wrong_distances_and_unfinished_outputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("9", "-1", "x", "1.5"):
        with pytest.raises(SystemExit) as ended:
            cli.main(["duplicates", str(tmp_path), f"--distance={text}"])
        assert ended.value.code == 2
        assert "expected a whole number from 0 to 8" in capsys.readouterr().err
    assert cli.main(["duplicates", str(tmp_path), "--out", str(tmp_path.parent / "list.parquet")]) == 1
    assert not (tmp_path.parent / "list.parquet").exists()
