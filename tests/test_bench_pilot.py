"""docs/pilot.md has the numbers of bench/results/pilot.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from markdown_pages import page_of

from bench.pilot import CONTENT
from gaussianverse.pipeline.policy import REASONS

ROOT = Path(__file__).resolve().parents[1]
FOUND: dict[str, Any] = json.loads((ROOT / "bench" / "results" / "pilot.json").read_text())
TABLES = page_of((ROOT / "docs" / "pilot.md").read_text()).tables


def test_the_counts_are_those_that_were_measured() -> None:
    told = {row[0]: row[1] for row in TABLES[0] if row[0]}
    drawn = FOUND["objects"] - len(FOUND["not_drawn"])
    assert told == {
        "meshes": str(FOUND["objects"]),
        "drawn": str(drawn),
        "published and verified": str(FOUND["published"]),
        "quarantined": str(sum(FOUND["failures"].values())),
        "failures that are the product's": f"{FOUND['product_failures']:.1%}".replace("%", " %"),
        "CPU seconds an object, fit-shard alone": f"{FOUND['cpu_s_per_object']:.1f}",
        "bytes an object, fits and atlases": f"{FOUND['bytes_per_object'] / 1e6:.2f} MB",
    }
    assert drawn == FOUND["published"] + sum(FOUND["failures"].values())


@pytest.mark.parametrize(
    ("title", "name", "form"),
    [
        ("Gaussians", "gaussians", ",.0f"),
        ("PSNR of the fit, dB", "psnr", ".2f"),
        ("PSNR of the atlas, dB", "atlas_heldout_psnr", ".2f"),
    ],
)
def test_the_spreads_are_those_that_were_measured(title: str, name: str, form: str) -> None:
    (row,) = [row for row in TABLES[1] if row[0] == title]
    assert TABLES[1][0][1:] == ["mean", "standard deviation", "lowest", "median", "highest"]
    for told, found in zip(row[1:], FOUND[name], strict=True):
        # measured to three digits, of which the last two round twice
        assert abs(float(told.replace(",", "")) - found) <= (0.5 if form == ",.0f" else 0.0051)


def test_every_mesh_that_failed_is_named_with_what_was_said() -> None:
    told = {row[0]: row[1] for row in TABLES[2][1:]}
    assert told == {mesh: said.removeprefix(f"error: {mesh}: ") for mesh, said in FOUND["not_drawn"].items()}


def test_at_least_200_objects_and_at_most_2_percent_failures_of_the_product() -> None:
    assert FOUND["objects"] >= 200
    assert FOUND["product_failures"] <= 0.02
    assert set(CONTENT) <= set(REASONS)
