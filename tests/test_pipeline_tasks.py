"""The bodies of the tasks, on a tiny ball: what they publish, and how they report each error."""

from __future__ import annotations

import errno
import io
import json
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from analytic import ball_views
from PIL import Image
from pipeline_runs import TINY, write_manifest, write_views

from gaussianverse import atlas
from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.dataset_format import ATLAS, SPLATS, VIEWS
from gaussianverse.atlas.errors import AtlasError, RoughAtlas, TransportFailed
from gaussianverse.atlas.store.errors import NotFound, StoreError
from gaussianverse.fitter.errors import BadInput, FitTimeout, LowPsnr, NanLoss, TooFewGaussians
from gaussianverse.fitter.lpips import LpipsUnavailable
from gaussianverse.fitter.rasterize import BackendUnavailable
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.dataset import layout, members, records, statistics
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.schemas import FACTS, FRAME, JOURNAL
from gaussianverse.pipeline.errors import FragmentError, ShardConflict
from gaussianverse.pipeline.policy import CONFLICT, DAMAGED, INFRASTRUCTURE, UNREAD, seed_of
from gaussianverse.pipeline.run import inputs, job, tasks
from gaussianverse.pipeline.run.executor import Job
from gaussianverse.pipeline.run.neighbours import ALONE, BESIDE
from gaussianverse.pipeline.run.reading import Unreachable, Unread

CONFIG = load("test", TINY)


class Planned:
    """A planned run of one ball, before any work."""

    def __init__(self, folder: Path) -> None:
        write_views(folder / "views" / "ball")
        manifest = write_manifest(folder, ["ball"])
        self.storage, self.run, base = job.plan(str(folder / "out"), str(manifest), CONFIG)
        self.job = Job(self.storage.url, base)
        self.row: dict[str, Any] = {**shard_rows(self.storage, self.run, 0)[0], "shard": 0}

    def fragment(self, stage: str) -> bytes:
        return self.storage.get(layout.fragment(stage, 0, "ball"))


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    return Planned(tmp_path)


def test_the_stages_one_after_the_other(planned: Planned) -> None:
    p = planned
    fitted = tasks.fit_object(p.job, p.row, 1, 0)
    assert float(fitted.pop("seconds")) >= float(fitted.pop("fit_seconds")) > 0
    assert fitted == {"status": "ok", "uid": "ball", "node": socket.gethostname()}
    fit = records.read(p.storage, SPLATS, 0, "ball")
    assert len(atlas.Gaussians.from_bytes(fit.main(SPLATS))) == fit.facts["n_gaussians"]
    assert fit.facts["seed"] == seed_of(0, "ball", 0)
    assert fit.facts["atlas_heldout_psnr"] == fit.facts["psnr"] > 0  # 16 x 16 cells hold up to 200 Gaussians
    laid_out = tasks.atlas_object(p.job, p.row, 1)
    assert laid_out["gaussians"] == fit.facts["n_gaussians"]
    assert laid_out["psnr"] == fit.facts["atlas_heldout_psnr"]
    made = records.read(p.storage, ATLAS, 0, "ball")
    assert (
        len(atlas.unpack(members.atlas_array(made.main(ATLAS), p.run.atlas), p.run.atlas)) == fit.facts["n_gaussians"]
    )
    assert made.facts["n_dropped"] == 0
    assert made.facts["atlas_psnr"] > 60  # type: ignore[operator]
    for stage in layout.STAGES:
        assert tasks.pack_shard(p.job, stage, 0)["samples"] == 1
    moments = p.storage.get(layout.moments(0))
    assert statistics.moments_of([made.main(ATLAS)], p.run) == moments
    found = statistics.merged_statistics([moments], p.run)
    assert tuple(found) == dataset_format.STATISTICS
    mean, std = (np.load(io.BytesIO(found[key])) for key in (dataset_format.MEAN, dataset_format.STD))
    np.testing.assert_allclose(mean, members.atlas_array(made.main(ATLAS), p.run.atlas), rtol=1e-6)
    np.testing.assert_array_equal(std, np.float32(statistics.STD_FLOOR))


