"""Predictions of a run's cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pipeline_runs import planned, publish_all

from bench import costs
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
    small = plan.plan_of(manifest(2058, 256), config, slots=1024, profile="paper")
    assert small.shards == 9
    assert small.gpu_hours == pytest.approx(2058 / 6)
    assert small.gpu_hours * 205_737 / 2058 == pytest.approx(34_290, rel=1e-3)
    assert small.days == pytest.approx(2058 * 600 / 1024 / 86400)
    assert small.atlas_bytes == pytest.approx(2058 * 128 * 128 * 16 * 4, rel=0.01)
    assert small.basis.startswith("profile paper on one A100, the paper, section 3")


def test_on_cores_atlases_take_their_share_and_no_gpu() -> None:
    made = plan.plan_of(manifest(100), load("cpu"), slots=2, seconds=50)
    atlas_s = plan.costs()[plan.OF_ATLAS].seconds
    assert made.gpu_hours == 0
    assert made.days == pytest.approx(100 * (50 + atlas_s) / 2 / 86400)
    assert made.cpu_hours == pytest.approx(100 * (50 + atlas_s) / 3600)
    assert "GPU" not in plan.plan_text(made)


def test_kept_seconds_are_those_of_the_results_they_name() -> None:
    """`python -m bench.costs` renews the table; results of later commits wait for it."""
    kept, results = plan.costs(), costs.measured()
    assert set(kept) >= {plan.OF_ATLAS, plan.ON_CORES, plan.ON_GPUS, *results}
    for profile, entry in results.items():
        if kept[profile].commit == entry["commit"]:
            assert dataclasses.asdict(kept[profile]) == entry
    assert all(cost.seconds > 0 and cost.source for cost in kept.values())


def test_a_profile_costs_what_was_measured_of_it_and_says_so_where_nothing_was() -> None:
    kept = plan.costs()
    made = plan.plan_of(manifest(10), load("cpu"), slots=1, profile="cpu")
    assert made.seconds_per_fit == kept["cpu"].seconds
    assert made.basis == f"profile cpu on {kept['cpu'].device}, {kept['cpu'].source}"
    changed = plan.plan_of(manifest(10), load("cpu", ["fit.steps=50"]), slots=1, profile="cpu")
    assert "with other settings" in changed.basis
    unmeasured = plan.plan_of(manifest(10), load("test"), slots=1, profile="test")
    assert "profile test was not measured" in unmeasured.basis
    on_gpu = plan.plan_of(manifest(10), load("paper"), slots=1)
    assert (on_gpu.seconds_per_fit, "profile default was not measured" in on_gpu.basis) == (600, True)


def test_what_exceeds_the_cells_is_reduced_in_both_stages() -> None:
    reduction = plan.costs()[plan.OF_REDUCTION].seconds
    rule = plan.plan_of(manifest(10), load("cpu", ["fit.tau=36864"]), slots=1, profile="cpu")
    bound = plan.plan_of(manifest(10), load("cpu"), slots=1, profile="cpu")
    assert rule.seconds_per_fit == pytest.approx(bound.seconds_per_fit + reduction)
    assert rule.seconds_per_atlas == pytest.approx(bound.seconds_per_atlas + reduction)
    assert "s of reduction on a core" in rule.basis
    dropped = plan.plan_of(manifest(10), load("cpu", ["fit.tau=36864", "reduce.rule=scale"]), slots=1, profile="cpu")
    assert dropped.seconds_per_fit == bound.seconds_per_fit


def test_the_price_is_that_of_the_devices_that_fit() -> None:
    on_gpu = plan.plan_of(manifest(30), load("paper"), slots=8, profile="paper", price_per_hour=2.5)
    assert on_gpu.price == pytest.approx(30 * 600 / 3600 * 2.5)
    on_cores = plan.plan_of(manifest(30), load("cpu"), slots=8, seconds=35.0, price_per_hour=0.04)
    assert on_cores.price == pytest.approx(30 * (35 + plan.costs()[plan.OF_ATLAS].seconds) / 3600 * 0.04)
    assert plan.plan_of(manifest(30), load("cpu"), slots=8).price == -1
    for price in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="price per hour"):
            plan.plan_of(manifest(30), load("cpu"), slots=8, price_per_hour=price)


def test_small_runs_do_not_cost_nothing_and_large_ones_are_readable() -> None:
    small = plan.plan_text(plan.plan_of(manifest(1), load("cpu"), slots=4, seconds=2.0, price_per_hour=0.05))
    assert not [line for line in small.splitlines() if " 0.00 " in line or " 0 " in line or " 0.0 " in line]
    assert "core-hours" in small
    assert "seconds, without pauses" in small
    assert "under 0.001" in small
    large = plan.plan_of(manifest(300), load("paper"), slots=8, profile="paper", price_per_hour=2.0)
    text = plan.plan_text(dataclasses.replace(large, gpu_hours=34_289.5, price=68_579.0, days=1395.2))
    assert "34,290 GPU-hours" in text
    assert "68,579" in text
    assert "1,395 days" in text


@pytest.mark.parametrize(("slots", "seconds"), [(0, None), (1, 0.0), (1, -2.0), (1, float("nan"))])
def test_what_cannot_be_is_a_usage_error(slots: int, seconds: float | None) -> None:
    with pytest.raises(UsageError):
        plan.plan_of(manifest(3), RunConfig(), slots=slots, seconds=seconds)


@pytest.mark.parametrize(
    ("views", "format", "base", "requests"),
    [
        ("a.tar", "auto", "s3://bucket/set", 1),
        ("s3://bucket/a.tar.gz", "gobjaverse", "/disk", 1),
        ("a", "auto", "s3://bucket/set", 81),
        ("a", "transforms", "s3://bucket/set.v2", 41),
        ("a", "auto", "/disk", 0),
        ("/disk/a.tar", "auto", "s3://bucket", 0),
    ],
)
def test_views_on_s3_are_asked_for_while_all_slots_are_busy(
    views: str, format: str, base: str, requests: int
) -> None:
    """See test_pipeline_ahead.py for how many requests are made."""
    rows = runform.encode([Row(f"o{i}", views, format=format) for i in range(10)], shard_size=4)
    made = plan.plan_of(rows, load("paper"), slots=1000, seconds=10, base=base)
    assert made.input_requests == 10 * requests
    others = made.gets / 10 + 4
    assert made.requests_per_s == pytest.approx(100 * (others + requests))
    assert (f"{10 * requests:,} for views" in plan.plan_text(made)) == bool(requests)


def test_puts_are_those_that_a_run_makes(tmp_path: Path) -> None:
    """The puts are counted on an undisturbed run."""
    storage, puts = LocalStorage(tmp_path), [0]

    def counting(put: Callable[[str, Any], bool]) -> Callable[[str, Any], bool]:
        def counted(key: str, data: Any) -> bool:
            puts[0] += 1
            return put(key, data)

        return counted

    storage.put_if_absent = counting(storage.put_if_absent)  # type: ignore[method-assign]
    storage.put_unsynced = counting(storage.put_unsynced)  # type: ignore[method-assign]
    storage.put_file = counting(storage.put_file)  # type: ignore[method-assign]
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
        plan.measure(storage, run.shards)
    for stage in layout.STAGES:
        publish_all(storage, run, stage, quarantined={"b"})
        pack.pack(storage, run, stage, 0)
    measured = plan.measure(storage, run.shards)
    assert measured.objects == 1
    assert measured.splats_nbytes == len(storage.get(dataset_format.shard_tar(SPLATS, 0)))
    made = plan.plan_of(manifest(10), RunConfig(), slots=1, measured=measured)
    assert made.seconds_per_fit == measured.fit_s
    assert made.splats_bytes == 10 * measured.splats_nbytes
    assert "the mean of 1 objects on unknown" in plan.plan_text(made)
