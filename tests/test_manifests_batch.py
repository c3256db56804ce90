"""Lists of meshes rendered by several processes: resumed, killed, with meshes that fail."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from glb import Glb, box

from gaussianverse.fitter.views import load_views
from gaussianverse.manifests import jsonl
from gaussianverse.manifests.rendering import rig
from gaussianverse.pipeline import cli

pytestmark = pytest.mark.usefixtures("egl")
SMALL = ["--preset", "zero123plus", "--size", "8"]


def meshes(folder: Path, count: int) -> Path:
    """A list of boxes of different shapes; returns its path."""
    folder.mkdir()
    for n in range(count):
        (folder / f"box-{n:03d}.glb").write_bytes(
            bytes(Glb().add(*box(size=(1, 1 + n, 2)), factor=(n / count, 1, 0, 1)))
        )
    rows = [{"mesh": f"box-{n:03d}.glb", "caption": f"box number {n}"} for n in range(count)]
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "list.jsonl"


def tree(folder: Path) -> dict[str, bytes]:
    """Bytes of all files but the lock."""
    files = (
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".render-lock" and not path.name.endswith(".lock")
    )
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_list_killed_half_way_goes_on_to_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = meshes(tmp_path / "in", 12)
    assert cli.main(["render", "--list", str(listed), str(tmp_path / "whole"), "--jobs", "1", *SMALL]) == 0
    assert "12 drawn, 0 there before, 0 failed" in capsys.readouterr().out
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "gaussianverse.pipeline.cli", "render", "--list", str(listed), str(out)]
    process = subprocess.Popen([*command, "--jobs", "2", *SMALL], env={**os.environ, "RUN": f"killed-{os.getpid()}"})
    while len(list(out.glob("box-*"))) < 5:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    for _ in range(1000):  # its workers end with it, and write nothing more
        if not _workers():
            break
        time.sleep(0.01)
    assert not _workers()
    finished = {path.name: path.stat().st_mtime_ns for path in out.glob("box-*")}
    assert 5 <= len(finished) < 12
    done = subprocess.run([*command, "--jobs", "2", *SMALL], capture_output=True, text=True, check=True)
    assert f"{12 - len(finished)} drawn, {len(finished)} there before, 0 failed" in done.stdout
    assert {name: (out / name).stat().st_mtime_ns for name in finished} == finished
    assert tree(out) == tree(tmp_path / "whole")
    assert [row.uid for row in jsonl.read(out / "objects.jsonl")] == [f"box-{n:03d}" for n in range(12)]
    assert not (out / ".render-work").exists()


def _workers() -> list[str]:
    """Workers of the killed run that still live."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if "spawn_main" in path.read_text() and f"killed-{os.getpid()}" in (path.parent / "environ").read_text():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def test_a_mesh_that_fails_is_one_line_and_the_others_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = meshes(tmp_path / "in", 3)
    nan = Glb().add([(0, 0, 0), (1, 0, 0), (0, np.nan, 0)], [0, 1, 2])
    (tmp_path / "in" / "box-001.glb").write_bytes(bytes(nan))
    listed.write_text(listed.read_text() + '{"mesh": "absent.glb"}\n')
    argv = ["render", "--list", str(listed), str(tmp_path / "out"), "--jobs", "2", *SMALL]
    assert cli.main(argv) == 1
    out, err = capsys.readouterr()
    assert "2 drawn, 0 there before, 2 failed" in out
    failed = sorted(line for line in err.splitlines() if line.startswith("failed: "))
    assert [line.rpartition("/")[2] for line in failed] == [
        "absent.glb: no such file", "box-001.glb: has vertices that are NaN or infinite",
    ]  # fmt: skip
    rows = jsonl.read(tmp_path / "out" / "objects.jsonl")
    assert [(row.uid, row.caption) for row in rows] == [("box-000", "box number 0"), ("box-002", "box number 2")]
    for row in jsonl.resolve_views(rows, tmp_path / "out"):
        assert len(load_views(row.views, row.format, min_views=7).images) == 7
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name[0] != ".") == [
        "box-000", "box-002", "objects.jsonl",
    ]  # fmt: skip
    # mended, it is drawn, and the others are left as they are
    (tmp_path / "in" / "box-001.glb").write_bytes(bytes(Glb().add(*box())))
    listed.write_text("".join(listed.read_text().splitlines(keepends=True)[:3]))
    assert cli.main(argv) == 0
    assert "1 drawn, 2 there before, 0 failed" in capsys.readouterr().out
    assert [row.uid for row in jsonl.read(tmp_path / "out" / "objects.jsonl")] == ["box-000", "box-001", "box-002"]


