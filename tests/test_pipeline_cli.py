"""The command line: a mistake of the user gives one line that says so, or an object quarantined with its reason."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pipeline_runs import dataset, in_process, tiny_arguments, write_manifest, write_views

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.parquet import from_parquet
from gaussianverse.pipeline.dataset.schemas import METADATA, QUARANTINE
from gaussianverse.pipeline.errors import BreakerOpen, PipelineError, ShardConflict, Stalled, UsageError
from gaussianverse.pipeline.interrupt import INTERRUPTED, TERMINATED
from gaussianverse.pipeline.ops import report
from gaussianverse.pipeline.run import job

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "ray_executor", in_process)


@pytest.fixture(scope="module")
def ball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_views(tmp_path_factory.mktemp("ball") / "views")


@pytest.fixture
def folder(tmp_path: Path, ball: Path) -> Path:
    """A manifest of one good object."""
    shutil.copytree(ball, tmp_path / "views" / "good")
    write_manifest(tmp_path, ["good"])
    return tmp_path


def build(folder: Path, *more: str, out: Path | None = None) -> int:
    return cli.main(
        ["fit-shard", "--manifest", str(folder / "objects.jsonl"), "--out", str(out or folder / "out"),
         *tiny_arguments(), *more]
    )  # fmt: skip


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def each(views: Path, kind: str, change_one: Callable[[Path], object]) -> None:
    """Change this file of every view: of one alone, the view would be left out."""
    for path in sorted(views.glob(f"*/*{kind}")):
        change_one(path)


def without_origin(path: Path) -> None:
    camera = json.loads(path.read_text())
    del camera["origin"]
    path.write_text(json.dumps(camera))


def transparent(views: Path) -> None:
    from PIL import Image

    for path in views.glob("*/*.png"):
        image = Image.open(path)
        image.putalpha(0)
        image.save(path)


BROKEN: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "blank": (transparent, "too_few_gaussians", "fully transparent"),
    "cut-png": (lambda v: each(v, ".png", lambda p: p.write_bytes(p.read_bytes()[:80])), "decode_error", "00000"),
    "empty": (lambda v: [shutil.rmtree(view) for view in v.iterdir()], "missing_views", "no views"),
    "few": (lambda v: [shutil.rmtree(v / f"{i:05d}") for i in range(2, 10)], "missing_views", "at least 3"),
    "half-json": (lambda v: each(v, ".json", lambda p: p.write_text('{"x": [1,')), "bad_input", "00000"),
    "nan-pose": (lambda v: each(v, ".json", lambda p: change(p, origin=[0, float("nan"), 1])), "bad_input", "00000"),
    "no-folder": (shutil.rmtree, "missing_views", "no such file or folder"),
    "no-origin": (lambda v: each(v, ".json", without_origin), "bad_input", "no 'origin'"),
    "not-png": (lambda v: each(v, ".png", lambda p: p.write_text("<html>")), "decode_error", "00000"),
    "scaled": (lambda v: each(v, ".json", lambda p: change(p, x=[3, 0, 0])), "bad_input", "right-handed rotation"),
}  # fmt: skip


def test_an_argument_that_is_no_text_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    # as Python hands over bytes that the locale's encoding cannot read
    assert cli.main(["import", "d\udcc3\udca9", "--out", "o"]) == 2
    assert r"d\udcc3\udca9: no text in this locale's encoding" in capsys.readouterr().err


def test_every_broken_object_is_quarantined_with_its_reason_and_the_others_are_finished(
    folder: Path, ball: Path, capsys: Captured
) -> None:
    for uid, (damage, _, _) in BROKEN.items():
        shutil.copytree(ball, folder / "views" / uid)
        damage(folder / "views" / uid)
    write_manifest(folder, [*BROKEN, "good"])
    assert build(folder) == 0
    storage, printed = LocalStorage(folder / "out"), capsys.readouterr()
    rows = {r["uid"]: r for r in from_parquet(QUARANTINE, storage.get(dataset_format.QUARANTINE)).to_pylist()}
    assert {uid: r["reason"] for uid, r in rows.items()} == {uid: r for uid, (_, r, _) in BROKEN.items()}
    for uid, (_, reason, text) in BROKEN.items():
        assert text in rows[uid]["error_message"]
        assert f"quarantined: {reason}: " in next(x for x in printed.out.splitlines() if x.startswith(uid))
        assert str(folder) not in rows[uid]["error_message"], "the same error has the same message everywhere"
    assert "Traceback" not in printed.err
    metadata = from_parquet(METADATA, storage.get(dataset_format.METADATA)).to_pylist()
    assert [r["uid"] for r in metadata if r["status"] == "ok"] == ["good"]
    assert cli.main(["verify", "--out", storage.url]) == 0
    assert cli.main(["inspect", "no-origin", "--out", storage.url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["splats"]["reason"], found["atlas"]["reason"]) == ("bad_input", "bad_input")


def test_the_last_line_counts_and_a_share_above_the_limit_is_exit_code_6(folder: Path, capsys: Captured) -> None:
    write_manifest(folder, ["good", "lost-1", "lost-2"])
    assert build(folder, "--fail-above", "0.5") == 6
    printed = capsys.readouterr()
    expected = "1 of 3 objects published, 2 quarantined: 2 missing_views (gaussianverse inspect lost-1 --out "
    assert printed.out.splitlines()[-2].startswith(expected)
    assert printed.out.splitlines()[-1] == f"look: {folder}/out/report/index.html"
    assert "error: 66.7% of the objects are quarantined, more than --fail-above\n" in printed.err
    (summary,) = (folder / "out" / "runs").glob("summary-*.json")
    counts = {"objects": 3, "published": 1, "quarantined": 2, "reasons": {"missing_views": 2}}
    assert json.loads(summary.read_text())["requested"] == counts
    assert build(folder, "--fail-above", "0.67") == 0, "also where nothing is left to do"
    assert build(folder, "--fail-above", "0", "--json") == 6
    *_, line = capsys.readouterr().out.splitlines()
    assert counts.items() <= json.loads(line).items()
    with pytest.raises(SystemExit) as ended:
        build(folder, "--fail-above", "20")
    assert ended.value.code == 2


def test_foreign_text_in_an_error_cannot_steer_the_terminal(folder: Path, capsys: Captured) -> None:
    (folder / "objects.jsonl").write_text(json.dumps({"uid": "a", "views": "v", "\x1b[2J\nfine": 1}) + "\n")
    assert build(folder) == 1
    error = capsys.readouterr().err
    assert "\x1b" not in error
    assert error.count("\n") == 1


ROW = {"uid": "good", "views": "views/good"}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([ROW, {**ROW, "uid": "b", "split": "dev"}], ["objects.jsonl:2", "unknown split 'dev'"]),
        ([ROW, ROW], ["objects.jsonl:2", "duplicate uid 'good', first on line 1"]),
        ([ROW, {**ROW, "uid": "a/b"}], ["objects.jsonl:2", "uid 'a/b'"]),
        ([{**ROW, "uid": "../up"}], ["objects.jsonl:1", "uid '../up'"]),
        ([], ["the manifest is empty"]),
        ([{"uid": "x"}], ["no 'views'"]),
        ([{**ROW, "caption": None}], ["'caption' is None"]),
        ([ROW, {**ROW, "uid": "b", "colour": "red"}], ["objects.jsonl:2", "unknown key 'colour'"]),
    ],
)
def test_a_faulty_manifest_is_refused_with_the_line_before_anything_is_written(
    folder: Path, lines: list[dict[str, object]], words: list[str], capsys: Captured
) -> None:
    (folder / "objects.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert build(folder, "--strict") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert all(word in error for word in words)
    assert not (folder / "out").exists()


def test_every_fault_of_a_manifest_is_named_at_once(folder: Path, capsys: Captured) -> None:
    (folder / "objects.jsonl").write_text('{"uid": "a.b", "views": "v"}\nnot json\n{"views": "v"}\n')
    assert build(folder) == 1
    error = capsys.readouterr().err
    assert [f"objects.jsonl:{n}:" in line for n, line in enumerate(error.splitlines(), 1)] == [True] * 3


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--profile", "fastest"], 1, "no profile 'fastest'"),
        (["--set", "fit.stepz=3"], 1, "stepz"),
        (["--set", "fit.steps"], 1, "section.key=value"),
        (["--shard", "1"], 2, "shards 0 to 0"),
        (["--shard", "x"], 2, "expected numbers and ranges"),
        (["--set", "fit.loss.lpips_net=alex", "--set", "fit.loss.lpips_weights=/none"], 1, "/none"),
        (["--profile", "paper"], 1, "CUDA"),
    ],
)
def test_a_wrong_option_is_one_line(
    folder: Path, arguments: list[str], code: int, word: str, capsys: Captured
) -> None:
    assert build(folder, *arguments) == code
    error = capsys.readouterr().err
    assert word in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["none.jsonl", "none.parquet", "views"])
def test_no_such_manifest(folder: Path, name: str, capsys: Captured) -> None:
    arguments = ["--manifest", str(folder / name), "--out", str(folder / "out"), *tiny_arguments()]
    assert cli.main(["fit-shard", *arguments]) == 1
    assert name in capsys.readouterr().err


def test_a_parquet_that_is_no_manifest(folder: Path, capsys: Captured) -> None:
    (folder / "other.parquet").write_bytes(b"PAR1 and nothing else")
    arguments = ["--manifest", str(folder / "other.parquet"), "--out", str(folder / "out")]
    assert cli.main(["fit-shard", *arguments, *tiny_arguments()]) == 1
    error = capsys.readouterr().err
    assert "other.parquet" in error
    assert error.count("\n") == 1


def test_an_output_that_cannot_be_written_is_one_line(folder: Path, capsys: Captured) -> None:
    (folder / "file").write_text("in the way")
    assert build(folder, out=folder / "file" / "out") == 1
    error = capsys.readouterr().err
    assert "file/out" in error
    assert "choose an output" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("verb", ["status", "verify", "finalize", "report"])
def test_verbs_that_need_a_run_say_that_there_is_none(tmp_path: Path, verb: str, capsys: Captured) -> None:
    assert cli.main([verb, "--out", str(tmp_path / "nothing")]) == 1
    assert "no run here" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"{", b"[]", b"null", b'{"schema_version": 99}', b"\xff\xfe"])
def test_a_damaged_run_record_is_one_line(tmp_path: Path, content: bytes, capsys: Captured) -> None:
    LocalStorage(tmp_path).put_if_absent(layout.RUN, content)
    assert cli.main(["status", "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "run.json" in error
    assert error.count("\n") == 1


def test_when_no_object_comes_through_there_is_no_dataset_and_the_last_line_counts(
    folder: Path, capsys: Captured
) -> None:
    transparent(folder / "views" / "good")
    write_manifest(folder, ["good", "lost"])
    out = folder / "out"
    for _ in range(2):
        assert build(folder, "--fail-above", "0.5") == 1
        last = capsys.readouterr().err.rstrip().rpartition("\n")[2].rpartition("\r")[2]
        assert last.startswith(
            "error: 0 of 2 objects published, 2 quarantined: 1 missing_views, 1 too_few_gaussians (gaussianverse "
            f"top-errors --out {out})"
        )
        assert "start again with a new output" in last
    assert not (out / dataset_format.SUCCESS).exists()
    assert cli.main(["top-errors", "--out", str(out)]) == 0
    assert "too_few_gaussians" in capsys.readouterr().out


EXIT_CODES = {0: "done", 1: "error", 2: "usage", 3: "store", 4: "nothing ended", 5: "another run", 6: "--fail-above"}


def test_the_readme_lists_the_exit_codes() -> None:
    text = " ".join((Path(__file__).resolve().parents[1] / "README.md").read_text().split())
    listed = text.partition("Exit codes: ")[2].partition(" interrupted.")[0]
    for code, word in EXIT_CODES.items():
        assert re.search(rf"(^|, ){code} [^0-9]*{word}", listed), code
    assert {e.exit_code for e in (PipelineError, UsageError, BreakerOpen, Stalled, ShardConflict)} == {1, 2, 3, 4, 5}
    assert report.TOO_MANY_QUARANTINED == 6
    assert listed.endswith(f"{INTERRUPTED} and {TERMINATED}")


def test_stages_and_shards_by_themselves(folder: Path, ball: Path, capsys: Captured) -> None:
    shutil.copytree(ball, folder / "views" / "other")
    write_manifest(folder, ["good", "other"])
    assert build(folder, "--set", "run.shard_size=1", "--shard", "1") == 0
    assert "finalized once all of its shards are" in capsys.readouterr().out
    out = folder / "out"
    assert cli.main(["finalize", "--out", str(out)]) == 1
    assert "1 of 2 splats shards are not committed (first: 0)" in capsys.readouterr().err
    arguments = ["--out", str(out), *tiny_arguments(), "--set", "run.shard_size=1"]
    assert cli.main(["atlas-shard", "--shard", "0", *arguments]) == 1
    assert "have no fit" in capsys.readouterr().err
    assert cli.main(["status", "--out", str(out), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert [status["stages"][s]["shards"] for s in layout.STAGES] == [1, 1]
    assert build(folder, "--set", "run.shard_size=1", "--shard", "0") == 0
    assert "The dataset is complete" in capsys.readouterr().out
    before = dataset(LocalStorage(out))
    assert cli.main(["finalize", "--out", str(out)]) == 0
    assert dataset(LocalStorage(out)) == before
    assert cli.main(["report", "--out", str(out), "--json"]) == 0
    assert [r["uid"] for r in json.loads(capsys.readouterr().out.splitlines()[-1])] == ["good", "other"]
    assert cli.main(["inspect", "nobody", "--out", str(out)]) == 1
    assert "no object 'nobody'" in capsys.readouterr().err


def test_without_a_verb_or_an_output_it_is_usage(capsys: Captured) -> None:
    for arguments in ([], ["fly"]):
        assert cli.main(arguments) == 2
    assert "usage: gaussianverse VERB" in capsys.readouterr().out
    for arguments in (["fit-shard"], ["status"], ["status", "--out", "x", "--profile", "cpu"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 2


def test_a_misspelt_verb_is_named_with_the_nearest_one(capsys: Captured) -> None:
    assert cli.main(["fit-shards"]) == 2
    assert capsys.readouterr().err == (
        "error: no verb 'fit-shards' (did you mean fit-shard?); see gaussianverse --help\n"
    )


def test_every_verb_has_a_help_page_and_stands_in_the_help(capsys: Captured) -> None:
    assert cli.main(["--help"]) == 0
    listed = capsys.readouterr().out
    for name, verb in cli._VERBS.items():
        assert f"  {name:13} {verb.help}" in listed
        with pytest.raises(SystemExit) as ended:
            cli.main([name, "--help"])
        assert ended.value.code == 0
        assert f"gaussianverse {name}" in capsys.readouterr().out


def test_the_verbs_that_look_and_keep_on_a_finished_run(folder: Path, capsys: Captured) -> None:
    write_manifest(folder, ["good", "lost"])
    assert build(folder) == 0
    out, before = str(folder / "out"), dataset(LocalStorage(folder / "out"))
    capsys.readouterr()

    def shown(*arguments: str) -> str:
        assert cli.main(list(arguments)) == 0
        return capsys.readouterr().out

    assert json.loads(shown("verify", "--out", out, "--sample", "1", "--json"))["faults"] == []
    assert "everything that was read" in shown("verify", "--out", out, "--sample", "5")
    causes = json.loads(shown("top-errors", "--out", out, "--json"))
    assert [(c["reason"], c["count"], c["uids"]) for c in causes] == [("missing_views", 1, ["lost"])]
    assert "missing_views" in shown("top-errors", "--out", out)
    planned = shown("plan", "--manifest", str(folder / "objects.jsonl"), "--like", out, "--json")
    assert json.loads(planned)["objects"] == 2
    assert "2 objects in 1 shards" in shown("plan", "--manifest", str(folder / "objects.jsonl"))
    assert "would delete 8 files" in shown("clean-work", "--out", out, "--dry-run")
    assert json.loads(shown("clean-work", "--out", out, "--json"))["objects"] == 8
    assert not any((folder / "out" / layout.WORK).rglob("*.tar"))
    assert dataset(LocalStorage(out)) == before
    assert "every byte" in shown("verify", "--out", out)
    for wrong in (["--sample", "0"], ["--sample", "1", "--shards", "0"]):
        assert cli.main(["verify", "--out", out, *wrong]) == 2
