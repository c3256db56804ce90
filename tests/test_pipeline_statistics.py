"""Statistics of a dataset, of the moments of its shards."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from atlas_objects import cloud, gaussians

from gaussianverse import atlas
from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.arrays import npy
from gaussianverse.atlas.dataset_format import CHANNEL_NAMES
from gaussianverse.pipeline.dataset import statistics
from gaussianverse.pipeline.dataset.run_file import Run


def test_moments_do_not_depend_on_how_they_are_merged() -> None:
    run = Run({"config": {"fit": {}, "atlas": {"size": 16}, "run": {}}})
    rng = np.random.default_rng(0)
    mains = [npy(rng.normal(size=(16, 16, 16)).astype(np.float32)) for _ in range(5)]
    whole = statistics.merged_statistics([statistics.moments_of(mains, run)], run)
    parts = statistics.merged_statistics(
        [statistics.moments_of(mains[:2], run), statistics.moments_of(mains[2:], run)], run
    )
    for key in (dataset_format.MEAN, dataset_format.STD):
        one, two = (np.load(io.BytesIO(found[key])) for found in (whole, parts))
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-7)
    assert whole[dataset_format.CHANNEL_STATISTICS] == parts[dataset_format.CHANNEL_STATISTICS]


def test_channels_have_their_range_and_quantiles() -> None:
    run = Run({"config": {"fit": {}, "atlas": {"size": 16}, "run": {}}})
    rng = np.random.default_rng(0)
    values = rng.normal(size=(7, 16, 16, 16)).astype(np.float32) * np.arange(1, 17, dtype=np.float32)
    found = json.loads(
        statistics.merged_statistics([statistics.moments_of([npy(v) for v in values], run)], run)[
            dataset_format.CHANNEL_STATISTICS
        ]
    )
    assert found["atlases"] == 7
    assert [c["name"] for c in found["channels"]] == list(CHANNEL_NAMES)
    flat = values.reshape(-1, 16)
    assert [c["min"] for c in found["channels"]] == flat.min(axis=0).tolist()
    assert [c["max"] for c in found["channels"]] == flat.max(axis=0).tolist()
    expected = np.quantile(flat, found["fractions"], axis=0, method="lower").T
    np.testing.assert_allclose([c["quantiles"] for c in found["channels"]], expected, rtol=1 / 64, atol=1e-2)


@pytest.mark.parametrize("layout_of_sphere", ["fibonacci", "ring"])
def test_the_published_points_are_what_unpacking_adds(layout_of_sphere: str) -> None:
    run = Run({"config": {"fit": {}, "atlas": {"size": 16, "layout": layout_of_sphere}, "run": {}}})
    made = atlas.pack(gaussians(cloud("shell", 256)), run.atlas)
    found = statistics.merged_statistics([statistics.moments_of([made.to_bytes()], run)], run)
    points = np.load(io.BytesIO(found[dataset_format.POINTS]))
    assert (points.shape, points.dtype) == ((16, 16, 3), np.float64)
    positions = (made.array[..., :3] + points).astype(np.float32).reshape(-1, 3)
    np.testing.assert_array_equal(positions, atlas.unpack(made.array, run.atlas).means)
