"""The whole job as users start it, on Ray: finished, repeated, killed, and with an object that cannot be done."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset as wds
from pipeline_commands import (
    build_arguments,
    build_command,
    command_line,
    descendants,
    fits_in,
    kill,
    kill_all,
    run,
    running,
    temporary_folder,
)
from pipeline_runs import PATIENCE_S, dataset, until, write_manifest, write_views

from gaussianverse.atlas import AtlasConfig, Gaussians, dataset_format, unpack
from gaussianverse.atlas.dataset_format import ATLAS, SPLATS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.parquet import from_parquet
from gaussianverse.pipeline.dataset.schemas import JOURNAL, METADATA, QUARANTINE
from gaussianverse.pipeline.dataset.shards import read_commit

GOOD = ["amber", "birch"]
BROKEN = "broken"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good objects, and one whose images are cut off."""
    folder = tmp_path_factory.mktemp("inputs")
    for seed, uid in enumerate([*GOOD, BROKEN]):
        write_views(folder / "views" / uid, seed)
    for image in (folder / "views" / BROKEN).glob("*/*.png"):
        image.write_bytes(image.read_bytes()[:-60])
    write_manifest(folder, [*GOOD, BROKEN], category="Food")
    return folder


@pytest.fixture(scope="module")
def finished(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalStorage, str]:
    """A run that nothing disturbed, and what it printed."""
    out, home = (tmp_path_factory.mktemp("finished") / name for name in ("out", "home"))
    home.mkdir()
    # as a user's shell is, without the switches of these tests
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = run(build_command(inputs, out), {**environment, "HOME": str(home)})
    assert done.returncode == 0, done.stderr
    first, *progress = done.stderr.splitlines()
    assert first == "3 objects, 2 at a time", "the first thing that a user sees; nobody measured such fits"
    assert "\r" not in done.stderr
    assert progress[-1].startswith("3/3 objects, ")
    assert "1 quarantined (1 decode_error)" in progress[-1]
    assert not (home / ".ray").exists(), "the token is the run's own and goes with it"
    return LocalStorage(out), done.stdout


def test_the_table_names_every_object_and_says_where_the_result_lies(finished: tuple[LocalStorage, str]) -> None:
    storage, printed = finished
    lines = {line.split()[0]: line for line in printed.splitlines() if line.split()}
    for uid in GOOD:
        n_gaussians, psnr, unit, psnr_of_fit, unit_of_fit, ssim, smoothness, seconds = lines[uid].split()[1:]
        assert int(n_gaussians) > 16
        assert float(psnr) > 5
        # the atlas holds all of these fits
        assert psnr == psnr_of_fit
        assert unit == unit_of_fit == "dB"
        assert max(float(ssim), float(smoothness)) <= 1
        assert float(seconds) > 0
    assert "quarantined: decode_error: views/broken" in lines[BROKEN]
    assert f"The dataset is complete: {storage.url}" in printed


def test_the_good_objects_are_there_and_the_broken_one_has_its_reason(finished: tuple[LocalStorage, str]) -> None:
    storage, _ = finished
    rows = from_parquet(METADATA, storage.get(dataset_format.METADATA)).to_pylist()
    assert [(r["uid"], r["status"], r["reason"]) for r in rows] == [
        ("amber", "ok", ""), ("birch", "ok", ""), (BROKEN, "quarantined", "decode_error"),
    ]  # fmt: skip
    assert all(r["atlas_psnr"] > 60 for r in rows[:2])
    assert all((r["category"], r["license"]) == ("Food", "CC0-1.0") for r in rows)
    given_up = from_parquet(QUARANTINE, storage.get(dataset_format.QUARANTINE)).to_pylist()
    assert [(r["uid"], r["stage"], r["error_class"]) for r in given_up] == [(BROKEN, "splats", "DecodeError")]
    assert "2 objects" in storage.get(dataset_format.CARD).decode()