def test_an_object_in_millimetres_is_published_with_its_views_and_its_atlas_in_one_frame(tmp_path: Path) -> None:
    write_views(tmp_path / "views" / "ball")
    for file in (tmp_path / "views" / "ball").glob("*/*.json"):
        camera = json.loads(file.read_text())
        camera["origin"] = [1000 * v + 500 for v in camera["origin"]]
        file.write_text(json.dumps(camera))
    config = load("test", [*TINY, "run.views=3", "run.views_size=16"])
    storage, run, base = job.plan(str(tmp_path / "out"), str(write_manifest(tmp_path, ["ball"])), config)
    row = {**shard_rows(storage, run, 0)[0], "shard": 0}
    assert tasks.fit_object(Job(storage.url, base), row, 1, 0)["status"] == "ok"
    assert tasks.atlas_object(Job(storage.url, base), row, 1)["status"] == "ok"
    splats, views, made = (records.read(storage, family, 0, "ball") for family in (SPLATS, VIEWS, ATLAS))
    means = atlas.Gaussians.from_bytes(splats.main(SPLATS)).means
    assert np.abs(means).max() < 1.5
    place = [splats.facts[name] for name in FRAME]
    np.testing.assert_allclose(place, [500, 500, 500, 1000], rtol=0.3)
    assert [made.facts[name] for name in FRAME] == place
    with np.load(io.BytesIO(views.main(VIEWS))) as cameras:
        eyes = np.linalg.inv(cameras["viewmats"].astype(np.float64))[:, :3, 3]
        centers = (cameras["viewmats"] @ np.append((500 - np.array(place[:3])) / place[3], 1))[:, :3]
        pixels = np.einsum("vij,vj->vi", cameras["Ks"], centers / centers[:, 2:])[:, :2]
    assert (np.linalg.norm(eyes, axis=1) < 3).all()
    np.testing.assert_allclose(pixels, 8, atol=1e-3)  # the ball is in the middle of every picture
    assert 0.05 < np.median(np.linalg.norm(means, axis=1)) < 0.6