def test_views_of_other_settings_or_another_mesh_are_not_taken_for_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = meshes(tmp_path / "in", 1)
    argv = ["render", "--list", str(listed), str(tmp_path / "out"), "--jobs", "1", *SMALL]
    assert cli.main(argv) == 0
    for change, message in (
        (["--seed", "1"], "seed 0, not 1"),
        (["--size", "9"], "options {'size': 8}, not {'size': 9}"),
        (["--albedo"], "shading 'diffuse', not 'albedo'"),
        (["--preset", "lgm"], "preset 'zero123plus', not 'lgm'"),
        (["--no-geometry"], "depth 'z', not 'none'"),
    ):
        capsys.readouterr()
        assert cli.main([*argv, *change]) == 1
        err = capsys.readouterr().err
        assert "holds another render" in err
        assert message in err
    (tmp_path / "in" / "box-000.glb").write_bytes(bytes(Glb().add(*box(size=(3, 1, 1)))))
    assert cli.main(argv) == 1
    assert "mesh_sha256" in capsys.readouterr().err
    assert len(rig.read(tmp_path / "out" / "box-000")[0].cameras) == 7


def test_a_worker_that_dies_costs_its_mesh_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed, out = meshes(tmp_path / "in", 3), tmp_path / "out"

    def kill() -> None:
        while not list(out.glob(".render-work/.render-*")):  # it draws
            time.sleep(0.001)
        (worker,) = multiprocessing.active_children()
        worker.kill()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    argv = ["render", "--list", str(listed), str(out), "--jobs", "1", "--preset", "srn-test", "--size", "32"]
    assert cli.main(argv) == 1
    killer.join()
    printed = capsys.readouterr()
    assert "box-000.glb: its process ended with code -9, perhaps for lack of memory" in printed.err
    assert "2 drawn, 0 there before, 1 failed" in printed.out
    assert sorted(path.name for path in out.glob("box-*")) == ["box-001", "box-002"]


def test_a_manifest_keeps_rows_of_other_objects(tmp_path: Path) -> None:
    manifest = tmp_path / "all" / "objects.jsonl"
    for name in ("one", "two", "one"):
        if not (tmp_path / name).exists():
            listed = meshes(tmp_path / name, 2)
            listed.write_text(listed.read_text().replace('"caption"', f'"uid": "{name}-x", "caption"', 1))
        argv = ["render", "--list", str(tmp_path / name / "list.jsonl"), str(tmp_path / f"views-{name}"), *SMALL]
        argv += ["--jobs", "1"]
        assert cli.main([*argv, "--manifest", str(manifest)]) == 0
    rows = {row.uid: row.views for row in jsonl.read(manifest)}
    assert rows["two-x"] == "../views-two/two-x"
    assert rows["one-x"] == "../views-one/one-x"


def test_a_second_run_to_the_same_place_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import fcntl

    listed = meshes(tmp_path / "in", 1)
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / ".render-lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert cli.main(["render", "--list", str(listed), str(tmp_path / "out"), *SMALL]) == 1
    assert "another `render --list` writes there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--preset", "nerf"], 1, "unknown preset 'nerf'"),
        (["--size", "100000"], 1, "--size 100000: expected 1 to 4096"),
        (["--jobs", "0"], 2, "--jobs is 0"),
        (["--caption", "a box"], 2, "--caption: not allowed with --list; make it a column"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_drawn(
    options: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = meshes(tmp_path / "in", 2)
    assert cli.main(["render", "--list", str(listed), str(tmp_path / "out"), *options]) == code
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))


def test_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["render", str(tmp_path / "out")]) == 2
    assert "expected MESH OUT, or --list FILE OUT" in capsys.readouterr().err
    assert cli.main(["render", "m.glb", "out", "--list", "l"]) == 2
    assert cli.main(["render", "m.glb", "out", "--jobs", "2"]) == 2
    assert "--jobs is for --list" in capsys.readouterr().err
