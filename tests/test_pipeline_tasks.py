"""The bodies of the tasks, on a tiny ball: what they publish, and how each fault is reported."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from atlas_objects import cloud, gaussians
from pipeline_runs import TINY, write_manifest, write_views

import atlas
from atlas.config import AtlasConfig
from atlas.errors import AtlasError, RoughAtlas, TransportFailed
from fitter.errors import BadInput, FitTimeout, LowPsnr, NanLoss, TooFewGaussians
from fitter.lpips import LpipsUnavailable
from fitter.rasterize import BackendUnavailable
from pipeline import inputs, job, layout, records, tasks
from pipeline.config import load
from pipeline.errors import FragmentError, NotFound, PipelineError, ShardConflict, StorageError
from pipeline.executor import Job
from pipeline.identity import Run, shard_rows
from pipeline.policy import CONFLICT, DAMAGED, INFRASTRUCTURE, seed_of
from pipeline.schemas import FACTS, JOURNAL

CONFIG = load("test", TINY)


class Planned:
    """A planned run of one ball, before any work."""

    def __init__(self, folder: Path) -> None:
        write_views(folder / "views" / "ball")
        manifest = write_manifest(folder, ["ball"])
        self.storage, self.run, base = job.plan(str(folder / "out"), str(manifest), CONFIG)
        self.job = Job(self.storage.url, base)
        self.row: dict[str, Any] = {**shard_rows(self.storage, 0)[0], "shard": 0}

    def fragment(self, stage: str) -> bytes:
        return self.storage.get(layout.fragment(stage, 0, "ball"))


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    return Planned(tmp_path)


def test_the_stages_one_after_the_other(planned: Planned) -> None:
    p = planned
    fitted = tasks.fit_object(p.job, p.row, 1, 0)
    assert float(fitted.pop("fit_seconds")) > 0
    assert fitted == {"status": "ok", "uid": "ball"}
    fit = records.read(p.storage, layout.SPLATS, 0, "ball")
    assert tasks.check_splats(fit.main(layout.SPLATS)) == fit.facts["n_gaussians"]
    assert fit.facts["seed"] == seed_of(0, "ball", 0)
    assert tasks.atlas_object(p.job, p.row, 1) == {"status": "ok", "uid": "ball"}
    made = records.read(p.storage, layout.ATLAS, 0, "ball")
    assert tasks.check_atlas(made.main(layout.ATLAS), p.run.atlas) == fit.facts["n_gaussians"]
    assert made.facts["n_dropped"] == 0
    assert made.facts["atlas_psnr"] > 60  # type: ignore[operator]
    for stage in layout.STAGES:
        assert tasks.pack_shard(p.job, stage, 0) == {"status": "ok", "samples": 1}
    moments = p.storage.get(layout.moments(0))
    assert tasks.moments_of([made.main(layout.ATLAS)], p.run) == moments
    found = tasks.merged_statistics([moments], p.run)
    assert tuple(found) == layout.STATISTICS
    mean, std = (np.load(io.BytesIO(found[key])) for key in (layout.MEAN, layout.STD))
    np.testing.assert_allclose(mean, tasks.atlas_array(made.main(layout.ATLAS), p.run.atlas), rtol=1e-6)
    np.testing.assert_array_equal(std, np.float32(tasks.STD_FLOOR))


def test_nothing_that_a_stage_measures_is_dropped(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: dict[str, set[str]] = {}

    def watched(stage: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            made = real(*arguments, **options)
            measured[stage] = set(made.stats)
            return made

        return call

    monkeypatch.setattr(tasks, "fit_views", watched(layout.SPLATS, tasks.fit_views))
    monkeypatch.setattr(atlas, "pack", watched(layout.ATLAS, atlas.pack))
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
    facts = records.read(planned.storage, layout.SPLATS, 0, "ball").facts
    assert facts["seed"] == seed_of(0, "ball", 1) != seed_of(0, "ball", 0)


def test_missing_views_do_not_say_where_the_manifest_lay(planned: Planned) -> None:
    result = tasks.fit_object(planned.job, {**planned.row, "views": "views/none"}, 1, 0)
    assert result["reason"] == "missing_views"
    assert str(result["error_message"]).startswith("views/none: ")


def test_what_stage_1_gave_up_stage_2_gives_up_for_the_same_reason(planned: Planned) -> None:
    p, why = planned, {"reason": "low_psnr", "error_class": "LowPsnr", "error_message": "12 dB"}
    records.publish_quarantine(p.storage, layout.SPLATS, p.row, p.run, why, records.Stopwatch(1))
    assert tasks.atlas_object(p.job, p.row, 1) == {"status": "quarantined", "uid": "ball"}
    facts = records.read(p.storage, layout.ATLAS, 0, "ball").facts
    assert (facts["reason"], facts["error_message"]) == ("low_psnr", "12 dB")


def test_an_atlas_without_its_fit_and_a_pack_without_fragments_condemn_nobody(planned: Planned) -> None:
    assert tasks.atlas_object(planned.job, planned.row, 1)["reason"] == DAMAGED
    result = tasks.pack_shard(planned.job, layout.SPLATS, 0)
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
    (StorageError("x"), INFRASTRUCTURE),
    (NotFound("x"), DAMAGED),
    (FragmentError("x"), DAMAGED),
    (BackendUnavailable("x"), INFRASTRUCTURE),
    (LpipsUnavailable("x"), INFRASTRUCTURE),
    (MemoryError(), "out_of_memory"),
    (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
    (RuntimeError("CUDA error: an illegal memory access"), "cuda_error"),
    (RuntimeError("something"), "unknown"),
    (ZeroDivisionError("x"), "unknown"),
]


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
def test_every_fault_has_its_reason(fault: BaseException, reason: str) -> None:
    def body() -> dict[str, Any]:
        raise fault

    result = tasks._guarded(body)
    assert (result["status"], result["reason"]) == ("failed", reason)
    assert result["error_class"] == type(fault).__name__
    assert result["error_message"]


def test_death_is_not_a_fault() -> None:
    def body() -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tasks._guarded(body)


def damaged(change: Callable[[np.ndarray], np.ndarray]) -> bytes:
    return tasks.npy(change(np.zeros((16, 16, 16), np.float32)))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (damaged(lambda a: a[:8]), "expected float32"),
        (damaged(lambda a: a.astype(np.float64)), "float64"),
        (damaged(lambda a: a + np.inf), "not finite"),
        (damaged(lambda a: a)[:200], "not a .npy file"),
        (b"", "not a .npy file"),
        (b"\x93NUMPY", "not a .npy file"),
    ],
)
def test_what_is_no_atlas_is_named(data: bytes, words: str) -> None:
    with pytest.raises(AtlasError, match=words):
        tasks.atlas_array(data, AtlasConfig(size=16))


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    flag = tmp_path / "opened"

    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (flag,)

    sink = io.BytesIO()
    np.save(sink, np.array([Bomb()], object), allow_pickle=True)
    with pytest.raises(AtlasError, match=r"not a \.npy file"):
        tasks.atlas_array(sink.getvalue(), AtlasConfig(size=16))
    with pytest.raises(AtlasError):
        tasks.check_splats(sink.getvalue())
    assert not flag.exists()


def test_float16_atlases_are_stored_as_such(planned: Planned) -> None:
    p = planned
    tasks.fit_object(p.job, p.row, 1, 0)
    config = AtlasConfig(size=16, dtype="float16", min_smoothness=0.0)
    fit = records.read(p.storage, layout.SPLATS, 0, "ball")
    made = atlas.pack(atlas.Gaussians.from_bytes(fit.main(layout.SPLATS)), config)
    assert tasks.check_atlas(made.to_bytes(), config) == fit.facts["n_gaussians"]


def test_the_representation_tells_a_reader_what_it_needs() -> None:
    one, two = (tasks.representation(AtlasConfig(size=size)) for size in (16, 16))
    assert one == two
    assert len(one["channels"]) == 16
    assert one["channels"][3] == one["channels"][7] == one["channels"][11] == "opacity"
    other = tasks.representation(AtlasConfig(size=17))
    assert {one[k] == other[k] for k in ("sphere_sha256", "plane_sha256")} == {False}


def test_a_machine_that_cannot_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tasks.check_machine(load("cpu").fit)
    with pytest.raises(PipelineError, match="--profile cpu"):
        tasks.check_machine(load("fast").fit)
    with pytest.raises(PipelineError, match="weights"):
        tasks.check_machine(load("test", ["fit.loss.lpips_net=alex"]).fit)


def test_warming_up_runs_what_a_fit_needs() -> None:
    tasks.warm_up(CONFIG.fit, CONFIG.atlas)


def test_no_more_than_a_small_dict_travels(planned: Planned) -> None:
    import pickle

    result = tasks.fit_object(planned.job, planned.row, 1, 0)
    assert len(pickle.dumps((planned.job, planned.row))) < 2000
    assert len(pickle.dumps(result)) < 2000


def test_moments_do_not_depend_on_how_they_are_merged() -> None:
    run = Run({"config": {"fit": {}, "atlas": {"size": 16}, "run": {}}})
    rng = np.random.default_rng(0)
    mains = [tasks.npy(rng.normal(size=(16, 16, 16)).astype(np.float32)) for _ in range(5)]
    whole = tasks.merged_statistics([tasks.moments_of(mains, run)], run)
    parts = tasks.merged_statistics([tasks.moments_of(mains[:2], run), tasks.moments_of(mains[2:], run)], run)
    for key in (layout.MEAN, layout.STD):
        one, two = (np.load(io.BytesIO(found[key])) for found in (whole, parts))
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-7)
    assert whole[layout.CHANNELS] == parts[layout.CHANNELS]


def test_channels_have_their_range_and_quantiles() -> None:
    run = Run({"config": {"fit": {}, "atlas": {"size": 16}, "run": {}}})
    rng = np.random.default_rng(0)
    values = rng.normal(size=(7, 16, 16, 16)).astype(np.float32) * np.arange(1, 17, dtype=np.float32)
    found = json.loads(
        tasks.merged_statistics([tasks.moments_of([tasks.npy(v) for v in values], run)], run)[layout.CHANNELS]
    )
    assert found["atlases"] == 7
    assert [c["name"] for c in found["channels"]] == list(tasks.CHANNELS)
    flat = values.reshape(-1, 16)
    assert [c["min"] for c in found["channels"]] == flat.min(axis=0).tolist()
    assert [c["max"] for c in found["channels"]] == flat.max(axis=0).tolist()
    expected = np.quantile(flat, found["fractions"], axis=0, method="lower").T
    np.testing.assert_allclose([c["quantiles"] for c in found["channels"]], expected, rtol=1 / 64, atol=1e-2)


@pytest.mark.parametrize("layout_of_sphere", ["fibonacci", "ring"])
def test_the_published_points_are_what_unpacking_adds(layout_of_sphere: str) -> None:
    run = Run({"config": {"fit": {}, "atlas": {"size": 16, "layout": layout_of_sphere}, "run": {}}})
    made = atlas.pack(gaussians(cloud("shell", 256)), run.atlas)
    found = tasks.merged_statistics([tasks.moments_of([made.to_bytes()], run)], run)
    points = np.load(io.BytesIO(found[layout.POINTS]))
    assert (points.shape, points.dtype) == ((16, 16, 3), np.float64)
    positions = (made.array[..., :3] + points).astype(np.float32).reshape(-1, 3)
    np.testing.assert_array_equal(positions, atlas.unpack(made.array, run.atlas).means)


def test_a_node_says_what_it_lacks() -> None:
    from pipeline.config import load

    assert tasks.examine_node(load("test")) == ""
    assert "CUDA" in tasks.examine_node(load("paper"))
