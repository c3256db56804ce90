"""Predictions of a run's cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from pipeline_runs import planned, publish_all

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import SPLATS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.manifests import runform
from gaussianverse.manifests.schema import Row
from gaussianverse.pipeline.config import RunConfig, load
from gaussianverse.pipeline.dataset import layout, pack
from gaussianverse.pipeline.errors import UsageError
from gaussianverse.pipeline.ops import plan


def manifest(count: int, shard_size: int = 256) -> bytes:
    return runform.encode([Row(f"o{i:06}", "v") for i in range(count)], shard_size=shard_size)


def test_the_papers_dataset_takes_what_the_paper_says() -> None:
    """205,737 objects of ten minutes are 34,290 GPU-hours."""
    config = dataclasses.replace(load("paper"))
    small = plan.plan_of(manifest(2058, 256), config, slots=1024)
    assert small.shards == 9
    assert small.gpu_hours == pytest.approx(2058 / 6)
    assert small.gpu_hours * 205_737 / 2058 == pytest.approx(34_290, rel=1e-3)
    assert small.days == pytest.approx(2058 * 600 / 1024 / 86400)
    assert small.atlas_bytes == pytest.approx(2058 * 128 * 128 * 16 * 4, rel=0.01)
    assert small.basis == "the paper's"


def test_on_cores_atlases_take_their_share_and_no_gpu() -> None:
    made = plan.plan_of(manifest(100), load("cpu"), slots=2, seconds=50)
    assert made.gpu_hours == 0
    assert made.days == pytest.approx(100 * (50 + plan.ATLAS_S) / 2 / 86400)
    assert made.cpu_hours == pytest.approx(100 * (50 + plan.ATLAS_S) / 3600)


@pytest.mark.parametrize(("slots", "seconds"), [(0, None), (1, 0.0), (1, -2.0)])
def test_what_cannot_be_is_a_usage_error(slots: int, seconds: float | None) -> None:
    with pytest.raises(UsageError):
        plan.plan_of(manifest(3), RunConfig(), slots=slots, seconds=seconds)


def test_puts_are_those_that_a_run_makes(tmp_path: Path) -> None:
    """The puts are counted on an undisturbed run."""
    storage, puts = LocalStorage(tmp_path), [0]

    def counting(put: Callable[[str, bytes | bytearray], bool]) -> Callable[[str, bytes | bytearray], bool]:
        def counted(key: str, data: bytes | bytearray) -> bool:
            puts[0] += 1
            return put(key, data)

        return counted

    storage.put_if_absent = counting(storage.put_if_absent)  # type: ignore[method-assign]
    storage.put_unsynced = counting(storage.put_unsynced)  # type: ignore[method-assign]
    from gaussianverse.pipeline.dataset.finalize import finalize
    from gaussianverse.pipeline.store.probes import prove_conditional_puts

    for _ in ("when planned", "when carried"):
        prove_conditional_puts(storage)
    run = planned(storage, ["a", "b", "c"], shard_size=2)
    for stage in layout.STAGES:
        publish_all(storage, run, stage)
        for shard in range(run.n_shards):
            pack.pack(storage, run, stage, shard)
    finalize(storage, run)
    expected = plan.plan_of(storage.get(layout.MANIFEST), RunConfig(), slots=1).puts
    assert puts[0] == expected


def test_a_run_that_was_made_tells_seconds_and_bytes(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    run = planned(storage, ["a", "b", "c"], shard_size=2)
    with pytest.raises(UsageError, match="no finished shard"):
        plan.measure(storage, run.n_shards)
    for stage in layout.STAGES:
        publish_all(storage, run, stage, quarantined={"b"})
        pack.pack(storage, run, stage, 0)
    measured = plan.measure(storage, run.n_shards)
    assert measured.objects == 1
    assert measured.splats_nbytes == len(storage.get(dataset_format.shard_tar(SPLATS, 0)))
    made = plan.plan_of(manifest(10), RunConfig(), slots=1, measured=measured)
    assert made.seconds_per_fit == measured.fit_s
    assert made.splats_bytes == 10 * measured.splats_nbytes
    assert "the mean of 1 objects" in plan.plan_text(made)
