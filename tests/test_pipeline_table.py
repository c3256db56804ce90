"""The table of a run's objects fits the terminal."""

from __future__ import annotations

from typing import Any

import pytest

from gaussianverse.pipeline.ops.table import MAX_LINES, table
from gaussianverse.terminal import width_of

WIDTHS = (8, 20, 31, 40, 60, 80, 100, 300)
QUARANTINED = {"status": "quarantined", "reason": "missing_views", "error_message": "no views in views/lost"}


def row(uid: str, **changed: Any) -> dict[str, Any]:
    numbers = {"n_gaussians": 4972, "atlas_heldout_psnr": 38.455, "psnr": 38.5, "ssim": 0.995, "smoothness": 0.97}
    good = {"metrics_on": "heldout", "seconds": 12.0, "status": "ok", "reason": "", "error_message": ""}
    return {"uid": uid, **numbers, **good, **changed}


UIDS = ["short", "a-uid-of-forty-characters-" + "x" * 14, "日本語の椅子です", "e\u0301te\u0301"]


@pytest.mark.parametrize("columns", WIDTHS)
def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    rows = [*map(row, UIDS), row("lost", **QUARANTINED), *(row(str(k)) for k in range(MAX_LINES))]
    lines = table(rows, columns).splitlines()
    assert max(map(width_of, lines)) <= columns
    assert len(lines) >= MAX_LINES + 2


def test_columns_of_numbers_stand_below_each_other_also_beside_wide_characters() -> None:
    head, *lines = table(map(row, UIDS), 60).splitlines()
    end = width_of(head[: head.index("Gaussians") + len("Gaussians")])
    numbers = [line for line in lines if "4972" in line]
    assert len(numbers) == len(UIDS) + 1  # and the median
    assert {width_of(line[: line.index("4972") + 4]) for line in numbers} == {end}


def test_a_long_uid_is_cut_with_an_ellipsis_before_a_column_is_left_out() -> None:
    (long,) = [line for line in table([row("x" * 200)], 100).splitlines() if line.startswith("xx")]
    assert "x\u2026  " in long
    assert long.endswith("12.0")


def test_columns_that_find_no_place_are_named() -> None:
    text = table([row("a")], 40)
    assert "38.45 dB" in text or "38.46 dB" in text
    assert "0.995" not in text
    assert "left out, as the terminal is narrow:" in text
    assert "SSIM, smoothness, seconds" in " ".join(text.split())


def test_without_a_terminal_nothing_is_cut_or_left_out() -> None:
    text = table([row("x" * 100), row("lost", **QUARANTINED)])
    assert "x" * 100 in text
    assert "smoothness  seconds" in text
    assert "lost" + " " * 96 + "  quarantined: missing_views: no views in views/lost" in text
    assert "left out" not in text
