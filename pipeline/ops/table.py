"""The table of a run's objects for people: one line each, as wide as the terminal, and medians."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import OK
from gaussianverse.escape import one_line
from gaussianverse.manifests.schema import MAX_UID
from gaussianverse.pipeline.ops.page.spread import Spread
from gaussianverse.terminal import cut, padded, width_of

MAX_LINES = 60
UNKNOWN = -1
"""Value in the tables for what was not measured, as for imported objects and columns of later versions."""
_LEAST_UID = 8
"""Columns of the terminal that uids keep; where more are lacking, columns of the table are left out."""
_GAP = "  "


@dataclass(frozen=True)
class _Column:
    name: str
    title: str
    form: str
    width: int
    unit: str = ""

    def cell(self, row: Mapping[str, Any]) -> str:
        value = row[self.name]
        return f"{'-' if value == UNKNOWN else format(value, self.form)}{self.unit}".rjust(self.width)


_COLUMNS = (
    _Column("n_gaussians", "Gaussians", "d", 9),
    _Column("atlas_heldout_psnr", "PSNR of atlas", ".2f", 13, " dB"),
    _Column("psnr", "of fit", ".2f", 9, " dB"),
    _Column("ssim", "SSIM", ".4f", 6),
    _Column("smoothness", "smoothness", ".3f", 10),
    _Column("seconds", "seconds", ".1f", 7),
)
"""Columns beside the uid, the most wanted first."""


class Table:
    """Rows for people: the first ones, quarantined objects with their reason, and the medians of all."""

    def __init__(self) -> None:
        self._rows, self._n, self._good, self._heldout = list[dict[str, Any]](), 0, 0, True
        self._spreads = {column.name: Spread() for column in _COLUMNS}

    def add(self, row: dict[str, Any]) -> None:
        """Add a row of `result_rows`; one of the first is kept, and of the others their numbers."""
        self._n += 1
        if self._n <= MAX_LINES:
            self._rows.append(row)
        if row["status"] == OK:
            self._good += 1
            self._heldout &= row["metrics_on"] == "heldout"
            for name, spread in self._spreads.items():
                if row[name] != UNKNOWN and math.isfinite(row[name]):
                    spread.add(row[name])

    def text(self, columns: int | None = None) -> str:
        """All lines, in so many columns of a terminal; None = any number.

        Uids are cut first, down to eight characters; then columns are left out, the last first, and named below.
        """
        names = [one_line(str(row["uid"])[:MAX_UID]) for row in self._rows]
        width = max([6 if self._good > 1 else 3, *map(width_of, names)])
        shown = [_Column("atlas_heldout_psnr", "held-out PSNR of atlas", ".2f", 22, " dB") if self._heldout
                 and c.name == "atlas_heldout_psnr" else c for c in _COLUMNS]  # fmt: skip
        left_out: list[_Column] = []
        if columns is not None:
            room = columns - min(width, _LEAST_UID)
            while len(shown) > 1 and sum(len(_GAP) + c.width for c in shown) > room:
                left_out.insert(0, shown.pop())
            width = max(1, min(width, columns - sum(len(_GAP) + c.width for c in shown)))
        lines = [_GAP.join([padded("uid", width), *(c.title.rjust(c.width) for c in shown)])]
        for name, row in zip(names, self._rows, strict=True):
            lines.append(f"{padded(name, width)}{_GAP}{_line(row, shown)}")
        lines = [cut(line, columns) for line in lines]
        notes = []
        if self._n > MAX_LINES:
            notes.append(f"... and {self._n - MAX_LINES} more, all in {dataset_format.METADATA} once finalized")
        if left_out:
            notes.append(f"left out, as the terminal is narrow: {', '.join(c.title for c in left_out)}")
        for text in notes:
            lines += [text] if columns is None else textwrap.wrap(text, columns)
        if self._good > 1:
            middle = {name: s.quantile(0.5) if s.n else UNKNOWN for name, s in self._spreads.items()}
            whole = {**middle, "status": OK, "n_gaussians": int(middle["n_gaussians"])}
            lines.append(cut(f"{padded('median', width)}{_GAP}{_line(whole, shown)}", columns))
        return "\n".join(lines)


def _line(row: Mapping[str, Any], shown: Iterable[_Column]) -> str:
    if row["status"] != OK:
        message = one_line(str(row["error_message"])[:200])
        return f"quarantined: {one_line(str(row['reason'])[:MAX_UID])}: {message}"
    return _GAP.join(column.cell(row) for column in shown)


def table(rows: Iterable[dict[str, Any]], columns: int | None = None) -> str:
    """Rows of `result_rows` as a `Table`."""
    made = Table()
    for row in rows:
        made.add(row)
    return made.text(columns)
