"""Paired comparison of datasets: differences of the same objects, and the curve of quality against count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gaussianverse.pipeline.dataset.parquet import exact
from gaussianverse.pipeline.ops.evaluation.rows import MEASURED, METRICS
from gaussianverse.pipeline.ops.evaluation.statistics import spread_of
from gaussianverse.pipeline.ops.evaluation.summary import CONDITIONS, read_columns, values_of

COMPARED = (*(f"unpacked_{m}" for m in METRICS), *(f"fit_{m}" for m in METRICS), "smoothness")
_NAMES = ["uid", "state", "views_sha256", *CONDITIONS, "n_gaussians", "n_atlas", *COMPARED]
_F, _I = pa.float64(), pa.int64()
SCHEMA = exact(
    pa.schema(
        [
            ("uid", pa.string()), ("against", _I), ("n_gaussians", _I), ("n_gaussians_against", _I),
            *((name, _F) for name in COMPARED), *((f"{name}_against", _F) for name in COMPARED),
        ]
    )
)  # fmt: skip
"""Schema of pairs.parquet: `against` counts the datasets given as `--against` from 1."""


def pairs_of(one: Path, others: Sequence[Path]) -> tuple[pa.Table, list[dict[str, Any]], list[dict[str, Any]]]:
    """Join datasets by uid.

    Two objects are a pair where the very same images were measured in both: held-out views with held-out views, over
    one background, at one size. Others are counted by what differs.

    Args:
        one: file of rows of the dataset that is evaluated.
        others: files of rows of the datasets that it is compared with.

    Returns:
        The pairs, with `SCHEMA`; per other dataset the distributions of the differences (the first less the other)
        and how many objects were not compared, and why; and the curve: per dataset, the first included, its mean
        count and quality over the objects that all have and that are pairs throughout.
    """
    tables = [read_columns(path, _NAMES) for path in (one, *others)]
    places = [_places(table) for table in tables]
    keys = [list(zip(*(t[n].to_pylist() for n in ("views_sha256", *CONDITIONS)), strict=True)) for t in tables]
    rows: list[pa.Table] = []
    differences = []
    common = set(places[0])
    for k in range(1, len(tables)):
        skipped: Counter[str] = Counter()
        matched = []
        for uid, here in places[0].items():
            there = places[k].get(uid)
            if there is None:
                skipped["not measured in the other"] += 1
            elif why := _why_not(keys[0][here], keys[k][there]):
                skipped[why] += 1
            else:
                matched.append((uid, here, there))
        only = len(places[k].keys() - places[0].keys())
        if only:
            skipped["only measured in the other"] = only
        common &= {uid for uid, _, _ in matched}
        table, summary = _compared(tables[0], tables[k], matched, k)
        rows.append(table)
        differences.append({"against": k, "objects": len(matched), "not_compared": dict(skipped), **summary})
    shared = sorted(common)
    curve = [_point(table, [place[uid] for uid in shared]) for table, place in zip(tables, places, strict=True)]
    return pa.concat_tables(rows), differences, curve


def _places(table: pa.Table) -> dict[str, int]:
    states = table["state"].to_pylist()
    return {uid: place for place, uid in enumerate(table["uid"].to_pylist()) if states[place] == MEASURED}


def _why_not(one: tuple[Any, ...], other: tuple[Any, ...]) -> str:
    for name, a, b in zip(("other images", *CONDITIONS), one, other, strict=True):
        if name != "other images" and a != b:
            return f"other {name}"
    return "" if one[0] == other[0] else "other images"


def _compared(
    one: pa.Table, other: pa.Table, matched: Sequence[tuple[str, int, int]], number: int
) -> tuple[pa.Table, dict[str, Any]]:
    here, there = (np.array([m[k] for m in matched], np.int64) for k in (1, 2))
    columns: dict[str, Any] = {
        "uid": [m[0] for m in matched],
        "against": np.full(len(matched), number),
        "n_gaussians": one["n_gaussians"].to_numpy()[here],
        "n_gaussians_against": other["n_gaussians"].to_numpy()[there],
    }
    summary: dict[str, Any] = {}
    for name in COMPARED:
        a, b = values_of(one, name)[here], values_of(other, name)[there]
        columns[name], columns[f"{name}_against"] = np.nan_to_num(a, nan=-1.0), np.nan_to_num(b, nan=-1.0)
        summary[name] = asdict(spread_of(a - b))
    ratio = columns["n_gaussians"] / np.maximum(columns["n_gaussians_against"], 1)
    summary["gaussians_ratio"] = asdict(spread_of(ratio))
    return pa.table([pa.array(columns[f.name], f.type) for f in SCHEMA], schema=SCHEMA), summary


def _point(table: pa.Table, places: Sequence[int]) -> dict[str, Any]:
    """A point of the curve: count and quality of a dataset over these rows."""
    index = np.array(places, np.int64)
    counts = table["n_gaussians"].to_numpy()[index].astype(np.float64)
    quality = {name: asdict(spread_of(values_of(table, name)[index])) for name in COMPARED}
    return {"objects": len(index), "gaussians": asdict(spread_of(counts)), **quality}