def test_verify_finds_every_byte_right(
    finished: tuple[LocalStorage, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verify", "--out", finished[0].url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"url": finished[0].url, "faults": [], "notes": []}


def test_sha256sums_are_those_of_the_files(finished: tuple[LocalStorage, str]) -> None:
    storage, _ = finished
    sums = dict(reversed(line.split("  ")) for line in storage.get(dataset_format.SUMS).decode().splitlines())
    assert sums == {key: hashlib.sha256(data).hexdigest() for key, data in dataset(storage).items()}


def test_others_read_the_output(finished: tuple[LocalStorage, str]) -> None:
    """tarfile, webdataset, pyarrow and numpy, with nothing of ours."""
    storage, _ = finished
    for stage in layout.STAGES:
        suffix = dataset_format.MAIN_SUFFIX[stage]
        path = storage.root / dataset_format.shard_tar(stage, 0)
        with tarfile.open(path) as archive:
            assert archive.getnames() == [f"{uid}.{s}" for uid in GOOD for s in sorted([suffix, "json", "txt"])]
            assert {(m.mtime, m.uid, m.gid, m.mode) for m in archive} == {(0, 0, 0, 0o644)}
        samples = list(wds.WebDataset(str(path), shardshuffle=False).decode())
        assert [(s["__key__"], s["txt"]) for s in samples] == [(uid, f"a ball: {uid}") for uid in GOOD]
        assert [s["json"]["uid"] for s in samples] == GOOD
        table = pq.read_table(storage.root / layout.stats(stage, 0))
        assert table.column("uid").to_pylist() == [*GOOD, BROKEN]
        assert sum(column.null_count for column in table.columns) == 0
        for sample in samples:
            arrays = sample[suffix]
            assert (
                arrays.shape == (16, 16, 16)
                if stage == ATLAS
                else set(arrays) == {"means", "scales", "quats", "opacities", "colors"}
            )
    rows = pq.read_table(storage.root / dataset_format.METADATA).to_pylist()
    tar = (storage.root / dataset_format.shard_tar(ATLAS, 0)).read_bytes()
    offset, nbytes = rows[1]["atlas_offset"], rows[1]["atlas_nbytes"]
    atlas = np.load(io.BytesIO(tar[offset : offset + nbytes]), allow_pickle=False)
    np.testing.assert_array_equal(atlas, samples[1]["atlas.npy"])
    mean = np.load(storage.root / dataset_format.MEAN, allow_pickle=False)
    np.testing.assert_allclose(mean, np.mean([s["atlas.npy"] for s in samples], 0), atol=1e-6)


def test_an_atlas_holds_its_fit(finished: tuple[LocalStorage, str]) -> None:
    storage, _ = finished
    config = AtlasConfig(size=16)
    fits, atlases = (
        {s["__key__"]: s for s in wds.WebDataset(str(storage.root / key), shardshuffle=False)}
        for key in (dataset_format.shard_tar(stage, 0) for stage in layout.STAGES)
    )
    for uid in GOOD:
        fit = Gaussians.from_bytes(fits[uid]["splat.npz"])
        back = unpack(np.load(io.BytesIO(atlases[uid]["atlas.npy"])), config)
        order, other = (np.lexsort(g.means.round(4).T) for g in (fit, back))
        np.testing.assert_allclose(fit.means[order], back.means[other], atol=1e-6)
        np.testing.assert_array_equal(fit.colors[order], back.colors[other])


def test_a_second_run_does_nothing_and_says_so(inputs: Path, finished: tuple[LocalStorage, str]) -> None:
    storage, _ = finished
    before = {p: p.stat().st_mtime_ns for p in storage.root.rglob("*") if p.is_file()}
    done = run(build_command(inputs, storage.root))
    assert done.returncode == 0
    assert "Nothing to do" in done.stdout
    assert "Ray" not in done.stderr
    assert {p: p.stat().st_mtime_ns for p in storage.root.rglob("*") if p.is_file()} == before


def test_other_settings_under_the_same_output_are_refused(
    inputs: Path, finished: tuple[LocalStorage, str], capsys: pytest.CaptureFixture[str]
) -> None:
    storage, _ = finished
    before = dataset(storage)
    assert cli.main([*build_arguments(inputs, storage.root), "--set", "fit.steps=41"]) == 5
    assert "config.fit.steps is 100 there, 41 here" in capsys.readouterr().err
    assert dataset(storage) == before


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds Ray's processes in /proc")
def test_killed_half_way_and_started_again_it_gives_the_same_bytes(
    inputs: Path, finished: tuple[LocalStorage, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    storage = LocalStorage(out)
    with temporary_folder() as (temporary, environment):
        with running(build_command(inputs, out), tmp_path / "errors", environment) as driver:
            done = until(lambda: driver.poll() is not None or fits_in(out))
            below = kill_all(driver)
        killed = time.time()
        assert below, "Ray's processes were not found"
        assert not (out / layout.COMMITS).exists(), "it was not half-way any more"
        assert [path.name[:7] for path in temporary.iterdir() if path.name.startswith("gv")] == ["gv-ray-"]
        survivors = {key: (out / key).stat().st_ino for key in done}
        again = run(build_command(inputs, out), environment)
        assert not any(temporary.glob("gv-ray-*")), "what the killed run left went with the next"
    assert again.returncode == 0, again.stderr
    assert dataset(storage) == dataset(finished[0])
    assert storage.get(dataset_format.SUCCESS) == finished[0].get(dataset_format.SUCCESS)
    assert {key: (out / key).stat().st_ino for key in done} == survivors
    entries = from_parquet(JOURNAL[SPLATS], storage.get(layout.journal(SPLATS, 0))).to_pylist()
    before = {str(r["uid"]) for r in entries if r["started"] < killed}
    assert {layout.parse_fragment(key)[2] for key in done} <= before  # type: ignore[index]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds Ray's processes in /proc")
@pytest.mark.parametrize("stuck", [False, True], ids=["group", "stuck"])
def test_sigterm_ends_it_quietly_with_all_of_its_processes(
    inputs: Path, finished: tuple[LocalStorage, str], tmp_path: Path, *, stuck: bool
) -> None:
    """As Slurm and systemd send it: to the whole group, Ray's own processes included, any of which may end first.

    `stuck`: the driver waits for an answer of Ray's head, which does not come any more.
    """
    out, errors = tmp_path / "out", tmp_path / "errors"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [*build_command(inputs, out), "--set", "fit.steps=400"]
    with running(command, errors, {**environment, "TMPDIR": "/tmp"}) as driver:
        until(lambda: driver.poll() is not None or fits_in(out))
        below = descendants(driver.pid)
        if stuck:
            (head,) = (pid for pid in below if b"gcs_server" in command_line(pid))
            os.kill(head, signal.SIGSTOP)
            time.sleep(3)  # the driver asks it every second
            driver.terminate()
        else:
            os.killpg(driver.pid, signal.SIGTERM)
        assert driver.wait(PATIENCE_S) == 143, errors.read_text()
        if stuck:  # Ray's agents look for a head for another minute
            for pid in below:
                if b"Agent" in command_line(pid):
                    kill(pid)
        until(lambda: not any(map(command_line, below)))
    assert below, "Ray's processes were not found"
    told = errors.read_text().replace("\r", "\n").splitlines()
    assert told[-1] == "terminated; run the same command again to continue"
    assert not [line for line in told if "Check failed" in line or "*** SIG" in line or "Traceback" in line]
    (summary,) = (out / "runs").glob("summary-*.json")
    assert json.loads(summary.read_text())["stopped"] == "KeyboardInterrupt"


def test_the_scratch_may_go_once_the_dataset_is_complete(
    inputs: Path, finished: tuple[LocalStorage, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished[0].root, out)
    shutil.rmtree(out / layout.WORK)
    assert cli.main(build_arguments(inputs, out)) == 0
    assert "Nothing to do" in capsys.readouterr().out
    assert cli.main(["verify", "--out", str(out)]) == 0
    assert read_commit(LocalStorage(out), ATLAS, 0)["samples"] == 2