def test_the_test_split_is_held_out_and_no_reference_view(tmp_path: Path) -> None:
    views = ball_views(10, 32)
    for split, first, last in (("train", 0, 7), ("test", 7, 10)):
        frames = []
        for k in range(first, last):
            (tmp_path / "ball" / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(views.images[k]).save(tmp_path / "ball" / split / f"{k}.png")
            pose = views.c2w[k] @ np.diag([1, -1, -1, 1])
            frames.append({"file_path": f"{split}/{k}", "transform_matrix": pose.tolist()})
        cameras = {"camera_angle_x": 0.6911503, "frames": frames}
        (tmp_path / "ball" / f"transforms_{split}.json").write_text(json.dumps(cameras))
    manifest = write_manifest(tmp_path, ["ball"], views="ball")
    found = {}
    for heldout in ("test", "every"):
        config = load("test", [*TINY, "run.views=7", "run.views_size=16", f"fit.heldout={heldout}"])
        storage, run, base = job.plan(str(tmp_path / heldout), str(manifest), config)
        row = {**shard_rows(storage, run, 0)[0], "shard": 0}
        assert tasks.fit_object(Job(storage.url, base), row, 1, 0)["status"] == "ok"
        facts = records.read(storage, SPLATS, 0, "ball").facts
        assert facts["metrics_on"] == {"test": "heldout", "every": "train"}[heldout]
        found[heldout] = (facts["n_views"], facts["n_heldout"], facts["input_sha256"])
        with np.load(io.BytesIO(records.read(storage, VIEWS, 0, "ball").main(VIEWS))) as cameras:
            eyes = np.linalg.inv(cameras["viewmats"].astype(np.float64))[:, :3, 3]
        apart = np.linalg.norm(eyes[:, None] - views.c2w[None, :7, :3, 3], axis=2)
        assert sorted(apart.argmin(1)) == list(range(7))
        assert apart.min(1).max() < 1e-5
    assert found["test"][:2] == (7, 3)
    assert found["every"][:2] == (7, 0)  # of seven views, none is an eighth
    assert found["test"][2] != found["every"][2]


def test_nothing_that_a_stage_measures_is_dropped(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: dict[str, set[str]] = {}

    def watched(stage: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            made = real(*arguments, **options)
            measured[stage] = set(made.stats)
            return made

        return call

    monkeypatch.setattr(tasks, "fit_prepared", watched(SPLATS, tasks.fit_prepared))
    monkeypatch.setattr(atlas, "pack", watched(ATLAS, atlas.pack))
    tasks.fit_object(planned.job, planned.row, 1, 0)
    tasks.atlas_object(planned.job, planned.row, 1)
    assert set(measured) == set(layout.STAGES)
    for stage, names in measured.items():
        assert names <= {*FACTS[stage].names, *JOURNAL[stage].names}


def test_done_twice_and_elsewhere_the_bytes_are_the_same(planned: Planned, tmp_path: Path) -> None:
    tasks.fit_object(planned.job, planned.row, 1, 0)
    tasks.atlas_object(planned.job, planned.row, 1)
    other = Planned(tmp_path / "elsewhere")
    tasks.fit_object(other.job, other.row, 5, 0)
    tasks.atlas_object(other.job, other.row, 2)
    for stage in layout.STAGES:
        assert planned.fragment(stage) == other.fragment(stage)


def test_after_a_nan_the_seed_is_another(planned: Planned) -> None:
    tasks.fit_object(planned.job, planned.row, 2, 1)
    facts = records.read(planned.storage, SPLATS, 0, "ball").facts
    assert facts["seed"] == seed_of(0, "ball", 1) != seed_of(0, "ball", 0)


def test_missing_views_do_not_say_where_the_manifest_lay(planned: Planned) -> None:
    result = tasks.fit_object(planned.job, {**planned.row, "views": "views/none"}, 1, 0)
    assert result["reason"] == "missing_views"
    assert str(result["error_message"]).startswith("views/none: ")
    for views in (f"{planned.job.base}/views/none", "/nowhere/else"):
        row = {**planned.row, "views": views, BESIDE: f"{planned.job.base}/views/ball"}
        result = tasks.fit_object(planned.job, row, 1, 0)
        assert str(result["error_message"]) == "no such file or folder; check the address of the views"


def test_stage_2_quarantines_what_stage_1_did_for_the_same_reason(planned: Planned) -> None:
    p, why = planned, {"reason": "low_psnr", "error_class": "LowPsnr", "error_message": "12 dB"}
    records.publish_quarantine(p.storage, SPLATS, p.row, p.run, why, records.Stopwatch(1))
    result = tasks.atlas_object(p.job, p.row, 1)
    assert (result["status"], result["reason"]) == ("quarantined", "low_psnr")
    facts = records.read(p.storage, ATLAS, 0, "ball").facts
    assert (facts["reason"], facts["error_message"]) == ("low_psnr", "12 dB")


def test_an_atlas_without_its_fit_and_a_pack_without_fragments_quarantine_nothing(planned: Planned) -> None:
    assert tasks.atlas_object(planned.job, planned.row, 1)["reason"] == DAMAGED
    result = tasks.pack_shard(planned.job, SPLATS, 0)
    assert (result["reason"], result["error_class"]) == (DAMAGED, "FragmentError")


def test_a_deadline_ends_a_fit(planned: Planned) -> None:
    late = Job(planned.job.url, planned.job.base, fit_deadline_s=-1.0)
    assert tasks.fit_object(late, planned.row, 1, 0)["reason"] == "timeout"


FAULTS: list[tuple[BaseException, str]] = [
    (BadInput("x"), "bad_input"),
    (NanLoss("x"), "nan_loss"),
    (LowPsnr("x"), "low_psnr"),
    (TooFewGaussians("x"), "too_few_gaussians"),
    (FitTimeout("x"), "timeout"),
    (AtlasError("x"), "bad_input"),
    (TransportFailed("x"), "transport_failed"),
    (RoughAtlas("x"), "rough_atlas"),
    (inputs.InputTooLarge("x"), "bad_input"),
    (inputs.NoViews("x"), "missing_views"),
    (ShardConflict("x"), CONFLICT),
    (StoreError("x"), INFRASTRUCTURE),
    (NotFound("x"), DAMAGED),
    (FragmentError("x"), DAMAGED),
    (BackendUnavailable("x"), INFRASTRUCTURE),
    (LpipsUnavailable("x"), INFRASTRUCTURE),
    (MemoryError(), "out_of_memory"),
    (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
    (RuntimeError("CUDA error: an illegal memory access"), "cuda_error"),
    (RuntimeError("something"), "unknown"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "out_of_memory"),
    (OSError("an error without a number"), "unknown"),
    (Unread("x"), UNREAD),
    (Unreachable("x"), INFRASTRUCTURE),
    (inputs.NoRoom("x"), INFRASTRUCTURE),
    (ModuleNotFoundError("no module"), INFRASTRUCTURE),
    (ConnectionError("cut"), INFRASTRUCTURE),
    (ZeroDivisionError("x"), "unknown"),
]


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
def test_every_error_has_its_reason(fault: BaseException, reason: str) -> None:
    def body() -> dict[str, Any]:
        raise fault

    result = tasks._guarded(body)
    assert (result["status"], result["reason"]) == ("failed", reason)
    assert result["error_class"] == ("" if isinstance(fault, ConnectionError) else type(fault).__name__)
    assert result["error_message"]


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_whatever_the_system_says_while_no_views_are_read_is_the_machines_fault(number: int) -> None:
    def body() -> dict[str, Any]:
        raise OSError(number, os.strerror(number), "/some/where")

    result = tasks._guarded(body)
    assert result["reason"] == INFRASTRUCTURE
    assert str(result["error_message"]).startswith(f"/some/where: {os.strerror(number)}; ")
    lasting = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}
    assert bool(result.get("lasting")) == (number in lasting)


def test_a_task_that_is_alone_on_a_node_without_room_does_not_begin(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "memory_shortage", lambda: "1 of 64 GiB are free")
    monkeypatch.setattr(tasks, "_open", lambda job: pytest.fail("it began"))
    for body in (partial(tasks.fit_object, nan_losses=0), tasks.atlas_object):
        result = body(planned.job, {**planned.row, ALONE: 1}, 1)
        assert (result["reason"], result["error_message"]) == (INFRASTRUCTURE, "1 of 64 GiB are free")


def test_death_is_not_a_fault() -> None:
    def body() -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tasks._guarded(body)


def test_float16_atlases_are_stored_as_such(planned: Planned) -> None:
    p = planned
    tasks.fit_object(p.job, p.row, 1, 0)
    config = AtlasConfig(size=16, dtype="float16", min_smoothness=0.0)
    fit = records.read(p.storage, SPLATS, 0, "ball")
    made = atlas.pack(atlas.Gaussians.from_bytes(fit.main(SPLATS)), config)
    assert len(atlas.unpack(members.atlas_array(made.to_bytes(), config), config)) == fit.facts["n_gaussians"]


def test_no_more_than_a_small_dict_travels(planned: Planned) -> None:
    import pickle

    result = tasks.fit_object(planned.job, planned.row, 1, 0)
    assert len(pickle.dumps((planned.job, planned.row))) < 2000
    assert len(pickle.dumps(result)) < 2000
