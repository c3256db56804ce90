"""A dataset grows by versions: what is planned, what is made anew, what is taken over, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline_runs import TINY, build_in_process, in_process, write_inputs, write_views

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.arrays import read_npy
from gaussianverse.atlas.dataset_format import ATLAS, SPLATS, VIEWS, read_sums
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.dataset import duplicates, layout, run_file, shards
from gaussianverse.pipeline.dataset.versions import finished_versions, open_version
from gaussianverse.pipeline.ops.verify import verify
from gaussianverse.pipeline.run import job, tasks

UIDS = ["a", "b", "c", "d", "e"]
SETTINGS = ["run.shard_size=2", "run.views=2", "run.views_size=16"]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five objects in shards of two, the last of them quarantined: version 1."""
    folder = tmp_path_factory.mktemp("root")
    manifest = write_inputs(folder, UIDS)
    shutil.rmtree(folder / "views" / "e")
    config = load("test", [*TINY, *SETTINGS])
    storage, run, base = job.plan(str(folder / "out"), manifest, config)
    assert build_in_process(storage, run, config, base).finalized
    return folder


@pytest.fixture
def grown(root: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it that may be extended, in this process; fits are counted."""
    shutil.copytree(root, tmp_path / "data")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(job, "ray_executor", in_process)
        yield tmp_path / "data"


def rows_of(folder: Path, **changed: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the manifest of version 1; changed ones have other values."""
    rows = [json.loads(line) for line in (folder / "objects.jsonl").read_text().splitlines()]
    return [{**row, **changed.get(row["uid"], {})} for row in rows]


def extend(folder: Path, rows: list[dict[str, Any]] | None, *more: str, remove: str = "") -> int:
    given = ["--out", str(folder / "out"), "--workers", "1"]
    if rows is not None:
        path = folder / "new.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        given += ["--manifest", str(path)]
    if remove:
        (folder / "gone.txt").write_text(remove)
        given += ["--remove", str(folder / "gone.txt")]
    return cli.main(["extend", *given, *more])


def metadata(folder: Path, number: int) -> dict[str, dict[str, Any]]:
    key = dataset_format.version_key(number, dataset_format.METADATA)
    return {row["uid"]: row for row in pq.read_table(folder / "out" / key).to_pylist()}


def files(folder: Path) -> dict[str, str]:
    paths = [path for path in (folder / "out").rglob("*") if path.is_file()]
    return {str(p.relative_to(folder / "out")): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def check_sums(folder: Path, number: int) -> set[str]:
    """Check every file that a version counts; returns their keys."""
    storage = LocalStorage(folder / "out")
    data = storage.get(dataset_format.version_key(number, dataset_format.SUMS))
    sums = read_sums(data)
    assert {key: hashlib.sha256(storage.get(key)).hexdigest() for key in sums} == sums
    success = storage.get(dataset_format.version_key(number, dataset_format.SUCCESS))
    key = dataset_format.version_key(number, dataset_format.SUMS)
    assert read_sums(success) == {key: hashlib.sha256(data).hexdigest()}
    return set(sums)


def samples_of(folder: Path, number: int) -> dict[str, dict[str, Any]]:
    """Main members, facts and captions of the samples that count, read by their addresses."""
    storage, found = LocalStorage(folder / "out"), dict[str, dict[str, Any]]()
    for uid, row in metadata(folder, number).items():
        if row["status"] == "ok":
            found[uid] = {f: shards.read_record(storage, f, row["shard"], uid).main(f) for f in (SPLATS, ATLAS)}
    return found


def without_views(folder: Path) -> None:
    shutil.rmtree(folder / "views")
    (folder / "views").mkdir()


def test_facts_are_corrected_without_a_view_and_without_a_fit(grown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_views(grown)
    before, arrays = files(grown), samples_of(grown, 1)
    monkeypatch.setattr(tasks, "fit_prepared", lambda *_, **__: pytest.fail("fitted"))
    monkeypatch.setattr(tasks, "load_to_fit", lambda *_, **__: pytest.fail("read"))
    rows = rows_of(grown, b={"caption": "another"}, c={"license": "CC-BY-4.0", "split": "val"})[1:3]
    assert extend(grown, rows, "--note", "words") == 0
    one, two = metadata(grown, 1), metadata(grown, 2)
    assert {uid: row["shard"] for uid, row in two.items()} == {"a": 0, "d": 1, "e": 2, "b": 3, "c": 3}
    assert (two["b"]["caption"], two["b"]["captions"], two["b"]["index"]) == ("another", ["another"], 5)
    assert (two["c"]["license"], two["c"]["split"]) == ("CC-BY-4.0", "val")
    places = {"shard", "index", *(n for n in one["a"] if n.endswith(("_sample", "_offset")))}
    changed = {"caption", "captions", "license", "split"}
    for uid in one:
        kept = {n for n in one[uid] if n not in places and (uid not in "bc" or n not in changed)}
        assert {n: one[uid][n] for n in kept} == {n: two[uid][n] for n in kept}
    assert samples_of(grown, 2) == arrays
    card = (grown / "out/versions/0002/README.md").read_text()
    assert "| 2 | 0 | 0 | 2 | 0 | caption 1, captions 1, license 1, split 1 | words |" in card
    record = shards.read_record(LocalStorage(grown / "out"), ATLAS, 3, "b")
    assert record.members["b.txt"] == b"another"
    assert {key: value for key, value in files(grown).items() if key in before} == before
    identity = open_version(LocalStorage(grown / "out")).identity
    assert identity["changes"] == {
        "added": 0, "refitted": 0, "corrected": 2, "removed": 0,
        "columns": {"caption": 1, "captions": 1, "license": 1, "split": 1},
    }  # fmt: skip
    assert (identity["note"], identity["shards"], identity["runs"]) == ("words", "0-3", [1, 2])


def test_pictures_are_taken_over_too(grown: Path) -> None:
    without_views(grown)
    assert extend(grown, rows_of(grown, a={"caption": "x"}, b={"caption": "y"}, d={"caption": "z"})) == 0
    storage = LocalStorage(grown / "out")

    def pictures(shard: int) -> dict[str, bytes]:
        from gaussianverse.atlas import tar

        data = storage.get(dataset_format.shard_tar(VIEWS, shard))
        found = {m.name: data[m.offset : m.offset + m.nbytes] for m in tar.index(data)}
        return {name: held for name, held in found.items() if name.endswith((".png", ".npz"))}

    new = pictures(3) | pictures(4)
    assert len(new) == 9
    assert {**pictures(0), **pictures(1), **new} == {**pictures(0), **pictures(1)}


def test_rows_that_stay_are_found_by_their_addresses_and_sums_hold_for_every_version(grown: Path) -> None:
    write_views(grown / "views" / "f", 7)
    first = check_sums(grown, 1)
    rows = [*rows_of(grown, b={"caption": "another"})[:2], {**rows_of(grown)[0], "uid": "f", "views": "views/f"}]
    assert extend(grown, rows) == 0
    assert extend(grown, None, remove="a\nd\n") == 0
    assert finished_versions(LocalStorage(grown / "out")) == [1, 2, 3]
    assert check_sums(grown, 1) == first
    second, third = check_sums(grown, 2), check_sums(grown, 3)
    assert first - second == set(dataset_format.FINAL) - {"SHA256SUMS", "_SUCCESS"}
    assert {key for key in second - third if not key.startswith("versions/")} == {
        key for key in second if "000000" in key
    }, "no row of shard 0 counts any more"
    assert set(metadata(grown, 3)) == {"b", "c", "e", "f"}
    assert set(samples_of(grown, 3)) == {"b", "c", "f"}
    index = json.loads((grown / "out/versions/0003/index.json").read_text())
    assert (index["version"], index["parent"], index["objects"], index["samples"]) == (3, 2, 4, 3)
    assert index["uids_sha256"] == hashlib.sha256(b"c\nb\nf").hexdigest()
    assert [(s["shard"], s["atlas"]["samples"], s["atlas"]["live"]) for s in index["shards"]] == [
        (1, 2, 1), (2, 0, 0), (3, 2, 2),
    ]  # fmt: skip
    table = pq.read_table(grown / "out/versions/0003/superseded.parquet").to_pylist()
    assert [(r["uid"], r["shard"], r["since"], r["change"], r["atlas_sample"]) for r in table] == [
        ("d", 1, 3, "removed", 1),
    ]  # fmt: skip


def test_mean_and_deviation_are_those_of_the_atlases_that_count(grown: Path) -> None:
    assert extend(grown, None, remove="b\n") == 0
    atlases = [read_npy(held[ATLAS]).astype(np.float64) for held in samples_of(grown, 2).values()]
    assert len(atlases) == 3
    for name, expected in (("atlas_mean.npy", np.mean(atlases, 0)), ("atlas_std.npy", np.std(atlases, 0))):
        found = read_npy((grown / "out/versions/0002" / name).read_bytes())
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_other_views_are_fitted_and_a_quarantined_object_only_if_its_facts_change(grown: Path) -> None:
    write_views(grown / "views" / "f", 7)
    write_views(grown / "views" / "e", 3)
    assert extend(grown, rows_of(grown, a={"views": "views/f"})) == 0
    one, two = metadata(grown, 1), metadata(grown, 2)
    assert two["a"]["input_sha256"] != one["a"]["input_sha256"]
    assert (two["e"]["status"], two["e"]["shard"]) == ("quarantined", 2), "unchanged, it stays as it is"
    assert extend(grown, rows_of(grown, a={"views": "views/f"}, e={"caption": "tried again"})) == 0
    assert metadata(grown, 3)["e"]["status"] == "ok"
    assert open_version(LocalStorage(grown / "out"), 3).identity["changes"]["columns"] == {
        "caption": 1,
        "captions": 1,
    }


def test_a_column_for_all_takes_every_object_over_and_tries_no_quarantined_one_again(grown: Path) -> None:
    without_views(grown)
    assert extend(grown, rows_of(grown, a={"score": 7})[:1], "--default", "score=0") == 0
    found = metadata(grown, 2)
    assert {uid: row["score"] for uid, row in found.items()} == {"a": 7, "b": 0, "c": 0, "d": 0, "e": 0}
    assert found["e"]["reason"] == metadata(grown, 1)["e"]["reason"] == "missing_views"
    version = open_version(LocalStorage(grown / "out"))
    assert (list(version.shards), version.identity["runs"]) == ([3, 4, 5], [2])
    assert version.identity["extras"] == {"score": "integer"}
    check_sums(grown, 2)
    assert extend(grown, rows_of(grown)) == 0, "a manifest of all objects may leave a column out"
    assert "score" not in metadata(grown, 3)["a"]


def test_fits_of_other_settings_need_a_word_and_are_kept_apart(grown: Path, capsys: Captured) -> None:
    more = ["--set", "fit.steps=60"]
    assert extend(grown, rows_of(grown)[:1], *more) == 5
    assert "config.fit.steps is 100 there, 60 here" in capsys.readouterr().err
    assert extend(grown, rows_of(grown)[:1], *more, "--refit") == 0
    found = metadata(grown, 2)
    assert {uid: row["steps"] for uid, row in found.items()} == {"a": 60, "b": 100, "c": 100, "d": 100, "e": -1}
    version = open_version(LocalStorage(grown / "out"))
    old = found["b"]["config_digest"]
    assert list(version.identity["configs"]) == [old]
    card = (grown / "out/versions/0002/README.md").read_text()
    assert "`versions/0002/version.json` holds the whole configuration, and, in `configs`, those" in card
    bearing = version.bearing(old)
    assert bearing is not None
    assert (version.run.fit.steps, bearing.fit.steps, version.bearing("0" * 64)) == (60, 100, None)
    assert extend(grown, None, remove="b\n") == 0
    assert open_version(LocalStorage(grown / "out")).run.fit.steps == 60, "the next version goes on with its parent's"


BAD: list[tuple[list[dict[str, Any]] | None, list[str], str, int, str]] = [
    ([], ["score"], "", 1, "column 'score' is new, and the manifest lacks 3 objects of the dataset"),
    ([], ["sample"], "", 1, "a column cannot be called 'sample'"),
    ([], ["mixed"], "", 1, "'mixed' is text, integer in other rows; a column has one type"),
    (None, [], "z\n", 1, "1 object to remove that this version does not have: 'z'"),
    ([], [], "a\n", 1, "1 object both to remove and in the manifest: 'a'"),
    ([], [], "", 1, "nothing would change"),
    (None, [], "a\nb\nc\nd\ne\n", 1, "nothing would be left"),
    (None, [], "a\nb\nc\nd\n", 1, "no sample would be left"),
    (None, ["--default", "score=1", "--shards", "0"], "", 2, "no shard 0; there are shards 3 to 5"),
    (None, ["--set", "splats.sh=dc"], "a\n", 5, "--refit"),
    (None, ["--set", "atlas.size=32"], "a\n", 5, "atlas.size is 16 there, 32 here"),
    (None, ["--set", "run.shard_size=3"], "a\n", 5, "--reuse"),
    (None, ["--profile", "quick"], "a\n", 5, "--refit"),
    (None, [], "", 2, "nothing given to extend by"),
    ([], ["upper"], "", 1, "'A' and 'a' of the dataset differ in case only"),
    ([], ["faulty"], "", 1, "unknown format 'what'"),
]


@pytest.mark.parametrize(("rows", "more", "remove", "code", "words"), BAD)
def test_what_is_wrong_is_named_and_nothing_is_written(
    grown: Path, capsys: Captured, rows: Any, more: list[str], remove: str, code: int, words: str
) -> None:
    before = files(grown)
    if rows is not None:
        rows = rows_of(grown)[:2]
        extras = {"score": 1, "sample": 1, "mixed": 1}
        rows = [{**row, **{name: extras[name] for name in more if name in extras}} for row in rows]
        if "mixed" in more:
            rows = [*rows, {**rows_of(grown)[2], "mixed": "text"}]
        if "upper" in more:
            rows[0]["uid"] = "A"
        if "faulty" in more:
            rows[0]["format"] = "what"
        more = []
    assert extend(grown, rows, *more, remove=remove) == code
    assert words in capsys.readouterr().err
    assert files(grown) == before


@pytest.mark.parametrize(("value", "kind"), [("abc", "text"), ("1.5", "number")])
def test_a_default_of_another_type_than_its_column_is_named(
    grown: Path, capsys: Captured, value: str, kind: str
) -> None:
    rows = [{**row, "score": 1} for row in rows_of(grown)[:2]]
    assert extend(grown, rows, "--default", f"score={value}") == 1
    assert f"--default score is {kind}, column 'score' of the manifest is integer" in capsys.readouterr().err
    assert not (grown / "out/versions").exists()


def test_an_output_to_reuse_that_is_not_there_is_named_before_a_version_is_begun(
    grown: Path, capsys: Captured
) -> None:
    assert extend(grown, [{**rows_of(grown)[0], "uid": "f"}], "--reuse", str(grown / "nowhere")) == 1
    assert "nowhere" in capsys.readouterr().err
    assert not (grown / "out/versions").exists()


def test_views_of_objects_that_are_taken_over_are_no_proof_that_the_place_of_views_is_gone(grown: Path) -> None:
    shutil.rmtree(grown / "views" / "a")  # the nearest to those of the new object
    rows = [*rows_of(grown, a={"caption": "x"})[:1], {**rows_of(grown)[0], "uid": "ab", "views": "views/ab"}]
    assert extend(grown, rows) == 0
    found = metadata(grown, 2)
    assert (found["a"]["status"], found["a"]["caption"]) == ("ok", "x")
    assert (found["ab"]["status"], found["ab"]["reason"]) == ("quarantined", "missing_views")


def test_a_version_of_which_nothing_came_is_given_up(grown: Path, capsys: Captured) -> None:
    rows = [{**rows_of(grown)[4], "license": "MIT"}]  # its views are missing
    assert extend(grown, rows, remove="a\nb\nc\nd\n") == 1
    err = capsys.readouterr().err
    assert "There is no version 2: give it up with gaussianverse purge" in err
    assert cli.main(["purge", str(grown / "out"), "--unfinished", "--confirm", "0002"]) == 0
    assert extend(grown, rows_of(grown, a={"license": "MIT"})) == 0


def test_a_dry_run_says_the_changes_by_row_and_column_and_writes_nothing(grown: Path, capsys: Captured) -> None:
    before = files(grown)
    rows = [*rows_of(grown, b={"caption": "another"})[:2], {**rows_of(grown)[0], "uid": "f"}]
    assert extend(grown, rows, "--dry-run", remove="c\n") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[:2] == [
        "version 2: 1 added, 1 corrected, 1 removed, 3 unchanged", "columns: caption in 1, captions in 1",
    ]  # fmt: skip
    assert """  corrected b: caption: "a ball: b" -> "another"; captions: ["a ball: b"] -> ["another"]""" in out
    assert "  added     f" in out
    assert "  removed   c" in out
    assert extend(grown, rows, "--dry-run", "--json", remove="c\n") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["version"], found["corrected"], found["columns"]) == (2, 1, {"caption": 1, "captions": 1})
    assert files(grown) == before


def test_lists_of_objects_to_remove_in_any_form(grown: Path, tmp_path: Path) -> None:
    schema = pa.schema([("uid", pa.string()), duplicates.SCHEMA.field("drop")])  # as in its lists
    pq.write_table(pa.table([["a", "b", "c"], [False, True, None]], schema=schema), tmp_path / "list.parquet")
    (tmp_path / "list.csv").write_text("uid,n\nc,1\n")
    assert extend(grown, None, "--remove", str(tmp_path / "list.parquet")) == 0
    assert set(metadata(grown, 2)) == {"a", "c", "d", "e"}
    assert extend(grown, None, "--remove", str(tmp_path / "list.csv")) == 0
    assert set(metadata(grown, 3)) == {"a", "d", "e"}
    version = open_version(LocalStorage(grown / "out"))
    assert (version.run.n_shards, version.identity["runs"]) == (0, [1])


def test_an_output_that_is_not_finished_cannot_be_extended(grown: Path, capsys: Captured) -> None:
    (grown / "out/_SUCCESS").unlink()
    assert extend(grown, None, remove="a\n") == 1
    assert "the dataset is not finished" in capsys.readouterr().err


def test_a_second_plan_for_the_same_version_loses_and_the_first_goes_on(grown: Path, capsys: Captured) -> None:
    rows = rows_of(grown, a={"caption": "first"})
    assert extend(grown, rows) == 0
    whole = files(grown)
    for key in list(whole):  # as if killed after the claim
        if (key.startswith("versions/0002/") and not key.endswith("version.json")) or "000003" in key:
            (grown / "out" / key).unlink()
    assert extend(grown, rows_of(grown, a={"caption": "second"})) == 5
    assert "version 2 is another one" in capsys.readouterr().err
    assert extend(grown, None, remove="b\n") == 5
    assert "purge" in capsys.readouterr().err
    assert extend(grown, rows, "--note", "no matter") == 0
    kept = {key: value for key, value in files(grown).items() if layout.in_dataset(key)}
    assert kept == {key: value for key, value in whole.items() if layout.in_dataset(key)}


def test_fragments_of_a_version_that_was_given_up_are_made_again(grown: Path) -> None:
    before, added = files(grown), {**rows_of(grown)[1], "uid": "f"}
    more = ("--refit", "--set", "fit.steps=60")
    assert extend(grown, [*rows_of(grown, a={"caption": "first"})[:1], added]) == 0
    for key in set(files(grown)) - set(before):  # as if its driver had lived on while it was given up
        if not key.startswith("_work"):
            (grown / "out" / key).unlink()
    assert any(key.startswith("_work/") for key in set(files(grown)) - set(before))
    run_file.load_cached.cache_clear()  # workers of another driver are other processes
    assert extend(grown, [*rows_of(grown, a={"caption": "second"})[:1], added], *more) == 0
    found = metadata(grown, 2)
    assert (found["a"]["caption"], found["f"]["steps"]) == ("second", 60)
    storage = LocalStorage(grown / "out")
    assert list(verify(storage, open_version(storage).run)) == []


def test_diff_says_what_changed_between_any_two_versions(grown: Path, capsys: Captured) -> None:
    assert extend(grown, rows_of(grown, b={"caption": "x"}, c={"license": "MIT"})) == 0
    assert extend(grown, None, "--default", "score=1.5", remove="a\n") == 0
    capsys.readouterr()
    out = str(grown / "out")
    assert cli.main(["diff", out, "--from", "1", "--to", "2"]) == 0
    text = capsys.readouterr().out
    assert "version 1 to 2: 0 added, 0 removed, 2 changed" in text
    assert """  changed  b: caption: "a ball: b" -> "x"; captions: ["a ball: b"] -> ["x"]""" in text
    assert cli.main(["diff", out, "--from", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["to"], found["removed"], found["added"], found["changed"]) == (3, ["a"], [], 4)
    assert found["columns"] == {"caption": 1, "license": 1, "captions": 1, "score": 4}
    assert {c["uid"]: c["columns"] for c in found["first"]}["c"] == {
        "license": ["CC0-1.0", "MIT"],
        "score": [None, 1.5],
    }
    assert cli.main(["diff", out]) == 0
    assert "version 2 to 3: 0 added, 1 removed, 4 changed" in capsys.readouterr().out
    assert cli.main(["diff", out, "--to", "1"]) == 2
    assert "version 1 is the first, and has no parent" in capsys.readouterr().err
    assert cli.main(["diff", out, "--to", "9"]) == 1
    assert "no version 9; finished versions: 1, 2, 3" in capsys.readouterr().err


def test_the_first_line_counts_what_is_taken_over(grown: Path, capsys: Captured) -> None:
    write_views(grown / "views" / "f", 7)
    rows = [*rows_of(grown, b={"caption": "x"})[1:2], {**rows_of(grown)[0], "uid": "f", "views": "views/f"}]
    assert extend(grown, rows) == 0
    assert "2 objects, 1 of them taken over, 1 at a time" in capsys.readouterr().err
