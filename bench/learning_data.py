"""Objects, captions and intervals that the benchmarks of learning share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from torch import Tensor

from gaussianverse.atlas import AtlasDataset
from gaussianverse.examples.views import Cameras, orbit, psnr, render_atlas

Transform = Callable[[Any], Any]
CAMERAS = orbit()
"""Cameras of every PSNR: 8 around the object at 128 px, on white."""


@dataclass(frozen=True)
class Objects:
    """Atlases [16, S, S] of some objects of a dataset, in their own units, by uid."""

    uids: list[str]
    captions: list[str]
    atlases: list[Tensor]
    points: Tensor

    def renders(self) -> list[Tensor]:
        """Renders of each atlas from `CAMERAS`, [8, 128, 128, 3]."""
        return [render_atlas(atlas, self.points, CAMERAS) for atlas in self.atlases]

    def score(self, atlas: Tensor, render: Tensor, cameras: Cameras = CAMERAS) -> float:
        """PSNR of an atlas's renders against those of another."""
        return psnr(render_atlas(atlas, self.points, cameras), render)


def read(dataset: AtlasDataset, count: int | None = None) -> Objects:
    """Read `count` objects at equal steps of the list by uid; None = all."""
    uids = sorted(dataset.catalogue.column("uid").take(dataset.samples.places).to_pylist())
    if count is not None and count < len(uids):
        uids = [uids[k] for k in np.linspace(0, len(uids) - 1, count).round().astype(int)]
    samples = [dataset.get(uid) for uid in uids]
    return Objects(uids, [s["caption"] for s in samples], [s["atlas"].clone() for s in samples], dataset.points())


def numbered(dataset: AtlasDataset) -> dict[str, str]:
    """A caption of its own for each object: "category name", with a number where several share it, in uid order.

    Names made from file names are not unique; without a number, two objects of one caption could not be told apart.
    """
    places = dataset.samples.places
    columns = [dataset.catalogue.column(name).take(places).to_pylist() for name in ("uid", "category", "caption")]
    rows = sorted(zip(*columns, strict=True))
    count = Counter((category, caption) for _, category, caption in rows)
    seen: Counter[tuple[str, str]] = Counter()
    captions = {}
    for uid, category, caption in rows:
        seen[category, caption] += 1
        number = f" {seen[category, caption]}" if count[category, caption] > 1 else ""
        captions[uid] = f"{category} {caption}{number}"
    return captions


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval by Student's t."""
    array = np.asarray(values, float)
    if len(array) < 2:
        return float(array.mean()), float("nan")
    half = stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array))
    return float(array.mean()), float(half)
