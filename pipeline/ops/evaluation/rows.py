"""Rows of evaluated objects: one per object of the manifest, streamed shard by shard into a Parquet file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from gaussianverse import atlas
from gaussianverse.atlas.dataset_format import ATLAS, OK, SPLATS
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.os_errors import describe, is_absence
from gaussianverse.atlas.smoothness import smoothness
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.fitter.errors import FitError
from gaussianverse.manifests.schema import SPLATS as SPLATS_FORMAT
from gaussianverse.manifests.schema import SPLATS_BGR
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.members import atlas_array
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.dataset.shards import journal_rows, read_main, stats_table
from gaussianverse.pipeline.dataset.versions import version_of
from gaussianverse.pipeline.errors import FragmentError, PipelineError
from gaussianverse.pipeline.ops.evaluation.cost import Cost
from gaussianverse.pipeline.run.inputs import InputTooLarge, NoViews
from gaussianverse.pipeline.run.measure import GEOMETRY, Measurer

MEASURED, NOT_MEASURED, IMPORTED, DAMAGED, LOST = "measured", "views missing", "imported", "damaged", "quarantined"
"""State of a row: measured; its views are gone, changed or unusable; it never had any; its sample is damaged; or it
is not in the dataset."""
_NAMED = 20
"""Objects that are named per state; the Parquet file names all."""
METRICS = ("psnr", "ssim", "lpips")

_S, _I, _F = pa.string(), pa.int64(), pa.float64()
_COLUMNS: list[tuple[str, pa.DataType, Any]] = [
    *((name, _S, "") for name in ("uid", "category", "state", "note", "metrics_on", "background", "views_sha256")),
    *((name, _I, -1) for name in ("index", "shard", "width", "height", "n_measured", "n_gaussians", "n_atlas")),
    *((f"{of}_{metric}", _F, -1.0) for of in ("unpacked", "fit") for metric in METRICS),
    *((name, _F, -1.0) for name in ("smoothness", "smoothness_appearance", "complexity", "coverage")),
    *((name, _F, -1.0) for name in ("published_psnr", "fit_seconds", "atlas_seconds")),
    ("attempts", _I, -1),
]


def schema_of(*, geometry: bool) -> pa.Schema:
    """Schema of the rows; `geometry` adds its columns."""
    fields = [pa.field(name, kind, nullable=False) for name, kind, _ in _COLUMNS]
    return pa.schema([*fields, *(pa.field(n, _F, nullable=False) for n in (GEOMETRY if geometry else ()))])


@dataclass
class Found:
    """Counts of the rows by state, the first of each that is not measured, and the cost."""

    states: Counter[str] = field(default_factory=Counter)
    named: dict[str, dict[str, str]] = field(default_factory=dict)
    shards_missing: int = 0
    largest_change: float = 0.0
    """Largest difference, in dB, of a fit's PSNR from its column `psnr`, where the same views were measured."""
    cost: Cost = field(default_factory=Cost)

    def add(self, row: Facts) -> None:
        """Count a row."""
        state = str(row["state"])
        self.states[state] += 1
        named = self.named.setdefault(state, {})
        if state not in (MEASURED, LOST, IMPORTED) and len(named) < _NAMED:
            named[str(row["uid"])] = str(row["note"])


