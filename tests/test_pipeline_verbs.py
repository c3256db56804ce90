"""What all verbs have in common: help with examples, --json, --quiet, completion, errors of usage on one line."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pipeline_runs import finished, in_process, tiny_arguments, write_manifest, write_views

from gaussianverse.pipeline import cli
from gaussianverse.pipeline.completion import SHELLS, script
from gaussianverse.pipeline.examples import EXAMPLES
from gaussianverse.pipeline.parser import leaves
from gaussianverse.pipeline.run import job
from gaussianverse.pipeline.verbs import GROUPS, parser_of, whole_parser

Captured = pytest.CaptureFixture[str]
VERBS = cli._VERBS
PREFIX = "gaussianverse "
WITHOUT_JSON = {"completion"}
"""Verbs whose output is a script."""
ARGUMENTS = {
    "render": "{made}/ball.glb {made}/drawn --size 32 --no-geometry",
    "views-to": "lgm {folder}/views/good {made}/lgm",
    "manifest build": "{made}/built.jsonl --folder {folder}/views",
    "manifest check": "{folder}/objects.jsonl",
    "manifest shard": "{folder}/objects.jsonl {made}/objects.parquet",
    "plan": "--manifest {folder}/objects.jsonl",
    "doctor": "",
    "init": "{made}/mine.toml",
    "fit-shard": "--manifest {folder}/first.jsonl --out {out} {tiny}",
    "build": "--manifest {folder}/first.jsonl --out {out} {tiny}",
    "atlas-shard": "--out {out} --shard 0 {tiny}",
    "import": "{out}/splats --out {made}/imported {tiny}",
    "finalize": "--out {out}",
    "retry-failed": "--out {out} --reasons timeout",
    "status": "--out {out}",
    "report": "--out {out}",
    "evaluate": "--out {out} --to {made}/evaluation --base {folder}",
    "inspect": "good --out {out}",
    "top-errors": "--out {out}",
    "diff": "{out}",
    "verify": "--out {out}",
    "extend": "--out {out} --remove {folder}/remove.txt --dry-run",
    "export": "good {made}/ply --out {out} --format ply",
    "duplicates": "{out}",
    "compact": "{out} {made}/compacted",
    "purge": "{out} --before 2 --dry-run",
    "clean-work": "--out {out} --dry-run",
}
"""Arguments of every verb on a finished dataset of two versions."""


def all_leaves() -> dict[str, Any]:
    """Parsers of all verbs and of the verbs below them, by the words that name them."""
    return {leaf.prog.removeprefix(PREFIX): leaf for name in VERBS for leaf in leaves(parser_of(name, VERBS[name]))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Views, manifests, and a dataset `out` of two versions: one object good, one lost, one taken out."""
    folder = tmp_path_factory.mktemp("verbs")
    for seed, uid in enumerate(("good", "spare")):
        write_views(folder / "views" / uid, seed)
    finished(folder / "out", str(write_manifest(folder, ["good", "spare", "lost"])))
    (folder / "objects.jsonl").rename(folder / "first.jsonl")
    write_manifest(folder, ["good"])
    for name, uid in (("gone", "spare"), ("remove", "lost")):
        (folder / f"{name}.txt").write_text(f"{uid}\n")
    assert cli.main(["extend", "--out", str(folder / "out"), "--remove", str(folder / "gone.txt"), "--quiet"]) == 0
    return folder


