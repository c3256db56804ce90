"""Build metadata.parquet and quarantine.parquet from the tables of the shards, and the totals for index and card.

One shard at a time, in columns: only the few numbers of `Totals` are kept per object.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gaussianverse.atlas.dataset_format import ADDRESS, ATLAS, OK, SPLATS, address_column
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.parquet import ParquetSink, exact
from gaussianverse.pipeline.dataset.schemas import quarantine_schema
from gaussianverse.pipeline.dataset.shards import stats_table
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
    _values: dict[str, list[NDArray[np.float64]]] = field(default_factory=lambda: defaultdict(list))
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
            known = name in samples.column_names  # tables of version 1 lack some
            values = samples[name].to_numpy() if known else np.full(len(samples), _UNKNOWN)
            self._values[name].append(values.astype(np.float64))

    def values(self, name: str) -> NDArray[np.float64]:
        """The values of one of `COLUMNS` over the samples."""
        return np.concatenate(self._values[name])

    @property
    def uids_sha256(self) -> str:
        """Hash of the samples' uids, one per line, in the order of the manifest."""
        return str(self._uids.hexdigest())


@dataclass(frozen=True)
class Tables:
    """Both files and the totals."""

    metadata: bytes
    quarantine: bytes
    totals: Totals


def tables_of(storage: Storage, version: Version) -> Tables:
    """Build both files from the rows of committed shards that count; the same shards always give the same bytes.

    Raises:
        NotFound: the table of a shard is missing.
        PipelineError: a table is damaged, or tables of one shard have different objects.
    """
    schema, lost = version.run.metadata_schema(), quarantine_schema(version.run.version)
    metadata, quarantine, totals = ParquetSink(schema), ParquetSink(lost), Totals()
    for shard in version.shards:
        tables = {f: version.live(stats_table(storage, f, shard), shard) for f in version.run.families}
        splats, atlases = (tables[family] for family in layout.STAGES)
        if any(not splats["uid"].equals(table["uid"]) for table in tables.values()):
            raise PipelineError(f"shard {shard}: its tables have different objects")
        rows = _joined(tables, schema)
        metadata.add(rows)
        quarantine.add(_quarantined(splats, atlases, lost))
        totals.add(rows)
    return Tables(metadata.finish(), quarantine.finish(), totals)


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
