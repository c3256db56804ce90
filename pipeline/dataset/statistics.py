"""Statistics of the atlases of shards and of the dataset, for standardisation (paper section 5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.arrays import npy
from gaussianverse.atlas.canonical_json import to_json_file
from gaussianverse.atlas.dataset_format import ATLAS, CHANNEL_NAMES
from gaussianverse.atlas.moments import Moments
from gaussianverse.atlas.plane import points_of
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.in_order import in_order
from gaussianverse.pipeline.dataset.members import atlas_array
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.shards import read_main, stats_table
from gaussianverse.pipeline.dataset.versions import Version

STD_FLOOR = 1e-6
QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
"""Fractions of channels.json; quantiles are accurate to 1/64 of their value, see `Moments`."""


def moments_of(mains: Iterable[bytes], run: Run) -> bytes:
    """The `Moments` of a shard's atlases, as a file."""
    config = run.atlas
    moments = Moments(config.size)
    for data in mains:
        moments.add(atlas_array(data, config))
    return bytes(moments.to_bytes())


def live_moments(storage: Storage, version: Version) -> Iterator[bytes]:
    """Yield the moments of each shard of a version; a shard that lost rows is counted again from its atlases."""

    def read(shard: int) -> bytes:
        if not len(version.superseded.in_shard(shard)):
            return storage.get(layout.moments(shard))
        rows = version.live(stats_table(storage, ATLAS, shard), shard).to_pylist()
        mains = (read_main(storage, ATLAS, shard, row) for row in rows if row["sample"] != -1)
        return moments_of(mains, version.run)

    yield from in_order(storage, read, version.shards)


def merged_statistics(moments: Iterable[bytes], run: Run) -> dict[str, bytes]:
    """The files of `dataset_format.STATISTICS`, from the moments of all shards in order.

    Mean and standard deviation per pixel and channel, float32 [size, size, 16]; range and quantiles per channel;
    the sphere point of each pixel, float64 [size, size, 3]: a position is its offset plus this point.
    """
    config = run.atlas
    total = Moments(config.size)
    for data in moments:
        total.merge(Moments.from_bytes(data))
    return {
        dataset_format.MEAN: npy(np.asarray(total.mean(), np.float32)),
        dataset_format.STD: npy(np.asarray(total.std(STD_FLOOR), np.float32)),
        dataset_format.CHANNEL_STATISTICS: to_json_file(channel_statistics(total)),
        dataset_format.POINTS: npy(points_of(config).reshape(config.size, config.size, 3)),
    }


def channel_statistics(moments: Moments) -> dict[str, Any]:
    """The content of channels.json: range and quantiles of each channel over all cells, including padding."""
    quantiles = moments.quantiles(QUANTILES)
    return {
        "atlases": moments.count,
        "fractions": list(QUANTILES),
        "channels": [
            {
                "name": name,
                "min": float(moments.lowest[k]),
                "max": float(moments.highest[k]),
                "quantiles": [float(value) for value in quantiles[k]],
            }
            for k, name in enumerate(CHANNEL_NAMES)
        ],
    }
