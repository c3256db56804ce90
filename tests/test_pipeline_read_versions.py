"""Verbs that read an output, of one that has versions: each counts the rows of the version that it is asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_versions import metadata_of, next_version
from reader_datasets import publish_dataset

from gaussianverse.atlas.canonical_json import to_json_file
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.dataset.versions import open_version
from gaussianverse.pipeline.ops.clean_work import clean_work
from gaussianverse.pipeline.ops.verify import verify
from gaussianverse.pipeline.ops.verify_sample import verify_sample

UIDS = [f"obj{i:02d}" for i in range(12)]
LOST = frozenset({"obj03", "obj07"})
SECOND = {"corrected": {"obj01": {"caption": "second"}, "obj08": {"license": "MIT"}}, "removed": ["obj02", "obj03"]}
THIRD = {"corrected": {"obj01": {"caption": "third"}}, "added": {"other": {"caption": "new"}}}
NEWEST = [*(uid for uid in UIDS if uid not in ("obj01", "obj02", "obj03", "obj08")), "obj08", "obj01", "other"]
"""Objects of version 3, with the quarantined, in the order of the shards."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions of a dataset of shards of five objects, two of which are quarantined."""
    folder = publish_dataset(tmp_path_factory.mktemp("set"), UIDS, shard_size=5, quarantined=LOST)
    assert next_version(folder, **SECOND) == 2  # type: ignore[arg-type]
    assert next_version(folder, **THIRD) == 3  # type: ignore[arg-type]
    return folder


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    folder = tmp_path / "set"
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns("_work"))
    return folder


def faults(root: Path, version: int | None = None) -> list[str]:
    storage = LocalStorage(root)
    return list(verify(storage, open_version(storage, version).run))


