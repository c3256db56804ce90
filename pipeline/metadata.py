"""metadata.parquet and quarantine.parquet from the shards' tables, and what index and card say of them all.

Shard after shard and column by column: what is held of an object is the few numbers of `Totals`.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import layout
from pipeline.errors import PipelineError
from pipeline.schemas import METADATA, OK, QUARANTINE, STATS, ParquetSink, exact
from pipeline.shards import stats_table
from pipeline.storage import Storage

_ADDRESS = ("sample", "offset", "nbytes", "sha256")
_STATE = ("status", "reason", "error_class", "error_message")


@dataclass
class Totals:
    """What is counted over all objects.

    Attributes:
        objects: rows of the manifest.
        samples: those that came through.
        licences: how many samples have which.
        reasons: how many objects were given up for what.
        measured_on: `metrics_on` of the samples.
    """

    objects: int = 0
    samples: int = 0
    licences: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    measured_on: set[str] = field(default_factory=set)
    _values: dict[str, list[NDArray[np.float64]]] = field(default_factory=lambda: defaultdict(list))
    _uids: Any = field(default_factory=hashlib.sha256)

    COLUMNS = ("n_gaussians", "psnr", "ssim", "smoothness", "atlas_psnr")

    def add(self, rows: pa.Table) -> None:
        """Count rows of metadata.parquet."""
        good = pc.equal(rows["status"], OK)
        samples, lost = rows.filter(good), rows.filter(pc.invert(good))
        for uid in samples["uid"].to_pylist():
            self._uids.update((f"\n{uid}" if self.samples else uid).encode())
            self.samples += 1
        self.objects += len(rows)
        self.licences.update(samples["license"].to_pylist())
        self.reasons.update(lost["reason"].to_pylist())
        self.measured_on |= set(samples["metrics_on"].to_pylist())
        for name in self.COLUMNS:
            self._values[name].append(samples[name].to_numpy().astype(np.float64))

    def values(self, name: str) -> NDArray[np.float64]:
        """The samples' values of one of `COLUMNS`."""
        return np.concatenate(self._values[name])

    @property
    def uids_sha256(self) -> str:
        """Hash of the samples' uids, one a line, in the manifest's order."""
        return str(self._uids.hexdigest())


@dataclass(frozen=True)
class Tables:
    """Both files, and what was counted on the way."""

    metadata: bytes
    quarantine: bytes
    totals: Totals


def tables_of(storage: Storage, n_shards: int) -> Tables:
    """Both files of committed shards; the same shards always give the same bytes.

    Raises:
        NotFound: a shard's table is missing.
        PipelineError: one is damaged, or the two stages' tables are not of the same objects.
    """
    metadata, quarantine, totals = ParquetSink(METADATA), ParquetSink(QUARANTINE), Totals()
    for shard in range(n_shards):
        splats, atlases = (stats_table(storage, stage, shard) for stage in layout.STAGES)
        if not splats["uid"].equals(atlases["uid"]):
            raise PipelineError(f"shard {shard}: its two tables are not of the same objects")
        rows = _joined(splats, atlases)
        metadata.add(rows)
        quarantine.add(_given_up(splats, atlases))
        totals.add(rows)
    return Tables(metadata.finish(), quarantine.finish(), totals)


def _joined(splats: pa.Table, atlases: pa.Table) -> pa.Table:
    """Rows of metadata.parquet: what both stages say of each object; its state is the later stage's."""
    tables = {layout.SPLATS: splats, layout.ATLAS: atlases}
    addresses = {f"{stage}_{name}": (stage, name) for stage in layout.STAGES for name in _ADDRESS}
    columns = []
    for name in METADATA.names:
        if name in addresses:
            stage, column = addresses[name]
        elif name in _STATE or name not in STATS[layout.SPLATS].names:
            stage, column = layout.ATLAS, name
        else:
            stage, column = layout.SPLATS, name
        columns.append(tables[stage][column])
    return pa.Table.from_arrays(columns, schema=exact(METADATA))


def _given_up(splats: pa.Table, atlases: pa.Table) -> pa.Table:
    """Rows of quarantine.parquet: each object once, with the stage that gave it up."""
    lost = pc.not_equal(atlases["status"], OK)
    first, second = splats.filter(lost), atlases.filter(lost)
    fitted = pc.equal(first["status"], OK)
    columns = [
        pc.if_else(fitted, layout.ATLAS, layout.SPLATS)
        if name == "stage"
        else pc.if_else(fitted, second[name], first[name])
        for name in QUARANTINE.names
    ]
    return pa.Table.from_arrays(columns, schema=exact(QUARANTINE))