class Evaluator:
    """Makes the rows of one dataset."""

    def __init__(self, storage: Storage, run: Run, measurer: Measurer, *, most: int = 0, geometry: bool = False):
        """Prepare.

        Args:
            storage: store of the dataset.
            run: the run of its version.
            measurer: measures an object's views.
            most: about how many objects to measure, chosen by hashes of their uids; 0 = all.
            geometry: whether depth, normals and points are compared.
        """
        self.storage, self.run, self.found = storage, run, Found()
        self._version = version_of(storage, run)
        self._measurers, self._geometry = {run.digest: measurer}, geometry
        self._share = min(1.0, most / self._version.n_objects) if most else 1.0
        self._defaults = {name: default for name, _, default in _COLUMNS}
        self._defaults |= dict.fromkeys(GEOMETRY, -1.0) if geometry else {}

    def shard(self, shard: int) -> Iterator[Facts]:
        """The rows of a committed shard, but for objects outside the sample and those that no longer count."""
        tables = (stats_table(self.storage, stage, shard) for stage in layout.STAGES)
        fits, atlases = (self._version.live(table, shard).to_pylist() for table in tables)
        given = {str(row["uid"]): row for row in shard_rows(self.storage, self._version.run_of(shard), shard)}
        journals = []
        for stage in layout.STAGES:
            try:
                entries = journal_rows(self.storage, stage, shard)
            except (NotFound, PipelineError):
                entries = []  # a journal is not part of the dataset
            self.found.cost.add(stage, entries)
            journals.append({str(entry["uid"]): entry for entry in entries})
        for fit, made in zip(fits, atlases, strict=True):
            uid = str(fit["uid"])
            if self._share < 1 and not in_sample(uid, self._share):
                continue
            row = self._row(shard, fit, made, given.get(uid, {}), [journal.get(uid, {}) for journal in journals])
            self.found.add(row)
            yield row

    def _row(self, shard: int, fit: Facts, made: Facts, given: Facts, spent: list[Facts]) -> Facts:
        row: Facts = {
            **self._defaults,
            "uid": fit["uid"], "index": fit["index"], "shard": shard, "category": fit["category"],
            "fit_seconds": float(spent[0].get("seconds", -1)), "atlas_seconds": float(spent[1].get("seconds", -1)),
            "attempts": int(spent[0].get("attempts", -1)),
        }  # fmt: skip
        if made["status"] != OK:
            return row | {"state": LOST, "note": str(made["reason"])}
        row |= {
            "n_gaussians": fit["n_gaussians"],
            "n_atlas": made["n_gaussians"],
            "complexity": fit.get("complexity", -1.0),
            "coverage": fit.get("coverage", -1.0),
            "published_psnr": fit["psnr"],
        }
        try:
            gaussians = Gaussians.from_bytes(read_main(self.storage, SPLATS, shard, fit))
            array = atlas_array(read_main(self.storage, ATLAS, shard, made), self.run.atlas)
            unpacked = atlas.unpack(array, self.run.atlas)
        except (AtlasError, NotFound, FragmentError) as error:
            return row | {"state": DAMAGED, "note": str(error)}
        smooth = smoothness(unpacked, np.argwhere(array[..., 3] != 0))
        for name, value in (("smoothness", smooth.position), ("smoothness_appearance", smooth.appearance)):
            row[name] = value if np.isfinite(value) else -1.0
        if given.get("format") in (SPLATS_FORMAT, SPLATS_BGR):
            return row | {"state": IMPORTED}
        try:
            return row | self._measured(given, fit, gaussians, unpacked)
        except (FitError, NoViews, InputTooLarge, NotFound) as error:
            return row | {"state": NOT_MEASURED, "note": f"{type(error).__name__}: {error}"}
        except OSError as error:
            if not is_absence(error):
                raise
            return row | {"state": NOT_MEASURED, "note": describe(error)}

    def _measured(self, given: Facts, fit: Facts, gaussians: Gaussians, unpacked: Gaussians) -> Facts:
        measurer = self._measurer_of(str(fit["config_digest"]))
        prepared = measurer.prepared(given, str(fit.get("input_sha256", "")))
        found = measurer.photometric(prepared, gaussians, unpacked)
        if found["n_measured"] == len(prepared.measured) and fit["metrics_on"] == found["metrics_on"]:
            change = abs(float(found["fit_psnr"]) - float(fit["psnr"]))
            self.found.largest_change = max(self.found.largest_change, change)
        geometry = measurer.geometric(given, unpacked) if self._geometry else {}
        return {**found, **geometry, "state": MEASURED}

    def _measurer_of(self, digest: str) -> Measurer:
        """The measurer of fits of a configuration."""
        if digest not in self._measurers:
            fitted = self._version.bearing(digest) or self.run
            self._measurers[digest] = self._measurers[self.run.digest].of(fitted)
        return self._measurers[digest]


def in_sample(uid: str, share: float) -> bool:
    """Whether an object belongs to a sample of this share, by the hash of its uid: the same in every dataset."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8], "big") < share * 2**64