def said(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    """What a verb prints as JSON."""
    capsys.readouterr()
    assert cli.main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_each_version_verifies_whatever_came_after_it(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for version in (1, 2, 3, None):
        assert faults(made, version) == []
        storage = LocalStorage(made)
        assert list(verify_sample(storage, open_version(storage, version).run, 99)) == []
    assert cli.main(["verify", "--out", str(made)]) == 0
    assert f"{made}, version 3: every byte, sample and hash is right" in capsys.readouterr().out
    assert cli.main(["verify", "--out", str(made), "--version", "2", "--shards", "0,3"]) == 0
    assert cli.main(["verify", "--out", str(made), "--version", "4"]) == 1
    assert "no version 4; finished versions: 1, 2, 3" in capsys.readouterr().err


def flipped(key: str) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        data = bytearray((root / key).read_bytes())
        data[len(data) // 2] ^= 1
        (root / key).write_bytes(data)

    return apply


def without(key: str) -> Callable[[Path], None]:
    return lambda root: (root / key).unlink()


def with_file(key: str) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(b"?")

    return apply


@pytest.mark.parametrize(
    ("change", "fault", "found_in"),
    [
        (flipped("versions/0003/metadata.parquet"), "versions/0003/metadata.parquet", [3]),
        (flipped("versions/0003/atlas_mean.npy"), "versions/0003/atlas_mean.npy: does not match", [3]),
        (flipped("versions/0002/superseded.parquet"), "superseded.parquet: its sha256 is not that of", [2]),
        (flipped("versions/0002/objects.parquet"), "versions/0002/objects.parquet: not the manifest of", [2, 3]),
        (flipped("atlas/atlas-000000.tar"), "atlas-000000.tar: .* bytes whose sha256 is not", [1, 2, 3]),
        (flipped("atlas/atlas-000003.tar"), "atlas-000003.tar: .* bytes whose sha256 is not", [2, 3]),
        (flipped("metadata.parquet"), "metadata.parquet", [1]),
        (without("versions/0003/_SUCCESS"), "_SUCCESS: missing; the version is not finalized", [3]),
        (without("versions/0003/README.md"), "versions/0003/README.md: in versions/0003/SHA256SUMS but missing", [3]),
        (with_file("strange.txt"), "strange.txt: not in", [1, 2, 3]),
        (with_file("versions/0003/strange.txt"), "strange.txt: not in", [1, 2, 3]),
        (with_file("atlas/atlas-000099.tar"), "atlas-000099.tar: not in", [1, 2, 3]),
        (with_file("versions/0009/metadata.parquet"), "versions/0009/metadata.parquet: not in", [1, 2, 3]),
    ],
)
def test_damage_is_a_fault_of_the_versions_that_count_it(
    root: Path, change: Callable[[Path], None], fault: str, found_in: list[int]
) -> None:
    change(root)
    found = {version: [line for line in _faults(root, version) if _matches(fault, line)] for version in (1, 2, 3)}
    assert [version for version, lines in found.items() if lines] == found_in
    others = set(found) - set(found_in)
    assert all(_faults(root, version) == [] for version in others)


def _faults(root: Path, version: int) -> list[str]:
    from gaussianverse.pipeline.dataset import run_file

    storage = LocalStorage(root)
    return list(verify(storage, run_file.load(storage, version)))


def _matches(pattern: str, line: str) -> bool:
    import re

    return re.search(pattern, line) is not None


def resealed(root: Path, **entries: Any) -> None:
    """Let version.json of version 3 vouch for its table as it is now, with other entries."""
    from gaussianverse.atlas.store.storage import sha256_of

    path = root / "versions/0003/version.json"
    values = json.loads(path.read_text())
    values |= {"superseded_sha256": sha256_of((root / "versions/0003/superseded.parquet").read_bytes()), **entries}
    path.write_bytes(to_json_file(values, sort_keys=True))


def rows(change: Callable[[list[dict[str, Any]]], None]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        path = root / "versions/0003/superseded.parquet"
        table = pq.ParquetFile(path).read(use_threads=False)
        values = table.to_pylist()
        change(values)
        pq.write_table(pa.Table.from_pylist(values, table.schema), path)
        resealed(root)

    return apply


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (rows(lambda r: r.pop(0)), "1 objects count more than once: obj01"),
        (rows(lambda r: r[0].update(uid="obj00")), "superseded.parquet: obj00: not a row of stats/splats-000000"),
        (rows(lambda r: r[0].update(atlas_sha256="0" * 64)), "superseded.parquet: obj01: not a row of stats/atlas"),
        (rows(lambda r: r[0].update(since=4)), "superseded.parquet: obj01: 'corrected' since version 4"),
        (rows(lambda r: r[0].update(change="lost")), "superseded.parquet: obj01: 'lost' since version 2"),
        (rows(lambda r: r[-1].update(shard=9)), "superseded.parquet: shard 9 does not count"),
        (
            lambda root: resealed(root, parent_sums_sha256="0" * 64),
            "parent_sums_sha256 is not the sha256 of versions/0002",
        ),
    ],
)
def test_what_a_version_says_of_itself_is_compared_with_the_shards(
    root: Path, change: Callable[[Path], None], fault: str
) -> None:
    change(root)
    assert any(fault in line for line in _faults(root, 3)), _faults(root, 3)
    assert _faults(root, 2) == []


def test_what_was_taken_over_is_compared_with_where_it_comes_from(root: Path) -> None:
    from gaussianverse.atlas.store.storage import sha256_of

    path = root / "versions/0003/origins.parquet"
    table = pq.ParquetFile(path).read(use_threads=False)
    assert dict(zip(table["uid"].to_pylist(), table["shard"].to_pylist(), strict=True)) == {"obj01": 3, "other": -1}
    pq.write_table(table.set_column(0, "uid", pa.array(["obj04", "other"])), path)
    assert any("origins.parquet: its sha256 is not that of versions/0003/version.json" in f for f in _faults(root, 3))
    resealed(root, origins_sha256=sha256_of(path.read_bytes()))
    for family in ("splats", "atlas"):
        expected = f"origins.parquet: obj04: its arrays in {family} are not those of shard 3, where it comes from"
        assert any(expected in line for line in _faults(root, 3))


def test_a_sample_that_no_longer_counts_is_not_drawn(root: Path) -> None:
    storage = LocalStorage(root)
    row = next(row for row in metadata_of(root, 1) if row["uid"] == "obj02")
    path = root / "atlas/atlas-000000.tar"
    data = bytearray(path.read_bytes())
    data[row["atlas_offset"] + 200] ^= 1
    path.write_bytes(data)
    for version, expected in ((1, 1), (2, 0), (3, 0)):
        assert len(list(verify_sample(storage, open_version(storage, version).run, 99))) == expected


def test_status(made: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def counts(*options: str, out: Path = made) -> tuple[Any, ...]:
        found = said(capsys, "status", "--out", str(out), *options)
        atlas = found["stages"]["atlas"]
        return (
            found["version"],
            found["objects"],
            found["shards"],
            atlas["samples"],
            found["quarantined"],
            found["finalized"],
        )

    assert counts("--version", "1") == (1, 12, 3, 10, {"bad_input": 2}, True)
    assert counts("--version", "2") == (2, 10, 4, 9, {"bad_input": 1}, True)
    assert counts() == (3, 11, 5, 10, {"bad_input": 1}, True)
    (root / "versions/0003/_SUCCESS").unlink()
    assert counts(out=root) == (3, 2, 1, 2, {}, False)
    assert cli.main(["status", "--out", str(root)]) == 0
    assert f"{root}, version 3: 2 new objects in 1 new shards" in capsys.readouterr().out


def test_scratch_of_a_version_that_was_begun_is_kept(root: Path) -> None:
    storage = LocalStorage(root)
    work = root / "_work/splats/000004/other.tar"
    work.parent.mkdir(parents=True)
    work.write_bytes(b"?")
    (root / "versions/0003/_SUCCESS").unlink()
    (root / "_commits/splats/000004.json").unlink()
    clean_work(storage)
    assert work.exists()
    (root / "versions/0003/_SUCCESS").write_bytes(b"")
    clean_work(storage)
    assert not work.exists()


def test_report_and_its_page(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["report", "--out", str(made)]
    assert [row["uid"] for row in said(capsys, *out)] == NEWEST
    assert [row["uid"] for row in said(capsys, *out, "--version", "1")] == UIDS
    assert cli.main([*out, "--dest", str(tmp_path / "page"), "--objects", "obj01", "--worst", "0"]) == 0
    page = (tmp_path / "page/index.html").read_text()
    assert "Version 3 of a dataset" in page
    assert "10 of 11" in page
    assert (tmp_path / "page/objects/obj01.html").exists() or list((tmp_path / "page").rglob("obj01.html"))
    capsys.readouterr()
    assert cli.main([*out, "--dest", str(tmp_path / "none"), "--objects", "obj02", "--worst", "0"]) == 1
    assert "no object 'obj02'" in capsys.readouterr().err


def test_inspect(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest = said(capsys, "inspect", "obj01", "--out", str(made))
    assert (newest["manifest"]["caption"], newest["shard"], newest["atlas"]["caption"]) == ("third", 4, "third")
    assert [(row["shard"], row["since"], row["change"]) for row in newest["superseded"]] == [
        (0, 2, "corrected"), (3, 3, "corrected"),
    ]  # fmt: skip
    first = said(capsys, "inspect", "obj01", "--out", str(made), "--version", "1")
    assert (first["shard"], "superseded" in first) == (0, False)
    assert cli.main(["inspect", "obj02", "--out", str(made)]) == 1
    assert "no object 'obj02' in the manifest: removed in version 2" in capsys.readouterr().err


def test_top_errors(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for version, uids in (("1", ["obj03", "obj07"]), ("2", ["obj07"]), ("3", ["obj07"])):
        (cause,) = said(capsys, "top-errors", "--out", str(made), "--version", version)
        assert (cause["count"], cause["uids"]) == (len(uids), uids)


def test_evaluate(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for version, uids in ((None, NEWEST), ("1", UIDS)):
        to = tmp_path / str(version)
        options = [] if version is None else ["--version", version]
        cli.main(["evaluate", "--out", str(made), "--to", str(to), "--json", *options])
        assert pq.ParquetFile(to / "objects.parquet").read(use_threads=False)["uid"].to_pylist() == uids
        found = json.loads((to / "evaluation.json").read_text())
        assert found["datasets"][0]["version"] == int(version or 3)
    capsys.readouterr()


def test_export(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def exported(name: str, *more: str) -> list[str]:
        assert cli.main(["export", *more, str(tmp_path / name), "--out", str(made), "--format", "ply"]) == 0
        return sorted(path.stem for path in (tmp_path / name).rglob("*.ply"))

    assert exported("newest") == sorted(set(NEWEST) - LOST)
    assert exported("first", "--version", "1") == sorted(set(UIDS) - LOST)
    assert exported("one", "obj01") == ["obj01"]
    out = ["export", str(tmp_path / "part"), "--out", str(made), "--format", "dataset", "--filter", "category != x"]
    assert cli.main([*out, "--version", "2"]) == 0
    assert faults(tmp_path / "part") == []
    captions = {row["uid"]: row["caption"] for row in metadata_of(tmp_path / "part", 1)}
    assert (captions["obj01"], "other" in captions, "obj02" in captions) == ("second", False, False)
    capsys.readouterr()


def test_journals_may_be_left_out(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are not part of the dataset: what is published without them is no less there."""
    whole = said(capsys, "inspect", "obj01", "--out", str(root))
    rows = said(capsys, "report", "--out", str(root))
    shutil.rmtree(root / "runs")
    without = said(capsys, "inspect", "obj01", "--out", str(root))
    for stage in ("splats", "atlas"):
        del whole[stage]["journal"]
    assert without == whole
    assert said(capsys, "report", "--out", str(root)) == [{**row, "seconds": -1} for row in rows]
