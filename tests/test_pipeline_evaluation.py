"""Statistics over objects, cost, and the tables of an evaluation, against their definitions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.stats

from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline.dataset.parquet import exact
from gaussianverse.pipeline.ops.evaluation import pairs, summary, tables
from gaussianverse.pipeline.ops.evaluation.cost import YEAR, Cost
from gaussianverse.pipeline.ops.evaluation.rows import _COLUMNS, in_sample, schema_of
from gaussianverse.pipeline.ops.evaluation.statistics import (
    LEVEL,
    RESAMPLES,
    interval,
    rank_correlation,
    share_at_bound,
    spread_of,
)


def file_of(path: Path, *rows: dict[str, Any]) -> Path:
    """A file of rows, each with the values of a measured object where it has no others."""
    common = {
        "state": "measured", "metrics_on": "heldout", "background": "white", "width": 64, "height": 64,
        "n_measured": 5, "n_gaussians": 100, "n_atlas": 100, "complexity": 0.1, "unpacked_psnr": 30.0,
        "fit_psnr": 31.0, "smoothness": 0.9,
    }  # fmt: skip
    defaults = {name: default for name, _, default in _COLUMNS}
    given = [defaults | common | {"views_sha256": f"views of {row['uid']}"} | row for row in rows]
    schema = exact(schema_of(geometry=False))
    pq.write_table(pa.Table.from_pylist(given, schema=schema), path)
    return path


def test_a_bootstrap_interval_of_two_objects_is_known() -> None:
    """Means of two draws of {0, 1} are 0, 1/2 and 1 with 1/4, 1/2, 1/4, so that both ends are those of the values."""
    assert interval(np.array([0.0, 1.0])) == (0.0, 1.0)
    assert interval(np.array([7.25])) == (7.25, 7.25)
    assert interval(np.full(9, 0.1)) == (0.1, 0.1)


def test_a_bootstrap_interval_is_that_of_scipy_and_of_theory() -> None:
    for seed in range(3):
        values = np.random.default_rng(seed).normal(30, 2, 60)
        low, high = interval(values)
        theirs = scipy.stats.bootstrap(
            (values,), np.mean, n_resamples=RESAMPLES, confidence_level=LEVEL, method="percentile", rng=seed
        ).confidence_interval
        # ends of 2,000 resamples scatter by 0.02 (measured: 0.027 at most over 20 seeds)
        assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.06)
        half = 1.96 * values.std() / math.sqrt(60)
        assert (high - low) / 2 == pytest.approx(half, rel=0.08)
        assert interval(values) == (low, high), "seeded"


def test_a_spread_is_that_of_the_objects_that_have_the_number() -> None:
    found = spread_of(np.array([4.0, np.nan, 1.0, 2.0, 9.0]))
    assert (found.n, found.mean, found.min, found.median, found.max) == (4, 4.0, 1.0, 3.0, 9.0)
    assert (found.q25, found.q75) == (1.75, 5.25)
    assert found.std == pytest.approx(np.sqrt((0 + 9 + 4 + 25) / 3))
    assert spread_of(np.array([np.nan])).n == 0
    assert math.isnan(spread_of(np.array([])).mean)
    assert spread_of(np.array([3.0])).std == 0


def test_a_rank_correlation_shares_ranks_among_ties() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 6, 40).astype(float), rng.integers(0, 6, 40).astype(float)
    other[3], one[5] = np.nan, np.nan
    known = ~np.isnan(one) & ~np.isnan(other)
    ranks = [np.array([(a < x).sum() + ((a == x).sum() + 1) / 2 for x in a]) for a in (one[known], other[known])]
    found, n = rank_correlation(one, other)
    assert n == 38
    assert found == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert found == pytest.approx(scipy.stats.spearmanr(one[known], other[known]).statistic)
    assert rank_correlation(np.arange(5.0), np.exp(np.arange(5.0)))[0] == pytest.approx(1)
    assert math.isnan(rank_correlation(np.ones(5), np.arange(5.0))[0])
    assert math.isnan(rank_correlation(np.arange(2.0), np.arange(2.0))[0])


def test_the_share_at_the_bound_counts_what_lost_a_few_at_the_end() -> None:
    assert share_at_bound(np.array([10_000, 9_900, 9_899, 100]), 10_000) == 0.5
    assert math.isnan(share_at_bound(np.array([], np.int64), 5))


def test_the_cost_has_attempts_that_were_lost(tmp_path: Path) -> None:
    def entry(**fields: Any) -> dict[str, Any]:
        return {"status": "ok", "attempts": 1, "seconds": 100.0, "device": "cpu", **fields}

    cost = Cost()
    cost.add(
        "splats", [entry(), entry(attempts=3), entry(device="H200", seconds=10.0), entry(seconds=-1.0, attempts=-1)]
    )
    cost.add("splats", [entry(status="quarantined", attempts=4, seconds=0.01)])
    cost.add("atlas", [entry(seconds=7.0, device="")])
    storage = LocalStorage(tmp_path)
    storage.put_if_absent("runs/summary-1.json", b'{"slot_seconds": 500.0}\n')
    storage.put_if_absent("runs/summary-2.json", b'{"slot_seconds": 250.5}\n')
    storage.put_if_absent("runs/summary-3.json", b"damaged")
    found = cost.years(storage)
    assert found["kept"] * YEAR == pytest.approx(217)
    assert found["lost"] * YEAR == pytest.approx(200)
    assert found["held"] * YEAR == pytest.approx(750.5)
    assert found["given_up_attempts"] == 4
    assert found["by_device"]["splats on H200"] == {"kept": 10 / YEAR, "lost": 0, "objects": 1}
    assert found["by_device"]["atlas on cpu"]["objects"] == 1


def test_counts_are_of_all_objects_of_the_dataset(tmp_path: Path) -> None:
    rows = [
        {"uid": "a", "n_gaussians": 90, "n_atlas": 64, "complexity": 0.2, "coverage": 0.5},
        {"uid": "b", "n_gaussians": 100, "n_atlas": 64, "complexity": 0.3, "coverage": 0.1},
        {"uid": "c", "n_gaussians": 10, "n_atlas": 10, "complexity": 0.1, "coverage": 0.2, "state": "views missing"},
        {"uid": "d", "n_gaussians": -1, "n_atlas": -1, "complexity": -1.0, "state": "quarantined"},
        {"uid": "e", "n_gaussians": 40, "n_atlas": 40, "complexity": -1.0, "state": "imported"},
    ]
    found = summary.counts_of(file_of(tmp_path / "o", *rows), 100)
    assert (found["gaussians"]["n"], found["gaussians"]["mean"], found["gaussians"]["median"]) == (4, 60, 65)
    assert (found["share_at_bound"], found["objects_cut"]) == (0.25, 2)
    assert (found["spearman_with_complexity"], found["spearman_objects"]) == (pytest.approx(1), 3)
    assert found["spearman_with_detail"] == pytest.approx(0.5), "details are 0.1, 0.03, 0.02, counts 90, 100, 10"


def test_numbers_are_never_averaged_over_other_views_backgrounds_or_sizes(tmp_path: Path) -> None:
    others = [{"metrics_on": "train"}, {"background": "black"}, {"width": 32}, {"height": 32}]
    rows = [{"uid": f"h{k}", "category": "x" if k else "y"} for k in range(3)]
    rows += [{"uid": f"o{k}", "unpacked_psnr": 99.0, **other} for k, other in enumerate(others)]
    rows += [{"uid": "gone", "state": "views missing", "unpacked_psnr": -1.0}]
    groups = summary.groups_of(file_of(tmp_path / "o", *rows))
    assert [g["objects"] for g in groups] == [3, 1, 1, 1, 1]
    assert groups[0]["metrics_on"] == "heldout"
    assert groups[0]["all"]["unpacked_psnr"]["mean"] == 30
    assert all(g["all"]["unpacked_psnr"]["mean"] == 99 for g in groups[1:])
    assert {name: c["unpacked_psnr"]["n"] for name, c in groups[0]["by_category"].items()} == {"x": 2, "y": 1}
    assert groups[0]["all"]["unpacked_lpips"]["n"] == 0, "-1 is no number"


def test_pairs_are_objects_of_which_the_same_images_were_measured(tmp_path: Path) -> None:
    one = file_of(
        tmp_path / "1",
        {"uid": "a", "unpacked_psnr": 30.0, "n_gaussians": 200}, {"uid": "b", "unpacked_psnr": 28.0},
        {"uid": "c"}, {"uid": "d"}, {"uid": "e"}, {"uid": "f", "state": "views missing"},
    )  # fmt: skip
    two = file_of(
        tmp_path / "2",
        {"uid": "b", "unpacked_psnr": 27.0}, {"uid": "a", "unpacked_psnr": 28.0, "n_gaussians": 100},
        {"uid": "c", "metrics_on": "train"}, {"uid": "d", "views_sha256": "others"}, {"uid": "f"},
    )  # fmt: skip
    three = file_of(tmp_path / "3", {"uid": "a", "unpacked_psnr": 25.0, "n_gaussians": 50}, {"uid": "c", "width": 1})
    joined, differences, curve = pairs.pairs_of(one, [two, three])
    assert joined.select(["uid", "against", "unpacked_psnr", "unpacked_psnr_against"]).to_pylist() == [
        {"uid": "a", "against": 1, "unpacked_psnr": 30.0, "unpacked_psnr_against": 28.0},
        {"uid": "b", "against": 1, "unpacked_psnr": 28.0, "unpacked_psnr_against": 27.0},
        {"uid": "a", "against": 2, "unpacked_psnr": 30.0, "unpacked_psnr_against": 25.0},
    ]
    assert differences[0]["not_compared"] == {
        "other metrics_on": 1, "other images": 1, "not measured in the other": 1, "only measured in the other": 1,
    }  # fmt: skip
    assert (differences[0]["unpacked_psnr"]["mean"], differences[0]["unpacked_psnr"]["n"]) == (1.5, 2)
    assert differences[0]["unpacked_lpips"]["n"] == 0, "-1 less -1 is no difference"
    assert differences[1]["not_compared"] == {"not measured in the other": 3, "other width": 1}
    # only `a` is in all three
    assert [(p["objects"], p["gaussians"]["mean"], p["unpacked_psnr"]["mean"]) for p in curve] == [
        (1, 200, 30), (1, 100, 28), (1, 50, 25),
    ]  # fmt: skip


def test_samples_by_hash_are_nested_and_about_as_large_as_asked() -> None:
    uids = [f"object-{k}" for k in range(4000)]
    small, large = ({u for u in uids if in_sample(u, share)} for share in (0.1, 0.3))
    assert small < large
    assert 330 < len(small) < 470  # 400 +- 3.7 standard deviations
    assert all(in_sample(u, 1.0) for u in uids)


def evaluation(tmp_path: Path) -> dict[str, Any]:
    one = file_of(tmp_path / "1", {"uid": "a", "category": "Buildings&&Outdoor"}, {"uid": "b", "category": "x|y_z"})
    two = file_of(tmp_path / "2", {"uid": "a", "unpacked_psnr": 29.5}, {"uid": "b", "unpacked_psnr": 29.5})
    _, differences, curve = pairs.pairs_of(one, [two])
    datasets = [
        {
            "out": f"s3://lake/set_{k}",
            "counts": summary.counts_of(path, 100),
            "quality": summary.groups_of(path),
            "device_years": {"kept": 0.1, "lost": 0.02, "held": 0.2},
        }
        for k, path in enumerate((one, two))
    ]
    return {"datasets": datasets, "differences": differences, "curve": curve}


def test_the_tables_lead_with_the_atlas_and_name_n_and_conditions(tmp_path: Path) -> None:
    shown = tables.tables_of(evaluation(tmp_path))
    assert [len(table.rows) for table in shown] == [14, 3, 4, 2]
    first, categories, differences, curve = shown
    assert first.title == "Table 1, quality on held-out views, white, 64 x 64 px, 2 objects"
    assert first.rows[0] == ["PSNR of the atlas (dB)", "30.00 +- 0.00"]
    assert ["share at the bound of 100", "100.0%"] in first.rows
    assert ["device-years, kept and lost attempts", "0.12"] in first.rows
    assert list(categories.rows[0]) == [
        "all",
        "2",
        "30.00 (30.00 to 30.00)",
        "31.00 (31.00 to 31.00)",
        "0.900 (0.900 to 0.900)",
    ]
    assert list(differences.rows[0]) == ["PSNR of the atlas (dB)", "2", "+0.50 (+0.50 to +0.50)", "0.50"]
    assert curve.rows[1][:4] == ["s3://lake/set_1", "100", "2", "100 +- 0"]


def test_foreign_text_is_escaped_for_each_format(tmp_path: Path) -> None:
    shown = tables.tables_of(evaluation(tmp_path))
    plain = tables.to_markdown(shown, ["note"])
    assert "| x&#124;y_z | 1 |" in plain
    assert len({line.count("|") for line in plain.splitlines() if "30.00 (30" in line and "s3" not in line}) == 1
    text = tables.to_latex(shown, ["50% of\nit"])
    assert r"Buildings\&\&Outdoor & 1 & 30.00" in text
    assert r"30.00 $\pm$ 0.00 \\" in text
    assert r"s3://lake/set\_1" in text
    assert text.startswith("% 50% of\\nit\n")
    assert tables.latex("a\\b~^{}#$") == r"a\textbackslash{}b\textasciitilde{}\textasciicircum{}\{\}\#\$"
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 4
