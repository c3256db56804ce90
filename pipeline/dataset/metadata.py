"""Build metadata.parquet and quarantine.parquet from the tables of the shards, and the totals for index and card.

One shard at a time, in columns. Nothing is kept in memory for each object: both tables, and the numbers whose medians
the card tells, are written to temporary files.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import ADDRESS, ATLAS, OK, SPLATS, address_column
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.in_order import in_order
from gaussianverse.pipeline.dataset.parquet import ParquetSink, exact
from gaussianverse.pipeline.dataset.schemas import quarantine_schema
from gaussianverse.pipeline.dataset.shards import stats_table
from gaussianverse.pipeline.dataset.spread import Spread, Values
from gaussianverse.pipeline.dataset.versions import Version
from gaussianverse.pipeline.errors import PipelineError

_UNKNOWN = -1.0
_STATE = ("status", "reason", "error_class", "error_message")
MAX_CREDITS = 1000
"""Distinct credits that are counted one by one."""


@dataclass
class Credits:
    """Samples by what their rows say of author and licence.

    Attributes:
        counts: number of samples per (attribution, licence), of the first `MAX_CREDITS` in the order of the manifest.
        others: number of samples with a credit that is not among them.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    others: int = 0

    def add(self, samples: pa.Table) -> None:
        """Add rows of metadata.parquet; tables of version 1 have no credits."""
        if "attribution" not in samples.schema.names:
            return
        for credit in zip(samples["attribution"].to_pylist(), samples["license"].to_pylist(), strict=True):
            if not credit[0]:
                continue
            if credit in self.counts or len(self.counts) < MAX_CREDITS:
                self.counts[credit] += 1
            else:
                self.others += 1


@dataclass
class Totals:
    """Counts and values over all objects.

    Attributes:
        objects: rows of the manifest.
        samples: objects that are not quarantined.
        licences: number of samples per licence.
        reasons: number of quarantined objects per reason.
        measured_on: values of `metrics_on` of the samples.
        credits: credits of the samples.
    """

    objects: int = 0
    samples: int = 0
    licences: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    measured_on: set[str] = field(default_factory=set)
    credits: Credits = field(default_factory=Credits)
    _values: dict[str, Values] = field(default_factory=lambda: defaultdict(Values))
    _uids: Any = field(default_factory=hashlib.sha256)

    COLUMNS = ("n_gaussians", "atlas_heldout_psnr", "psnr", "ssim", "smoothness", "atlas_psnr")

    def add(self, rows: pa.Table) -> None:
        """Add rows of metadata.parquet."""
        good = pc.equal(rows["status"], OK)
        samples, lost = rows.filter(good), rows.filter(pc.invert(good))
        for uid in samples["uid"].to_pylist():
            self._uids.update((f"\n{uid}" if self.samples else uid).encode())
            self.samples += 1
        self.objects += len(rows)
        self.licences.update(samples["license"].to_pylist())
        self.reasons.update(lost["reason"].to_pylist())
        self.credits.add(samples)
        self.measured_on |= set(samples["metrics_on"].to_pylist())
        for name in self.COLUMNS:
            if name in samples.column_names:  # tables of version 1 lack some
                values = samples[name].to_numpy().astype(np.float64)
                self._values[name].add(values[values != _UNKNOWN])

    def spread(self, name: str) -> Spread | None:
        """The spread of one of `COLUMNS` over the samples of which it is known; None if there are none."""
        return self._values[name].spread()

    @property
    def uids_sha256(self) -> str:
        """Hash of the samples' uids, one per line, in the order of the manifest."""
        return str(self._uids.hexdigest())


@dataclass(frozen=True)
class Tables:
    """Both files, in a temporary folder that goes with this, and the totals."""

    metadata: Path
    quarantine: Path
    totals: Totals
    folder: tempfile.TemporaryDirectory[str]


def tables_of(storage: Storage, version: Version) -> Tables:
    """Build both files from the rows of committed shards that count; the same shards always give the same bytes.

    Raises:
        NotFound: the table of a shard is missing.
        PipelineError: a table is damaged, or tables of one shard have different objects.
    """
    schema, lost = version.run.metadata_schema(), quarantine_schema(version.run.version)
    folder = tempfile.TemporaryDirectory(prefix="gaussianverse-")
    paths = [Path(folder.name, name) for name in (dataset_format.METADATA, dataset_format.QUARANTINE)]
    metadata, quarantine, totals = ParquetSink(schema, paths[0]), ParquetSink(lost, paths[1]), Totals()

    def read(shard: int) -> dict[str, pa.Table]:
        return {f: version.live(stats_table(storage, f, shard), shard) for f in version.run.families}

    for shard, tables in zip(version.shards, in_order(storage, read, version.shards), strict=True):
        splats, atlases = (tables[family] for family in layout.STAGES)
        if any(not splats["uid"].equals(table["uid"]) for table in tables.values()):
            raise PipelineError(f"shard {shard}: its tables have different objects")
        rows = _joined(tables, schema)
        metadata.add(rows)
        quarantine.add(_quarantined(splats, atlases, lost))
        totals.add(rows)
    metadata.finish()
    quarantine.finish()
    return Tables(paths[0], paths[1], totals, folder)


def _joined(tables: Mapping[str, pa.Table], schema: pa.Schema) -> pa.Table:
    """Rows of metadata.parquet: the columns of all families; status and reason are those of the atlas."""
    addresses = {address_column(family, name): (family, name) for family in tables for name in ADDRESS}
    columns = []
    for name in schema.names:
        if name in addresses:
            family, column = addresses[name]
        elif name in _STATE:
            family, column = ATLAS, name
        else:
            family, column = next(f for f in tables if name in tables[f].schema.names), name
        columns.append(tables[family][column])
    return pa.Table.from_arrays(columns, schema=exact(schema))


def _quarantined(splats: pa.Table, atlases: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows of quarantine.parquet: each object once, with the stage that quarantined it."""
    lost = pc.not_equal(atlases["status"], OK)
    first, second = splats.filter(lost), atlases.filter(lost)
    fitted = pc.equal(first["status"], OK)
    columns = [
        pc.if_else(fitted, ATLAS, SPLATS) if name == "stage" else pc.if_else(fitted, second[name], first[name])
        for name in schema.names
    ]
    return pa.Table.from_arrays(columns, schema=exact(schema))
