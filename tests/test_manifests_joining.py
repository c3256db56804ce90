"""Joins onto manifests: keys of every form, types, captions, lists, what did not match; nothing written on error."""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gaussianverse.manifests import authored, cli, jsonl
from gaussianverse.manifests.schema import Row

HEX = [f"{k:02x}" * 16 for k in (17, 34, 51)]
SHA = [f"{k:02x}" * 32 for k in (17, 34, 51)]
INDEX = ["0/10010", "0/10013", "148/753974"]


def call(*argv: object) -> int:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return cli.run(parser.parse_args([str(arg) for arg in argv]))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Three objects of GObjaverse; the last one's Objaverse uid is not known."""
    rows = [
        Row(uid=index.replace("/", "_"), views=f"views/{index}", source_id=f"objaverse/{uid}", caption=f"old {index}")
        for index, uid in zip(INDEX, HEX, strict=True)
    ]
    rows[2] = Row(uid="148_753974", views="views/148/753974", source_id="gobjaverse/148/753974", caption="old")
    jsonl.write(tmp_path / "base.jsonl", rows)
    return tmp_path / "base.jsonl"


def write(path: Path, columns: dict[str, list[Any]]) -> Path:
    names = list(columns)
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".csv":
        cells = [",".join("" if v is None else str(v) for v in row.values()) for row in rows]
        path.write_text("\n".join([",".join(names), *cells]) + "\n")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps(rows))
    return path


def joined(base: Path, *argv: object) -> dict[str, Row]:
    out = base.parent / "out.jsonl"
    assert call("build", out, "--from", base, "--force", *argv) == 0
    assert authored.read(out, strict=True).faults == []
    return {row.uid: row for row in jsonl.read(out)}


