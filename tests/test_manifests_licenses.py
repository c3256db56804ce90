"""Licences: spellings, the filter on the command line, and the card of a filtered dataset."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_runs import publish_all

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.configuration import from_table
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.manifests import cli, jsonl, licenses, runform
from gaussianverse.manifests.check import check
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.schema import Row
from gaussianverse.pipeline.config import RunConfig
from gaussianverse.pipeline.dataset import layout, pack, run_file
from gaussianverse.pipeline.dataset.finalize import finalize

MIXED = ["CC0-1.0", "CC-BY-4.0", "CC-BY-NC-4.0", "", "cc-by-4.0", "LicenseRef-public-domain", "CC0-1.0"]


def call(*argv: object) -> int:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return cli.run(parser.parse_args([str(arg) for arg in argv]))


def mixed(folder: Path) -> Path:
    path = folder / "mixed.jsonl"
    jsonl.write(path, [Row(f"o{i}", f"v/o{i}", license=name, caption="c") for i, name in enumerate(MIXED)])
    return path


@pytest.mark.parametrize(
    ("spelling", "meant"),
    [
        ("cc-by-4.0", "CC-BY-4.0"), ("CC BY 4.0", "CC-BY-4.0"), ("by", "CC-BY-4.0"), ("by-nc-sa", "CC-BY-NC-SA-4.0"),
        ("CC0", "CC0-1.0"), ("CC-BY", "CC-BY-4.0"), ("cc_by_sa_3.0", "CC-BY-SA-3.0"), ("Apache 2.0", "Apache-2.0"),
        ("odbl-1.0", "ODbL-1.0"), ("CC-BY-4", "CC-BY-4.0"),
    ],
)  # fmt: skip
def test_an_unknown_spelling_is_named_with_what_was_meant(spelling: str, meant: str) -> None:
    assert not licenses.is_spdx(spelling)
    assert licenses.described(spelling) == f"license {spelling!r}, an unknown spelling; did you mean {meant}?"
    with pytest.raises(ManifestError, match=f"did you mean {meant}"):
        licenses.check_wanted([spelling], {"CC0-1.0"})


@pytest.mark.parametrize("wanted", ["cc-by-4.0", ""])
def test_a_filter_refuses_a_misspelled_licence_though_others_leave_rows(wanted: str) -> None:
    rows = [Row("a", "v", license="CC-BY-4.0"), Row("b", "v", license="CC0-1.0")]
    with pytest.raises(ManifestError, match="give SPDX identifiers"):
        licenses.keep(rows, ["CC0-1.0", wanted])


@pytest.mark.parametrize("name", ["all rights reserved", "?"])
def test_nothing_is_guessed_of_what_resembles_nothing(name: str) -> None:
    assert licenses.described(name) == f"license {name!r}, an unknown spelling"


def test_known_spellings_and_those_of_the_rows_may_be_wanted() -> None:
    licenses.check_wanted(["CC0-1.0", "LicenseRef-public-domain", "by"], {"by"})
    with pytest.raises(ManifestError) as caught:
        licenses.check_wanted(["CC0-1.0", "", "nonsense", "by", "LicenseRef-"], {"CC0-1.0"})
    assert len(caught.value.faults) == 4


@given(
    st.lists(st.sampled_from(sorted({*MIXED})), min_size=1, max_size=20),
    st.sets(st.sampled_from([*licenses.SPDX[:12], "LicenseRef-public-domain"]), min_size=1),
)
def test_the_filter_divides_the_rows(names: list[str], wanted: set[str]) -> None:
    rows = [Row(f"o{i}", "v", license=name) for i, name in enumerate(names)]
    if not wanted & set(names):
        with pytest.raises(ManifestError, match="no object is under"):
            licenses.keep(rows, wanted)
        return
    kept = licenses.keep(rows, wanted)
    assert kept.rows == [row for row in rows if row.license in wanted]
    assert sum(kept.left_out.values()) == len(rows) - len(kept.rows)
    assert not set(kept.left_out) & wanted


def test_shard_says_what_it_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "objects.parquet"
    assert call("shard", mixed(tmp_path), out, "--licenses", "CC0-1.0", "CC-BY-4.0") == 0
    assert capsys.readouterr().out.splitlines() == [
        "left out: 1 (no license stated)",
        "left out: 1 (license CC-BY-NC-4.0)",
        "left out: 1 (license LicenseRef-public-domain)",
        "left out: 1 (license 'cc-by-4.0', an unknown spelling; did you mean CC-BY-4.0?)",
        f"3 objects in 1 shards in {out}",
    ]
    rows = runform.read_shard(out, 0)
    assert [(row.index, row.uid, row.license) for row in rows] == [
        (0, "o0", "CC0-1.0"), (1, "o1", "CC-BY-4.0"), (2, "o6", "CC0-1.0"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "word"), [("CC-BY4.0", "did you mean CC-BY-4.0"), ("MIT", "no object is under MIT; the manifest has")]
)
def test_a_filter_that_would_keep_nothing_is_an_error(
    wanted: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("shard", mixed(tmp_path), tmp_path / "o.parquet", "--licenses", wanted) == 1
    assert word in capsys.readouterr().err
    assert not (tmp_path / "o.parquet").exists()


def test_build_takes_the_licence_of_each_object_and_keeps_the_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index, known, names = tmp_path / "gobjaverse_280k_Food.json", tmp_path / "l.json", tmp_path / "map.json"
    index.write_text(json.dumps(["1/1", "1/2", "1/3", "1/4"]))
    names.write_text(json.dumps({"1/2": "000-001/abc.glb"}))
    known.write_text(json.dumps({"1/1": "CC0-1.0", "abc": "CC-BY-4.0", "1/3": "CC-BY-NC-4.0"}))
    command = ["--index", index, "--views", "/d/{index}", "--license-file", known, "--objaverse-map", names]
    assert call("build", tmp_path / "m.jsonl", *command, "--licenses", "CC0-1.0", "CC-BY-4.0") == 0
    assert [(r.uid, r.license) for r in jsonl.read(tmp_path / "m.jsonl")] == [
        ("1_1", "CC0-1.0"), ("1_2", "CC-BY-4.0"),
    ]  # fmt: skip
    told = capsys.readouterr().out
    assert "left out: 1 (license CC-BY-NC-4.0)" in told
    assert "left out: 1 (no license stated)" in told
    assert call("build", tmp_path / "all.jsonl", *command, "--license", "MIT") == 0
    assert [r.license for r in jsonl.read(tmp_path / "all.jsonl")][3] == "MIT"


def test_check_names_every_row_outside_the_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = mixed(tmp_path)
    assert check(path) == []
    assert check(path, licenses=[*MIXED[:3], MIXED[4], MIXED[5]]) == [
        f"{path}:4: 'o3': no license stated; not among CC0-1.0, CC-BY-4.0, CC-BY-NC-4.0, cc-by-4.0, "
        "LicenseRef-public-domain"
    ]
    assert call("check", path, "--licenses", "CC0-1.0") == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.removeprefix(f"{path}:").split(":")[0] for line in lines[:-1]] == ["2", "3", "4", "5", "6"]
    assert call("check", path, "--licenses", "CC0") == 1
    assert "did you mean CC0-1.0?" in capsys.readouterr().err


def test_the_card_of_a_filtered_manifest_lists_the_wanted_licences_only(tmp_path: Path) -> None:
    wanted = ["CC0-1.0", "CC-BY-4.0"]
    assert call("shard", mixed(tmp_path), tmp_path / "o.parquet", "--shard-size", 2, "--licenses", *wanted) == 0
    cards = []
    runform.write(tmp_path / "all.parquet", jsonl.read(mixed(tmp_path)), shard_size=2)
    for name in ("o.parquet", "all.parquet"):
        storage = LocalStorage(tmp_path / f"out of {name}")
        config = from_table(RunConfig, {"run": {"shard_size": 2}, "atlas": {"size": 8}})
        about = {"channels": ["x"], "dtype": "float32", "sphere_sha256": "", "plane_sha256": ""}
        manifest = (tmp_path / name).read_bytes()
        run = run_file.establish(storage, manifest, run_file.identity_of(manifest, config, about))
        for stage in layout.STAGES:
            publish_all(storage, run, stage)
            for shard in range(run.n_shards):
                pack.pack(storage, run, stage, shard)
        finalize(storage, run)
        cards.append(_licences(storage.get(dataset_format.CARD).decode()))
    assert cards[0] == ["| CC0-1.0 | 2 |", "| CC-BY-4.0 | 1 |"]
    assert len(cards[1]) == len({*MIXED})


def _licences(card: str) -> list[str]:
    section = card.split("## Licences")[1].split("## ")[0]
    return [line for line in section.splitlines() if line.startswith("|")][2:]
