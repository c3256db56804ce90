"""Outputs of somebody else, damaged or half done: what page, table and export make of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_outputs import called, report, rewritten, rows_of
from pipeline_runs import planned, publish_all

from gaussianverse.atlas.dataset_format import SPLATS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.dataset import layout, pack
from gaussianverse.pipeline.ops import export as export_module


def test_of_a_strange_dataset_nothing_is_written_outside_the_page(tmp_path: Path) -> None:
    uids = ["../../../x", "a/b", "good"]
    out, page = tmp_path / "out", tmp_path / "one" / "page"
    storage = LocalStorage(out)
    run = planned(storage, ["a", "b", "c"])
    for stage in layout.STAGES:
        publish_all(storage, run, stage)
        pack.pack(storage, run, stage, 0)
        for key in (layout.stats(stage, 0), layout.journal(stage, 0)):
            rewritten(out / key, uid=uids)
    rewritten(out / layout.stats(SPLATS, 0), psnr=[1.0, 1.0, float("nan")])
    before = {path for path in tmp_path.rglob("*") if page not in path.parents}
    assert report(out, "--dest", page) == 0
    assert {path for path in tmp_path.rglob("*") if page not in path.parents} - before == {page.parent, page}
    assert [(row["uid"], row["psnr"]) for row in rows_of(page)] == [("good", None)]
    assert called(page / "files" / "pages.js") == ["good"]
    index = (page / "index.html").read_text()
    assert "no manifest allows its uid, &#39;../../../x&#39;" in index
    assert "no manifest allows its uid, &#39;a/b&#39;" in index


def test_of_a_strange_dataset_nothing_reaches_the_terminal_as_a_control(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uids, controls = ["\x1b]0;mine\x07", "b", "c"], "\x1b[2J\x9b31m\u202eno\r\n\x00"
    out = tmp_path / "out"
    storage = LocalStorage(out)
    run = planned(storage, ["a", "b", "c"])
    for stage in layout.STAGES:
        publish_all(storage, run, stage, quarantined={"b"})
        pack.pack(storage, run, stage, 0)
        values = {"caption": [controls] * 3, "category": [controls] * 3, "license": ["huge " * 200_000] * 3}
        rewritten(
            out / layout.stats(stage, 0), uid=uids, reason=[controls] * 3, error_message=[controls] * 3, **values
        )
        rewritten(out / layout.journal(stage, 0), uid=uids)
    capsys.readouterr()
    for options in ((), ("--json",)):
        assert report(out, *options) == 0
        printed = capsys.readouterr()
        assert not [c for c in printed.out + printed.err if c != "\n" and not c.isprintable()]
    files = [
        path for path in (out / "report").rglob("*.*") if path.suffix in (".html", ".js") and path.name != "viewer.js"
    ]
    assert all(len(path.read_bytes()) < 50_000 for path in files)
    assert "(1000000 characters)" in (out / "report" / "files" / "objects" / "c.html").read_text()
    assert str(tmp_path) not in "".join(path.read_text() for path in files)


def test_a_table_with_empty_cells_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    storage = LocalStorage(out)
    run = planned(storage, ["a", "b"], shard_size=1)
    for stage in layout.STAGES:
        publish_all(storage, run, stage)
        for shard in range(2):
            pack.pack(storage, run, stage, shard)
    rewritten(out / layout.stats(SPLATS, 0), uid=[None], psnr=[None])
    rewritten(out / layout.journal(SPLATS, 1), seconds=[None])
    assert report(out) == 0
    assert [row["uid"] for row in rows_of(out / "report")] == ["b"]
    index = (out / "report" / "index.html").read_text()
    assert "shard 0 is not here: empty cells in uid, psnr" in index
    assert "seconds of shard 1, splats, are not here: empty cells in seconds" in index


def test_an_output_without_an_object_that_was_published(tmp_path: Path) -> None:
    """All of them quarantined, and none done yet."""
    for name, quarantined in (("all", {"a", "b"}), ("none", set[str]())):
        storage = LocalStorage(tmp_path / name)
        run = planned(storage, ["a", "b"])
        for stage in layout.STAGES if quarantined else ():
            publish_all(storage, run, stage, quarantined=quarantined)
            pack.pack(storage, run, stage, 0)
        assert report(tmp_path / name) == 0
        index = (tmp_path / name / "report" / "index.html").read_text()
        assert "0 of 2" in index
        assert "No object is published yet." in index
        assert len(rows_of(tmp_path / name / "report")) == len(quarantined)


def test_a_damaged_table_leaves_the_other_shards(tmp_path: Path) -> None:
    """Of a run that is still going: one shard is damaged, one is there, one is not committed."""
    storage = LocalStorage(tmp_path / "out")
    run = planned(storage, ["a", "b", "c"], shard_size=1)
    for stage in layout.STAGES:
        publish_all(storage, run, stage, quarantined={"b"})
        for shard in range(2):
            pack.pack(storage, run, stage, shard)
    (tmp_path / "out" / layout.stats(SPLATS, 0)).write_bytes(b"PAR1 damaged")
    assert report(tmp_path / "out") == 0
    page = tmp_path / "out" / "report"
    assert [(row["uid"], row["reason"]) for row in rows_of(page)] == [("b", "bad_input")]
    index = (page / "index.html").read_text()
    assert "shard 0 is not here" in index
    assert "A run that is not finished" in index


@pytest.mark.parametrize("uid", ["../../x", "/x", "a/b", "..", "a\x00b"])
def test_export_writes_nothing_outside_its_folder(
    uid: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, dest = tmp_path / "out", tmp_path / "one" / "two"
    storage = LocalStorage(out)
    run = planned(storage, ["a", "b"])
    for stage in layout.STAGES:
        publish_all(storage, run, stage)
        pack.pack(storage, run, stage, 0)
        rewritten(out / layout.stats(stage, 0), uid=[uid, "b"])
    rewritten(out / layout.MANIFEST, uid=[uid, "b"])
    dest.mkdir(parents=True)
    before = {path for path in tmp_path.rglob("*") if dest not in path.parents}
    for format in export_module.FORMATS:
        assert cli.main(["export", "--out", str(out), "--format", format, str(dest)]) == 1
        assert "no manifest allows this uid" in capsys.readouterr().err
        assert cli.main(["export", "--out", str(out), "--format", format, uid, str(dest)]) == 1
    assert {path for path in tmp_path.rglob("*") if dest not in path.parents} == before