def refused(base: Path, capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    out, unmatched = base.parent / "out.jsonl", base.parent / "unmatched.jsonl"
    before = sorted(base.parent.iterdir())
    capsys.readouterr()
    assert call("build", out, "--from", base, "--unmatched", unmatched, *argv) == 1
    assert sorted(base.parent.iterdir()) == before, "nothing is written"
    return capsys.readouterr().err


KEYS: dict[str, list[str]] = {
    "uid": ["0_10010", "0_10013", "148_753974"],
    "index": INDEX,
    "objaverse": HEX,
    "file": [f"000-012/{uid}.glb" for uid in HEX],
    "address": [f"https://sketchfab.com/3d-models/a-chair-{uid}" for uid in HEX],
    "sha256": SHA,
}


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl", ".json"])
@pytest.mark.parametrize("form", KEYS)
def test_keys_of_every_form_find_their_objects(form: str, suffix: str, base: Path) -> None:
    mapping = base.parent / "map.json"
    mapping.write_text(json.dumps({index: f"000-000/{uid}.glb" for index, uid in zip(INDEX, HEX, strict=True)}))
    sums = write(base.parent / "sums.csv", {"sha256": SHA, "file_identifier": KEYS["address"]})
    order = [2, 0, 1]
    columns = {"k": [KEYS[form][i] for i in order], "score": [[1, 2, 3][i] for i in order], "ok": [True, False, True]}
    table = write(base.parent / f"scores{suffix}", columns)
    rows = joined(base, "--join", table, "--on", "k", "--map", mapping, "--map", sums)
    assert [row.extras for row in rows.values()] == [
        {"score": 1, "ok": False}, {"score": 2, "ok": True}, {"score": 3, "ok": True},
    ]  # fmt: skip
    assert [type(row.extras["score"]) for row in rows.values()] == [int] * 3


def test_left_says_whose_names_the_keys_are(base: Path) -> None:
    table = write(base.parent / "t.csv", {"old_caption": ["old", "old 0/10010", "old 0/10013"], "n": [1, 2, 3]})
    rows = joined(base, "--join", table, "--on", "caption=old_caption")
    assert [row.extras["n"] for row in rows.values()] == [2, 3, 1]
    by_index = write(base.parent / "u.csv", {"where": INDEX, "n": [4, 5, 6]})
    assert joined(base, "--join", by_index, "--on", "index=where")["0_10013"].extras == {"n": 5}


def test_maps_are_a_chain_in_any_order(base: Path) -> None:
    """The sums are of Objaverse's uids, which for the last object only the other map tells."""
    sums = write(base.parent / "sums.jsonl", {"uid": HEX, "sha256": SHA})
    mapping = base.parent / "map.json"
    mapping.write_text(json.dumps({INDEX[2]: f"000-000/{HEX[2]}.glb"}))
    table = write(base.parent / "t.csv", {"sum": SHA, "n": [1, 2, 3]})
    for one, other in ((sums, mapping), (mapping, sums)):
        rows = joined(base, "--map", one, "--map", other, "--join", table, "--on", "sum")
        assert [row.extras["n"] for row in rows.values()] == [1, 2, 3]


def test_rows_with_one_key_do_not_shift_the_others(base: Path) -> None:
    uids = ["0_10013", "0_10010", "0_10013", "148_753974", "0_10010"]
    file = write(base.parent / "t.csv", {"id": uids, "caption": list("abcde")})
    for on in ("id", "uid=id"):
        rows = joined(base, "--join", file, "--on", on)
        assert [row.captions for row in rows.values()] == [("b", "e"), ("a", "c"), ("d",)]


def test_cap3ds_files_join_as_they_are(tmp_path: Path) -> None:
    index = tmp_path / "gobjaverse_280k.json"
    index.write_text(json.dumps(INDEX[:2]))
    mapping = tmp_path / "gobjaverse_280k_index_to_objaverse.json"
    mapping.write_text(json.dumps({i: f"000-000/{u}.glb" for i, u in zip(INDEX, HEX, strict=True)}))
    cap3d = tmp_path / "Cap3D.csv"
    cap3d.write_text(f'{HEX[1]},"a lantern, old"\n{HEX[0]},a street sign\n{HEX[2]},a shield\n')
    radii = tmp_path / "camera_distances.json"
    radii.write_text(json.dumps({INDEX[0]: 1.73, INDEX[1]: 2}))
    out, unmatched = tmp_path / "m.jsonl", tmp_path / "unmatched.jsonl"
    argv = ["--index", index, "--views", "/d/{index}", "--all-categories", "--objaverse-map", mapping]
    argv += ["--join", cap3d, "--on", "uid", "--caption-source", "Cap3D"]
    argv += ["--join", radii, "--on", "key", "--take", "radius=value", "--unmatched", unmatched]
    assert call("build", out, *argv) == 0
    found = {row.uid: row for row in jsonl.read(out)}
    assert (found["0_10013"].caption, found["0_10013"].caption_source) == ("a lantern, old", "Cap3D")
    assert found["0_10010"].extras == {"radius": 1.73}
    assert found["0_10013"].extras == {"radius": 2.0}
    lines = [json.loads(line) for line in unmatched.read_text().splitlines()]
    assert lines == [{"file": str(cap3d), "key": HEX[2], "missing": "manifest"}]


def test_several_captions_from_lists_rows_and_files(base: Path) -> None:
    lists = base.parent / "lists.parquet"
    pq.write_table(
        pa.table({"uid": HEX[:2], "captions": [["a", "b", "a", ""], None], "caption_source": ["X", "X"]}), lists
    )
    rows_of = write(base.parent / "rows.csv", {"key": [INDEX[0], INDEX[1], INDEX[0]], "caption": ["c", "d", "a"]})
    written = base.parent / "trellis.csv"
    written.write_text(f'sha,captions\n{INDEX[2]},"[""long, text"", ""short""]"\n')
    found = joined(
        base, "--join", lists, "--on", "uid", "--join", rows_of, "--on", "key", "--caption-source", "Y",
        "--join", written, "--on", "sha",
    )  # fmt: skip
    first, second, third = found.values()
    assert (first.captions, first.caption_sources) == (("a", "b", "c"), ("X", "X", "Y"))
    assert (first.caption, first.caption_source) == ("a", "X")
    assert (second.captions, second.caption_sources) == (("d",), ("Y",))
    assert third.captions == ("long, text", "short")


def test_values_replace_where_the_file_has_them_and_defaults_stand_elsewhere(base: Path) -> None:
    table = write(
        base.parent / "t.csv",
        {
            "uid": HEX[:2],
            "license": ["CC0-1.0", None],
            "split": ["val", "train"],
            "score": [None, 0.5],
            "id": ["007", 1],
        },
    )
    found = joined(
        base, "--join", table, "--on", "uid", "--text", "id", "--default", "score=-1.0", "--default", "id=none"
    )
    assert [(r.license, r.split, r.extras["score"], r.extras["id"]) for r in found.values()] == [
        ("CC0-1.0", "val", -1.0, "007"), ("", "train", 0.5, "1"), ("", "", -1.0, "none"),
    ]  # fmt: skip
    assert list(joined(base, "--join", table, "--on", "uid", "--take", "license", "--licenses", "CC0-1.0")) == [
        "0_10010"
    ]


def test_lists_keep_and_drop_and_all_that_does_not_match_is_told(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = base.parent / "keep.txt"
    keep.write_text(f"{INDEX[0]}\n\n{HEX[1]}\nnobody\n")
    drop = write(base.parent / "same.parquet", {"uid": ["0_10010", "0_10013"], "drop": [False, True]})
    scores = write(base.parent / "scores.parquet", {"uid": [HEX[0], "f" * 32], "score": [1.0, 2.0]})
    unmatched = base.parent / "unmatched.jsonl"
    argv = ["--keep", keep, "--drop", drop, "--join", scores, "--on", "uid", "--unmatched", unmatched, "--json"]
    capsys.readouterr()
    assert list(joined(base, *argv)) == ["0_10010"]
    told = json.loads(capsys.readouterr().out)
    assert told["left_out"] == {"not in keep.txt": 1, "in same.parquet": 1}
    assert told["files"] == {
        str(keep): {"matched": 2, "not_in_manifest": 1},
        str(drop): {"matched": 1, "not_in_manifest": 0},
        str(scores): {"matched": 1, "not_in_manifest": 1, "not_in_file": 2},
    }
    assert [json.loads(line) for line in unmatched.read_text().splitlines()] == [
        {"file": str(keep), "key": "nobody", "missing": "manifest"},
        {"file": str(scores), "key": "f" * 32, "missing": "manifest"},
        {"file": str(scores), "uid": "0_10013", "missing": "file"},
        {"file": str(scores), "uid": "148_753974", "missing": "file"},
    ]
    assert list(joined(base, "--drop", keep)) == ["148_753974"]


def test_a_manifest_of_either_form_goes_on_and_its_views_stay_where_they_are(base: Path) -> None:
    assert call("shard", base, base.parent / "objects.parquet") == 0
    table = write(base.parent / "t.jsonl", {"uid": HEX[:2] + INDEX[2:], "n": [1, 2, 3]})
    plain = joined(base, "--join", table, "--on", "uid")
    out = base.parent / "deeper" / "out.jsonl"
    assert call("build", out, "--from", base, "--join", table, "--on", "uid") == 0
    assert [row.views for row in jsonl.read(out)] == [f"../{row.views}" for row in plain.values()]
    assert (
        call("build", out, "--force", "--from", base.parent / "objects.parquet", "--join", table, "--on", "uid") == 0
    )
    assert {row.uid: row.extras for row in jsonl.read(out)} == {uid: row.extras for uid, row in plain.items()}


def table(columns: dict[str, list[Any]], name: str = "t.jsonl") -> Callable[[Path], list[object]]:
    return lambda folder: ["--join", write(folder / name, columns), "--on", "uid"]


def text(data: str, name: str, *more: object) -> Callable[[Path], list[object]]:
    def made(folder: Path) -> list[object]:
        (folder / name).write_text(data)
        return ["--join", folder / name, "--on", "uid", *more]

    return made


WRONG: dict[str, tuple[Callable[[Path], list[object]], str]] = {
    "two types": (table({"uid": HEX, "n": [1, "x", 2]}), r"column 'n' is integer in row 1 and text in row 2"),
    "two types in CSV": (table({"uid": HEX, "n": [1, "x", 2]}, "t.csv"), "most rows, and 'x' in row 2; .* --text n"),
    "reserved": (table({"uid": HEX, "psnr": [1, 2, 3]}), "column 'psnr' is reserved"),
    "views": (table({"uid": HEX, "views": ["a", "b", "c"]}), "column 'views' is reserved"),
    "no name": (table({"uid": HEX, "a b": [1, 2, 3]}), "'a b' is reserved or no name"),
    "key twice": (
        table({"uid": [HEX[0], HEX[1], f"x/{HEX[0]}.glb"], "n": [1, 2, 3]}),
        "is not unique: rows 1 and 3; only captions",
    ),
    "captions beside others twice": (
        table({"uid": [HEX[0], HEX[0]], "caption": ["a", "b"], "n": [1, 2]}),
        "only captions may come in several rows",
    ),
    "two keys of one object": (table({"uid": ["0_10010", INDEX[0]], "n": [1, 2]}), "both name the object '0_10010'"),
    "no key": (table({"uid": [HEX[0], None], "n": [1, 2]}), "row 2 has no key"),
    "lacking": (
        table({"uid": HEX[:1], "n": [1]}),
        "'n': 2 of 3 objects have no value, such as '0_10013'; --default n=",
    ),
    "no match": (
        table({"uid": ["x"], "n": [1]}),
        "none of its 1 keys, such as 'x', names an object, such as '0_10010'",
    ),
    "no column": (text('{"k": "x", "n": 1}\n', "t.jsonl"), "no column 'uid'; it has k, n"),
    "split": (table({"uid": HEX[:1], "split": ["training"]}), "object '0_10010': unknown split 'training'"),
    "nested": (table({"uid": HEX[:2], "n": [{"a": 1}, {"a": 2}]}), "column 'n' has the type struct"),
    "infinite": (text(f'{{"uid": "{HEX[0]}", "caption": 7}}\n', "t.jsonl"), "'caption' has int64, expected texts"),
    "json": (text("{", "t.json"), "t.json: invalid JSON"),
    "jsonl": (text(f'{{"uid": "{HEX[0]}"}}\nx\n', "t.jsonl"), "t.jsonl:2: invalid JSON"),
    "parquet": (text("x", "t.parquet"), "cannot be read as parquet"),
    "ragged CSV": (text("uid,n\na,1,2\n", "t.csv"), "cannot be read as csv"),
    "bare CSV": (text(f"{HEX[0]},1,2\n", "t.csv"), "3 columns without a header"),
    "suffix": (text("x", "t.xlsx"), "expected .parquet, .csv, .json"),
    "unnamed values": (
        text(json.dumps({HEX[0]: 1}), "t.json", "--on", "key"),
        "--take NAME=value says what they are",
    ),
    "missing": (lambda folder: ["--join", folder / "none.csv", "--on", "uid"], "none.csv"),
    "no --on": (text("uid,n\na,1\n", "t.csv", "--on", ""), "--on says which of its columns has the keys: uid, n"),
    "left": (text("uid,n\na,1\n", "t.csv", "--on", "nothing=uid"), "no row of the manifest has a column 'nothing'"),
    "take": (text(f"uid,n\n{HEX[0]},1\n", "t.csv", "--take", "m"), "no column 'm'; it has uid, n"),
    "take twice": (text(f"uid,n\n{HEX[0]},1\n", "t.csv", "--take", "m=n", "m=uid"), "--take gives 'm' twice"),
    "another --on": (text(f"uid,n\n{HEX[0]},1\n", "t.csv", "--on", "id"), "no column 'id'; it has uid, n"),
    "semicolons": (text(f"uid;n\n{HEX[0]};1\n", "t.csv"), "no column 'uid'; it has uid;n"),
    "open quote": (text(f'uid,caption\n{HEX[0]},"a\n{HEX[1]},b\n', "t.csv"), "unexpected end of data.* line 3"),
    "quote within": (text(f'uid,caption\n{HEX[0]},"a\n{HEX[1]},"b"\n', "t.csv"), "expected after '\"'.* line 3"),
    "sources alone": (table({"uid": HEX[:1], "caption_source": ["a"]}), "sources of captions without captions"),
    "no rows": (text("uid,n\n", "t.csv"), "t.csv: no rows"),
    "nothing": (text("[]", "t.json"), "t.json: no rows"),
    "keys of lists": (table({"uid": [[HEX[0]]], "n": [1]}), r"keys have the type list<.*>, expected texts"),
    "half a character": (text(f'{{"uid": "{HEX[0]}", "n": "\\ud800"}}\n', "t.jsonl"), "column 'n': .*surrogates"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_what_is_wrong_has_a_name_and_nothing_is_written(
    fault: str, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, expected = WRONG[fault]
    argv = made(base.parent)
    error = refused(base, capsys, *argv)
    assert re.search(expected, error), error
    assert "Traceback" not in error


def test_faults_between_files_and_of_lists(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write(base.parent / "one.csv", {"uid": [*HEX[:2], INDEX[2]], "n": [1, 2, 3]})
    other = write(base.parent / "other.csv", {"uid": [*HEX[:2], INDEX[2]], "n": ["a", "b", "c"]})
    error = refused(base, capsys, "--join", one, "--on", "uid", "--join", other, "--on", "uid")
    assert f"column 'n' comes from {one} and from {other}" in error
    given = joined(base, "--join", one, "--on", "uid")
    assert given["0_10010"].extras == {"n": 1}
    first = base.parent / "first.jsonl"
    (base.parent / "out.jsonl").rename(first)
    error = refused(first, capsys, "--join", write(other, {"uid": HEX[:1], "n": ["a"]}), "--on", "uid")
    assert "column 'n' is text for '0_10010' and integer for '0_10013'; a column has one type" in error
    same = write(base.parent / "same.parquet", {"uid": ["0_10010"], "drop": [True]})
    assert "pass it to --drop" in refused(base, capsys, "--keep", same)
    assert "no object is left by --keep and --drop" in refused(base, capsys, "--drop", base)
    both = write(base.parent / "both.csv", {"a": ["x"], "b": ["y"]})
    assert "several columns and no 'uid'" in refused(base, capsys, "--keep", both)
    twice = base.parent / "map.json"
    twice.write_text(json.dumps([{"a": INDEX[2], "b": HEX[2]}, {"a": INDEX[2], "b": HEX[1]}]))
    error = refused(base, capsys, "--map", twice, "--join", one, "--on", "uid")
    assert "gives '148/753974' two names of the form objaverse" in error


def test_a_column_of_a_csv_has_the_type_of_all_that_is_there(base: Path) -> None:
    columns = {"uid": HEX[:2] + INDEX[2:], "flag": ["true", None, "False"], "code": ["007", "010", "1"]}
    numbers = {"n": [1, None, 3], "x": [0.5, "nan", 2], "caption": [7, 8, 9]}
    file = write(base.parent / "t.csv", {**columns, **numbers})
    defaults = ["flag=false", "n=-1", "x=-1.0"]
    argv = ["--join", file, "--on", "uid", "--text", "code", *(f"--default={one}" for one in defaults)]
    found = joined(base, *argv)
    assert [row.extras for row in found.values()] == [
        {"flag": True, "code": "007", "n": 1, "x": 0.5},
        {"flag": False, "code": "010", "n": -1, "x": -1.0},
        {"flag": False, "code": "1", "n": 3, "x": 2.0},
    ]
    assert [row.caption for row in found.values()] == ["7", "8", "9"]
    codes = write(base.parent / "codes.csv", {"uid": HEX[:2] + INDEX[2:], "code": ["007", "010", "011"]})
    assert joined(base, "--join", codes, "--on", "uid")["0_10010"].extras == {"code": "007"}


@pytest.mark.parametrize("name", ["t.json", "t.jsonl", "t.csv"])
def test_columns_that_are_not_taken_may_have_any_values(base: Path, name: str) -> None:
    any_values = [1, 2, "x"] if name == "t.csv" else [1, "x", {"a": [[1]]}]
    file = write(base.parent / name, {"uid": HEX[:2] + INDEX[2:], "m": [1, 2, 3], "any": any_values})
    found = joined(base, "--join", file, "--on", "uid", "--take", "n=m")
    assert [row.extras for row in found.values()] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert len(joined(base, "--keep", file, "--on", "uid")) == 3


def test_an_object_by_key_keeps_its_keys(base: Path) -> None:
    file = base.parent / "t.json"
    file.write_text(json.dumps({HEX[0]: {"key": "other", "n": 1}}))
    found = joined(base, "--join", file, "--on", "key", "--default", "n=0")
    assert [row.extras["n"] for row in found.values()] == [1, 0, 0]


def test_lists_of_nothing(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a dataset without duplicates the list is empty, and drops nothing."""
    none = write(base.parent / "same.parquet", {"uid": pa.array([], pa.string()), "drop": pa.array([], pa.bool_())})
    assert len(joined(base, "--drop", none)) == 3
    (base.parent / "out.jsonl").unlink()
    bare = base.parent / "bare.csv"
    for first, words in (("0_10010", "its first line, '0_10010', is a key"), (HEX[0], "one column without a header")):
        bare.write_text(f"{first}\n0_10013\n")
        assert words in refused(base, capsys, "--drop", bare)
    (base.parent / "none.json").write_text("[]")
    assert "none.json: no rows" in refused(base, capsys, "--keep", base.parent / "none.json")


def test_no_file_that_is_there_or_read_is_replaced(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep, out = base.parent / "keep.txt", base.parent / "out.jsonl"
    keep.write_text("0_10010\n")
    before = base.read_bytes()
    for more, words in (
        (["--unmatched", base], "exists; pass --force"),
        (["--unmatched", base, "--force"], "is read, and would be replaced"),
        (["--unmatched", out], "is the manifest to write"),
    ):
        assert call("build", out, "--from", base, "--keep", keep, *more) == 1
        assert words in capsys.readouterr().err
        assert not out.exists()
    assert call("build", keep, "--from", base, "--keep", keep, "--force") == 1
    assert base.read_bytes() == before
    assert keep.read_text() == "0_10010\n"
    missing = base / "no folder" / "unmatched.jsonl"
    assert call("build", out, "--from", base, "--keep", keep, "--unmatched", missing) == 1
    assert not out.exists()
    assert call("build", base, "--from", base, "--keep", keep, "--force") == 0
    assert [row.uid for row in jsonl.read(base)] == ["0_10010"]


def test_wrong_usage(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call("build", base.parent / "o.jsonl", "--from", base, "--on", "uid")
    assert ended.value.code == 2
    assert "--on belongs to the --join, --keep or --drop before it" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call("build", base.parent / "o.jsonl", "--from", base, "--keep", base, "--take", "n")
    assert "--take belongs to a --join" in capsys.readouterr().err
    assert call("build", base.parent / "o.jsonl", "--from", base, "--views", "/d") == 2
    assert "--views: not allowed with --from" in capsys.readouterr().err