def without_constant(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_with_json_stdout_is_one_document(
    name: str, folder: Path, tmp_path: Path, capsys: Captured, request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(job, "ray_executor", in_process)
    if name == "render":
        request.getfixturevalue("egl")
        import trimesh

        trimesh.creation.icosphere().export(tmp_path / "ball.glb")
    given = ARGUMENTS[name].format(
        folder=folder, out=folder / "out", made=tmp_path, tiny=shlex.join(tiny_arguments())
    )
    capsys.readouterr()
    assert cli.main([*name.split(), *shlex.split(given), "--json"]) == 0
    json.loads(capsys.readouterr().out, parse_constant=without_constant)


def test_every_verb_takes_json_and_quiet() -> None:
    found = all_leaves()
    assert set(found) - WITHOUT_JSON == set(ARGUMENTS), "a new verb gets a line in ARGUMENTS"
    for name, leaf in found.items():
        assert "--quiet" in leaf._option_string_actions
        assert ("--json" in leaf._option_string_actions) == (name not in WITHOUT_JSON)


def test_quiet_leaves_out_progress_and_notes_and_keeps_results_warnings_and_errors(
    folder: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "ray_executor", in_process)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    printed = {}
    for option in ("--json", "--quiet"):
        given = ["--manifest", str(folder / "objects.jsonl"), "--out", str(tmp_path / option), *tiny_arguments()]
        assert cli.main(["build", *given, option]) == 0
        printed[option] = capsys.readouterr()
    noisy, quiet = printed["--json"].err, printed["--quiet"]
    assert all(text in noisy for text in ("Ray: joining 127.0.0.1:1", "1 object, 1 at a time", "1/1 objects"))
    assert quiet.err == ""
    assert "1 of 1 objects published" in quiet.out
    assert cli.main(["inspect", "nobody", "--out", str(folder / "out"), "--quiet"]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_every_verb_has_two_to_four_examples_that_its_parser_takes() -> None:
    assert set(EXAMPLES) == set(VERBS)
    for name, examples in EXAMPLES.items():
        assert 2 <= len(examples) <= 4
        for _, command in examples:
            program, verb, *words = shlex.split(command, comments=True)
            assert (program, verb) == ("gaussianverse", name)
            words = words[: words.index(">")] if ">" in words else words
            parser_of(verb, VERBS[verb]).parsed(words, mixed=VERBS[verb].mixed)


def test_help_shows_examples_as_they_are_also_below_a_verb(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    for name, examples in EXAMPLES.items():
        with pytest.raises(SystemExit):
            cli.main([name, "--help"])
        shown = capsys.readouterr().out
        assert "examples:\n" in shown
        assert all(f"  # {does}\n  {command}\n" in shown for does, command in examples)
    with pytest.raises(SystemExit):
        cli.main(["manifest", "check", "--help"])
    shown = capsys.readouterr().out
    assert "gaussianverse manifest check my.jsonl" in shown
    assert "gaussianverse manifest shard" not in shown


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_the_help_fits_the_terminal_and_has_every_verb_in_its_group(
    columns: int, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    if columns > 40:
        assert max(map(len, shown.splitlines())) <= columns
    else:  # but for the words themselves, such as `gaussianverse VERB [options]`
        assert max(len(word) for line in shown.splitlines()[2:] for word in [line] if " " in line.strip()) <= columns
    parts = {part.split(":")[0]: part for part in shown.split("\n\n")}
    for name, verb in VERBS.items():
        assert f"\n  {name}" in parts[verb.group]
    assert [group for group in parts if group in GROUPS] == list(GROUPS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fit-shrad"], "no verb 'fit-shrad' (did you mean fit-shard?); see gaussianverse --help"),
        (["zzz"], "no verb 'zzz'; see gaussianverse --help"),
        (["--quiet", "status"], "no option --quiet before the verb: gaussianverse VERB --quiet"),
        (["status", "--uot", "x"], "no option --uot (did you mean --out?); see gaussianverse status --help"),
        (["status", "--out", "x", "y"], "'y' is one word too many; see gaussianverse status --help"),
        (["status", "--out", "x", "-z"], "no option -z; see gaussianverse status --help"),
        (["manifest", "check", "m", "--lisences", "x"], "no option --lisences (did you mean --licenses?)"),
        (["manifest", "chekc"], "'chekc' (choose from"),
        (["fit-shard", "--sample", "--manifest", "x"], "argument --manifest: not allowed with argument --sample"),
        (["plan", "--manifest", "x", "--sample"], "argument --sample: not allowed with argument --manifest"),
        (["fit-shard"], "one of the arguments --manifest --sample is required"),
        (["completion", "csh"], "invalid choice: 'csh'"),
        (["purge", "x", "--before", "2", "--unfinished"], "--unfinished: not allowed with argument --before"),
    ],
)
def test_an_error_of_usage_is_one_line_with_the_mend(arguments: list[str], said: str, capsys: Captured) -> None:
    try:
        code: Any = cli.main(arguments)
    except SystemExit as ended:
        code = ended.code
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    assert printed.err.startswith("error: ")
    assert said in printed.err
    assert printed.err.count("\n") == 1


def test_a_manifest_needs_an_output_and_the_sample_does_not(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["fit-shard", "--manifest", "x"]) == 2
    assert "no --out: say where to write" in capsys.readouterr().err
    planned = {}

    def plan(out: str, *_: Any) -> Any:
        planned["out"] = out
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job, "plan", plan)
    assert cli.main(["fit-shard", "--sample"]) == 130
    assert planned == {"out": "out"}


@pytest.fixture(scope="module")
def scripts() -> dict[str, str]:
    return {shell: script(whole_parser(VERBS), shell) for shell in SHELLS}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_completion_script_names_verbs_options_and_choices_and_the_shell_reads_it(
    shell: str, scripts: dict[str, str], tmp_path: Path
) -> None:
    text = scripts[shell]
    assert all(word in text for word in (*VERBS, "worst-by", "atlas_heldout_psnr", "licenses"))
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    file = tmp_path / "script"
    file.write_text(text)
    done = subprocess.run([shell, "-n", str(file)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fit-"], {"fit-shard"}),
        (["report", "--worst"], {"--worst", "--worst-by"}),
        (["report", "--worst-by", "atlas_h"], {"atlas_heldout_psnr"}),
        (["manifest", "ch"], {"check"}),
        (["manifest", "check", "--prob"], {"--probe"}),
        (["init", "mine"], {"mine.toml"}),
        (["status", "--out", "my"], {"my-dataset"}),
    ],
)
def test_bash_completes(words: list[str], expected: set[str], scripts: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "my-dataset").mkdir()
    (tmp_path / "mine.toml").touch()
    (tmp_path / "script").write_text(scripts["bash"])
    typed = shlex.join(["gaussianverse", *words])
    program = (
        f"source ./script; COMP_WORDS=({typed}); COMP_CWORD={len(words)}; "
        "eval \"$(complete -p gaussianverse | sed -E 's/.*-F ([^ ]+) .*/\\1/')\"; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(["bash", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert expected <= {line.strip().rstrip("/") for line in done.stdout.splitlines()}, done.stderr


def test_completion_prints_the_script(capsys: Captured, scripts: dict[str, str]) -> None:
    assert cli.main(["completion", "bash"]) == 0
    assert capsys.readouterr().out.strip() == scripts["bash"].strip()


def test_a_locale_without_unicode_and_a_reader_that_leaves(tmp_path: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "gaussianverse.pipeline.cli", "fit-shard", "--help"]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    done.stdout.decode("ascii")
    head = f"set -o pipefail; {shlex.join(command)} | head -n 1"
    piped = subprocess.run(["bash", "-c", head], env=environment, capture_output=True, text=True)
    assert piped.returncode == 0
    assert piped.stderr == ""
