"""The page of `report`: what is on it, and what it says is not."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from page_outputs import FOREIGN, UIDS, built, called, report, rewritten, rows_of
from pipeline_runs import in_process, planned, publish_all, tiny_arguments, write_manifest, write_views
from servers.moto_server import BUCKET

from gaussianverse.atlas.dataset_format import SPLATS, shard_tar
from gaussianverse.atlas.store.errors import StoreError
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.s3 import S3Storage
from gaussianverse.manifests import runform
from gaussianverse.manifests.schema import Row
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.dataset import layout, pack, run_file
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.ops import report as report_module
from gaussianverse.pipeline.ops.page.profile import profile_of
from gaussianverse.pipeline.ops.page.rendering import script
from gaussianverse.pipeline.ops.page.summary import Summary
from gaussianverse.pipeline.ops.verify import verify
from gaussianverse.pipeline.run import inputs as inputs_of_a_run
from gaussianverse.pipeline.run import job


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def out(inputs: Path, tmp_path: Path) -> Path:
    """A copy of the output."""
    return shutil.copytree(inputs / "out", tmp_path / "out")


class Addresses(HTMLParser):
    """Values of `src` and `href` of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found = list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value]


def test_a_small_run_ends_with_its_page_which_verify_ignores(inputs: Path, out: Path) -> None:
    assert (out / "report" / "index.html").is_file()
    storage = LocalStorage(out)
    assert list(verify(storage, run_file.load(storage))) == []
    assert not layout.in_dataset("report/files/objects/a.html")
    assert "report/" not in (out / "SHA256SUMS").read_text()


def test_the_page_lists_every_object_and_shows_some(inputs: Path, out: Path, tmp_path: Path) -> None:
    assert report(out, "--dest", tmp_path / "page", "--base", inputs, "--objects", "1", "--worst", "1") == 0
    page = tmp_path / "page"
    rows = rows_of(page)
    assert [(row["uid"], row["place"], row["status"]) for row in rows] == [(u, k, "ok") for k, u in enumerate(UIDS)]
    assert all(0 < row["n_gaussians"] <= 200 and row["psnr"] > 5 for row in rows)
    worst = min(rows, key=lambda row: float(row["atlas_heldout_psnr"]))["uid"]
    assert set(called(page / "files" / "pages.js")) == {"a", worst}
    names = {path.name for path in (page / "files" / "objects").iterdir() if path.name.startswith("a")}
    strips = ("reference", "fit", "fit-error", "atlas", "atlas-error", "channels")
    assert names >= {"a.html", *(f"a-{strip}.webp" for strip in strips)}
    index = (page / "index.html").read_text()
    assert "4 of 4" in index
    assert "Not on this page" not in index
    assert index.count("<svg") >= 5


