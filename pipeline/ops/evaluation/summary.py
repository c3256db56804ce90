"""Summary of a dataset's rows: what evaluation.json and the tables say of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gaussianverse.pipeline.ops.evaluation.rows import LOST, MEASURED, METRICS
from gaussianverse.pipeline.ops.evaluation.statistics import rank_correlation, share_at_bound, spread_of
from gaussianverse.pipeline.run.measure import GEOMETRY

QUALITY = (*(f"unpacked_{m}" for m in METRICS), *(f"fit_{m}" for m in METRICS), "smoothness", "smoothness_appearance")
CONDITIONS = ("metrics_on", "background", "width", "height")
"""Columns that rows must share to be averaged: which views, over which background, at which size."""
ALL = "all objects"


def read_columns(path: Path, names: list[str]) -> pa.Table:
    """Columns of a file of rows."""
    with pq.ParquetFile(path) as file:
        return file.read(names, use_threads=False)


def values_of(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column as floats, NaN where the object lacks the number."""
    values: NDArray[np.float64] = table[name].to_numpy().astype(np.float64)
    # correlations and PSNR of a hopeless render may be negative, and are never exactly -1
    values[values == -1] = np.nan
    return values


def counts_of(path: Path, bound: int) -> dict[str, Any]:
    """Gaussians per object, for every object of the dataset; the paper's Table 1 and Fig. 2d.

    Returns:
        The distribution of `gaussians` (in the fit) and `in_atlas`, the bound, `share_at_bound`, Spearman's
        rank correlation with `complexity` and with the detail in a whole picture (complexity times coverage), the
        number of objects behind both, and the number of objects whose atlas dropped some.
    """
    table = read_columns(path, ["state", "n_gaussians", "n_atlas", "complexity", "coverage"])
    table = table.filter(pc.not_equal(table["state"], LOST))
    counts, held = (table[name].to_numpy() for name in ("n_gaussians", "n_atlas"))
    complexity = values_of(table, "complexity")
    correlation, n = rank_correlation(counts.astype(np.float64), complexity)
    # complexity is a mean inside the object, and the larger an object is in the picture, the more it takes to draw
    of_detail, _ = rank_correlation(counts.astype(np.float64), complexity * values_of(table, "coverage"))
    return {
        "gaussians": asdict(spread_of(counts.astype(np.float64))),
        "in_atlas": asdict(spread_of(held.astype(np.float64))),
        "bound": bound,
        "share_at_bound": share_at_bound(counts, bound),
        "spearman_with_complexity": correlation,
        "spearman_with_detail": of_detail,
        "spearman_objects": n,
        "objects_cut": int((held < counts).sum()),
    }


def groups_of(path: Path) -> list[dict[str, Any]]:
    """Quality of the measured objects, apart by `CONDITIONS`, the largest group first.

    Returns:
        Per group its conditions, its number of objects, and the distributions of `QUALITY` (and of geometry, if it
        was measured): of all its objects under `all`, and under `by_category` of each.
    """
    with pq.ParquetFile(path) as file:
        geometry = [name for name in GEOMETRY if name in file.schema_arrow.names]
    quality = [*QUALITY, *geometry]
    table = read_columns(path, ["state", "category", *CONDITIONS, "n_measured", *quality])
    table = table.filter(pc.equal(table["state"], MEASURED))
    keys = list(zip(*(table[name].to_pylist() for name in CONDITIONS), strict=True)) if len(table) else []
    groups = []
    for key in sorted(set(keys), key=lambda k: (-keys.count(k), k)):
        rows = table.filter(pa.array([k == key for k in keys]))
        views = rows["n_measured"].to_numpy()
        group = dict(zip(CONDITIONS, key, strict=True))
        categories = sorted(set(rows["category"].to_pylist()))
        groups.append(
            {
                **group,
                "objects": len(rows),
                "views_per_object": {"min": int(views.min()), "max": int(views.max())},
                "all": _distributions(rows, quality),
                "by_category": {
                    category: _distributions(rows.filter(pc.equal(rows["category"], category)), quality)
                    for category in categories
                },
            }
        )
    return groups


def _distributions(rows: pa.Table, names: list[str]) -> dict[str, Any]:
    return {name: asdict(spread_of(values_of(rows, name))) for name in names}
