"""Command line of `manifest build | check | shard`."""

import argparse
import json
from pathlib import Path

import pytest

from gaussianverse.manifests import cli, jsonl, runform
from gaussianverse.manifests.check import Probe


def call(*argv: object, probe: Probe | None = None) -> int:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return cli.run(parser.parse_args([str(arg) for arg in argv]), probe)


def test_build_from_folders_check_and_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / "data" / name).mkdir(parents=True)
    (tmp_path / "captions.json").write_text('{"a": "x", "b": "y", "c": "z"}')
    manifest = tmp_path / "m.jsonl"
    assert call("build", manifest, "--folder", tmp_path / "data", "--captions", tmp_path / "captions.json") == 0
    assert call("check", manifest) == 0
    assert call("shard", manifest, tmp_path / "out" / "objects.parquet", "--shard-size", 2) == 0
    assert "3 objects in 2 shards" in capsys.readouterr().out
    (last,) = runform.read_shard(tmp_path / "out" / "objects.parquet", 1)
    assert (last.uid, last.views, last.caption) == ("c", str((tmp_path / "data" / "c").resolve()), "z")


def test_build_from_index_says_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for category, index in (("Food", "1/1"), ("Poor-quality", "1/2")):
        (tmp_path / f"gobjaverse_280k_{category}.json").write_text(json.dumps([index]))
    indices = sorted(tmp_path.glob("*.json"))
    manifest = tmp_path / "m.jsonl"
    assert call("build", manifest, "--index", *indices) == 2
    assert "--views" in capsys.readouterr().err
    assert call("build", manifest, "--index", *indices, "--views", "/data/{index}") == 0
    assert "left out: 1 (category Poor-quality)" in capsys.readouterr().out
    assert [row.uid for row in jsonl.read(manifest)] == ["1_1"]
    everything = ["--index", *indices, "--views", "/data/{index}", "--all-categories"]
    assert call("build", manifest, *everything, "--force") == 0
    assert len(jsonl.read(manifest)) == 2


def test_build_replaces_a_manifest_only_by_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("written by hand\n")
    assert call("build", manifest, "--folder", tmp_path / "data") == 1
    assert "m.jsonl exists; pass --force" in capsys.readouterr().err
    assert manifest.read_text() == "written by hand\n"
    assert call("build", manifest, "--folder", tmp_path / "data", "--force") == 0
    assert [row.uid for row in jsonl.read(manifest)] == ["a"]


@pytest.mark.parametrize(
    ("source", "flags"),
    [
        ("--folder", ["--views", "/data/{index}"]),
        ("--folder", ["--objaverse-map", "map.json"]),
        ("--folder", ["--category-file", "c.json"]),
        ("--folder", ["--categories", "Food"]),
        ("--folder", ["--all-categories"]),
        ("--folder", ["--drop-uncaptioned"]),
        ("--index", ["--views", "/data/{index}", "--category", "Food"]),
        ("--index", ["--views", "/data/{index}", "--caption-source", "me"]),
    ],
)
def test_flags_of_the_other_source_are_wrong_usage(
    source: str, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    assert call("build", tmp_path / "m.jsonl", source, tmp_path / "data", *flags) == 2
    flag = [flag for flag in flags if flag.startswith("--")][-1]
    assert f"error: {flag}: not allowed with {source}" in capsys.readouterr().err
    assert not (tmp_path / "m.jsonl").exists()


def test_check_reports_on_stdout_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"uid": "a/b", "views": "v", "caption": "c"}\n')
    assert call("check", manifest, "--json") == 1
    (fault,) = json.loads(capsys.readouterr().out)["faults"]
    assert fault.startswith(f"{manifest}:1: uid 'a/b'")
    assert call("shard", manifest, tmp_path / "o.parquet") == 1
    assert f"error: {manifest}:1: uid 'a/b'" in capsys.readouterr().err
    assert not (tmp_path / "o.parquet").exists()


def test_probe_needs_a_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"uid": "a", "views": "v", "caption": "c"}\n')
    assert call("check", manifest, "--probe", 1) == 2

    def probe(row: object) -> None:
        raise FileNotFoundError("no views")

    assert call("check", manifest, "--probe", 1, probe=probe) == 1
    assert "FileNotFoundError: no views" in capsys.readouterr().out


def test_unwritable_output_is_an_error_and_not_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"uid": "a", "views": "v", "caption": "c"}\n')
    assert call("shard", manifest, manifest / "below" / "objects.parquet") == 1
    assert "error:" in capsys.readouterr().err
    assert call("shard", manifest, tmp_path / "o.parquet", "--shard-size", 0) == 2


def test_build_counts_what_it_leaves_out_also_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    for name in ("b.zip", "c.zip", "d.txt"):
        (tmp_path / "data" / name).touch()
    assert call("build", tmp_path / "m.jsonl", "--folder", tmp_path / "data") == 0
    lines = capsys.readouterr().out.splitlines()
    unpack = ".zip files, which are not read: unpack them, or pack them as .tar"
    assert lines == [f"3 left out: 1 .txt files; 2 {unpack}", f"1 objects in {tmp_path / 'm.jsonl'}"]
    assert call("build", tmp_path / "n.jsonl", "--folder", tmp_path / "data", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "manifest": str(tmp_path / "n.jsonl"), "objects": 1, "left_out": {".txt files": 1, unpack: 2},
    }  # fmt: skip