@pytest.mark.parametrize(("metric", "worst"), [("psnr", "c"), ("seconds", "b"), ("smoothness", "a")])
def test_the_worst_by_any_metric_get_pages(metric: str, worst: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    storage = LocalStorage(out)
    run = planned(storage, ["a", "b", "c"])
    for stage in layout.STAGES:
        publish_all(storage, run, stage)
        pack.pack(storage, run, stage, 0)
        rewritten(out / layout.journal(stage, 0), seconds=[2.0, 4.0, 3.0])
        rewritten(out / layout.stats(stage, 0), **{SPLATS: {"psnr": [30.0, 31.0, 29.0]}}.get(
            stage, {"smoothness": [0.8, 0.9, 0.85]}
        ))  # fmt: skip
    assert report(out, "--objects", "0", "--worst", "1", "--worst-by", metric) == 0
    assert called(out / "report" / "files" / "pages.js") == [worst]


def test_the_head_names_the_profile_and_the_digests(out: Path) -> None:
    run = run_file.load(LocalStorage(out))
    index = (out / "report" / "index.html").read_text()
    assert run.digest in index
    assert run.code_digest in index
    assert len(run.code_digest) == 64


def test_a_profile_is_known_by_its_settings(tmp_path: Path) -> None:
    for name in ("quick", "paper", "test"):
        config = load(name)
        frozen = run_file.identity_of(
            runform.encode([Row("a", "views/a", license="CC0-1.0")], shard_size=1), config, {}
        )
        assert profile_of(Run(frozen)) == name
        frozen["config"]["fit"]["steps"] = 77
        assert profile_of(Run(frozen)) == f"{name} with fit.steps = 77"
        frozen["config"]["fit"]["growth"]["adjust_every"] += 1
        others = {"k": 3, "size": 72, "min_views": 7, "initial_anchors": 61, "feature_dim": 16}
        frozen["config"]["fit"] |= others
        assert profile_of(Run(frozen)) == ""


def test_named_objects_get_pages_and_unknown_ones_are_refused(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(out, "--dest", tmp_path / "page", "--objects", "c", "b", "--worst", "0") == 0
    assert set(called(tmp_path / "page" / "files" / "pages.js")) == {"b", "c"}
    assert report(out, "--dest", tmp_path / "page", "--objects", "nobody") == 1
    assert "no object 'nobody' in the manifest" in capsys.readouterr().err
    assert (tmp_path / "page" / "index.html").is_file(), "the page that was there stays"


def test_foreign_text_is_text(out: Path) -> None:
    files = [path for path in (out / "report").rglob("*") if path.suffix in (".html", ".js")]
    texts = {path.name: path.read_text() for path in files if path.name != "viewer.js"}
    assert rows_of(out / "report")[0]["caption"] == FOREIGN
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;\\u2028 &amp;" in texts["a.html"]
    assert not [name for name, text in texts.items() if "<img src=x" in text or "\u2028" in text]
    assert script("f", FOREIGN) == b'f("\\u003c/script>\\u003cimg src=x onerror=alert(1)>\\u2028 & \\"quoted\\"");\n'


def test_nothing_is_fetched_from_outside(out: Path) -> None:
    for path in (out / "report").rglob("*.html"):
        named = Addresses(path.read_text()).found
        local = [name.partition("#")[0] for name in named if name != "data:,"]
        assert local
        assert not [name for name in local if name and not (path.parent / name).is_file()]
    assert not re.search(r"url\(\s*[\"']?(?:https?:)?//|@import", (out / "report/files/page.css").read_text())


def test_without_views_renders_are_shown_and_it_is_said(
    inputs: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(out, "--dest", tmp_path / "page", "--base", tmp_path / "nowhere") == 0
    captured = capsys.readouterr()
    assert "note: a: Reference views are not here" in captured.err
    assert f"look: {tmp_path}/page/index.html" in captured.out
    assert "median" in captured.out, "the table is printed as well"
    objects = tmp_path / "page" / "files" / "objects"
    assert (objects / "a-fit.webp").is_file()
    assert not (objects / "a-reference.webp").exists()
    assert "Reference views are not here" in (objects / "a.html").read_text()


def test_a_damaged_sample_is_named_and_the_others_are_there(inputs: Path, out: Path, tmp_path: Path) -> None:
    tar = out / shard_tar(SPLATS, 0)
    data = bytearray(tar.read_bytes())
    data[data.index(b"a.splat.npz") + 700] ^= 1
    tar.write_bytes(data)
    assert report(out, "--dest", tmp_path / "page", "--base", inputs) == 0
    page = tmp_path / "page"
    assert set(called(page / "files" / "pages.js")) == {"b", "c", "d"}
    assert [row["place"] for row in rows_of(page)] == [-1, 0, 1, 2]
    assert "a has no page: splats/splats-000000.tar: the sha256 of a" in (page / "index.html").read_text()


@pytest.mark.parametrize("error", [StoreError("the lake is away"), PermissionError(13, "Permission denied")])
def test_views_that_cannot_be_read_are_missing_on_the_page(
    error: Exception, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(inputs_of_a_run, "local", failing)
    assert report(out, "--dest", tmp_path / "page") == 0
    page = (tmp_path / "page" / "files" / "objects" / "a.html").read_text()
    assert f"Reference views are not here: {error.args[-1]}" in page
    assert (tmp_path / "page" / "files" / "objects" / "a-atlas.webp").is_file()


def fit_shard(folder: Path, manifest: Path, *options: str) -> int:
    arguments = ["fit-shard", "--manifest", str(manifest), "--out", str(folder / "out"), *tiny_arguments(), *options]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(job, "ray_executor", in_process)
        return cli.main([*arguments, "--set", "run.shard_size=1"])


def test_the_page_after_a_run_has_the_shards_of_earlier_calls(tmp_path: Path) -> None:
    for seed, uid in enumerate("ab"):
        write_views(tmp_path / "views" / uid, seed)
    manifest = write_manifest(tmp_path, "ab")
    for shard, uids in (("0", ["a"]), ("1", ["a", "b"])):
        assert fit_shard(tmp_path, manifest, "--shard", shard) == 0
        assert [row["uid"] for row in rows_of(tmp_path / "out" / "report")] == uids
    assert "2 of 2" in (tmp_path / "out" / "report" / "index.html").read_text()


@pytest.mark.parametrize(
    ("broken", "error", "words"),
    [
        ("make_page", StoreError("the lake is away"), "the lake is away"),
        ("Measurer", RuntimeError("out of\nmemory"), "out of memory"),
        ("config_of", KeyError(), "KeyError"),
    ],
)
def test_a_page_that_fails_is_one_line_and_the_run_keeps_its_exit_code(
    broken: str,
    error: Exception,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing(*args: object, **options: object) -> None:
        raise error

    write_views(tmp_path / "views" / "good")
    manifest = write_manifest(tmp_path, ["good", "lost"])
    monkeypatch.setattr(report_module, broken, failing)
    assert fit_shard(tmp_path, manifest, "--fail-above", "0") == 6
    printed = capsys.readouterr()
    (line,) = [line for line in printed.err.splitlines() if "page" in line]
    assert line == f"warning: no page: {words}; to make it: gaussianverse report --out {tmp_path}/out"
    assert "look: " not in printed.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["001", "002"], ["001", "002"]), (["007"], ["007"]), (["2"], ["2"]), (["3"], ["001", "002", "007"]),
        (["0"], []), ([], ["001", "002", "007", "2", "b"]), (["b"], ["b"]), (["2", "007"], ["007", "2"]),
    ],
)  # fmt: skip
def test_numbers_are_uids_where_an_object_has_them(words: list[str], expected: list[str], numbered: Path) -> None:
    page = numbered.with_name("-".join(["page", *words]))
    assert report(numbered, "--dest", page, "--worst", "0", *(["--objects", *words] if words else [])) == 0
    assert sorted(called(page / "files" / "pages.js")) == expected


def test_several_numbers_are_no_counts(numbered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(numbered, "--dest", numbered.with_name("none"), "--objects", "1", "2") == 1
    assert "no object '1' in the manifest" in capsys.readouterr().err


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of objects whose uids are numbers, but for one."""
    out = tmp_path_factory.mktemp("numbered") / "out"
    storage = LocalStorage(out)
    run = planned(storage, ["001", "002", "007", "2", "b"])
    for stage in layout.STAGES:
        publish_all(storage, run, stage)
        pack.pack(storage, run, stage, 0)
    return out


def test_what_is_no_output_and_a_folder_of_other_things_are_refused(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert report(tmp_path / "empty") == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    assert report(out, "--dest", tmp_path / "mine") == 2
    assert "mine holds letter.txt" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    assert report(out, "--dest", tmp_path / "mine" / "letter.txt") == 2
    printed = capsys.readouterr()
    assert "no page can be written there: File exists; name another folder with --dest" in printed.err
    assert printed.out == ""


def test_a_page_of_an_output_on_s3(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"s3://{BUCKET}/{tmp_path.name}/out"
    storage = S3Storage(url, StoreOptions(endpoint_url=s3_endpoint, region="us-east-1"))
    run = planned(storage, ["a", "b"])
    for stage in layout.STAGES:
        publish_all(storage, run, stage)
        pack.pack(storage, run, stage, 0)
    monkeypatch.chdir(tmp_path)
    reach = ("--set", f"store.endpoint_url={s3_endpoint}", "--set", "store.region=us-east-1")
    assert report(url, *reach) == 0
    assert [row["uid"] for row in rows_of(tmp_path / "report")] == ["a", "b"]
    assert (tmp_path / "report" / "files" / "thumbs-0000.webp").stat().st_size > 200


def test_an_empty_summary_has_no_charts() -> None:
    assert Summary().histograms() == []
    assert Summary().medians() == {}
