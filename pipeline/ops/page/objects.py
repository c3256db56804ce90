"""Objects of committed shards as the gallery lists them, one shard at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gaussianverse.atlas.dataset_format import OK, SPLATS
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.store import is_remote
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.manifests.schema import is_uid
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.dataset.shards import journal_rows, read_main, stats_table
from gaussianverse.pipeline.dataset.versions import Version
from gaussianverse.pipeline.errors import PipelineError
from gaussianverse.pipeline.ops.evaluation.cost import Cost

TEXTS = {
    "uid": "uid",
    "category": "category",
    "license": "licence",
    "status": "status",
    "reason": "reason",
    "error_message": "message",
    "caption": "caption",
}
NUMBERS = {
    "atlas_heldout_psnr": "PSNR of the atlas (dB)",
    "psnr": "PSNR of the fit (dB)",
    "ssim": "SSIM of the fit",
    "n_gaussians": "Gaussians",
    "smoothness": "smoothness",
    "complexity": "complexity",
    "seconds": "seconds",
}
"""Columns of the gallery, by their titles; a number that was not measured is None there."""
METRICS = tuple(NUMBERS)
WORST_ARE_HIGHEST = frozenset({"n_gaussians", "complexity", "seconds"})
"""Of the others, all measures of quality, the lowest are the worst; of these, the most costly."""
MOST_TEXT = 300
"""Characters of a caption or a message in the gallery."""
MOST_FAULTS, MOST_FAULT = 50, 1000
"""Faults that are kept, and characters of one."""
_UNKNOWN = -1


@dataclass(frozen=True)
class Entry:
    """One object of a committed shard."""

    shard: int
    fit: Facts
    """Its row of the splats' table, without the columns that no page shows."""
    made: Facts
    """Its row of the atlases' table."""
    seconds: float | None
    """Of both stages; None without a journal."""

    @property
    def uid(self) -> str:
        """The object's uid."""
        return str(self.fit["uid"])

    @property
    def ok(self) -> bool:
        """Whether the object was published."""
        return bool(self.made["status"] == OK)

    def value(self, name: str) -> Any:
        """The value of one of `TEXTS` or `NUMBERS`."""
        if name == "seconds":
            return self.seconds
        source = self.made if name in ("status", "reason", "error_message", "smoothness") else self.fit
        value = source.get(name, "" if name in TEXTS else _UNKNOWN)
        if name in TEXTS:
            return str(value)[:MOST_TEXT]
        return value if self.ok and value != _UNKNOWN and math.isfinite(value) else None

    def gaussians(self, storage: Storage) -> Gaussians:
        """Its Gaussians; raises NotFound, FragmentError, AtlasError or StoreError."""
        return Gaussians.from_bytes(read_main(storage, SPLATS, self.shard, self.fit))


@dataclass
class Faults:
    """Sentences about what is not on the page; those after the first `MOST_FAULTS` are only counted."""

    out: str
    """Where the output is; a page that is published does not tell the machine's folders."""
    texts: list[str] = field(default_factory=list)
    more: int = 0

    def add(self, text: str) -> None:
        """Note what is not there."""
        if len(self.texts) < MOST_FAULTS:
            self.texts.append(self.shown(text))
        else:
            self.more += 1

    def shown(self, text: str) -> str:
        """The text as the page has it."""
        return (text if is_remote(self.out) else text.replace(f"{self.out}/", ""))[:MOST_FAULT]


@dataclass
class Listing:
    """Reads the objects of shards, and notes what could not be read."""

    storage: Storage
    version: Version
    """The version of the dataset, whose rows are listed."""
    cost: Cost = field(default_factory=Cost)

    def __post_init__(self) -> None:
        self.faults = Faults(self.storage.url)

    def entries(self, shard: int) -> Iterator[Entry]:
        """The objects of a committed shard; faults in place of damaged tables, and of uids that are none."""
        try:
            whole = (stats_table(self.storage, stage, shard) for stage in layout.STAGES)
            tables = [self.version.live(table, shard) for table in whole]
        except (NotFound, PipelineError) as error:
            self.faults.add(f"shard {shard} is not here: {error}")
            return
        if not tables[0]["uid"].equals(tables[1]["uid"]):
            self.faults.add(f"shard {shard} is not here: its tables have different objects")
            return
        seconds = self._seconds(shard)
        for fit, made in zip(*(_rows(table) for table in tables), strict=True):
            if not is_uid(fit["uid"]):
                shown = ascii(fit["uid"])[:80]
                self.faults.add(f"an object of shard {shard} is not here: no manifest allows its uid, {shown}")
                continue
            yield Entry(shard, fit, made, seconds.get(fit["uid"]))

    def _seconds(self, shard: int) -> dict[str, float]:
        found: dict[str, float] = {}
        for stage in layout.STAGES:
            try:
                entries = journal_rows(self.storage, stage, shard)
            except (NotFound, PipelineError) as error:
                self.faults.add(f"seconds of shard {shard}, {stage}, are not here: {error}")
                continue
            self.cost.add(stage, entries)
            for entry in entries:
                uid = str(entry["uid"])
                found[uid] = found.get(uid, 0.0) + max(0.0, float(entry["seconds"]))
        return found


def _rows(table: pa.Table) -> list[Facts]:
    rows: list[Facts] = table.to_pylist()
    return rows
