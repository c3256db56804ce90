"""`Reuse`: fits of finished outputs that a run takes over where they are of the same work.

The work is the same if the object's uid, the settings of its fit and the bytes of its views agree. The driver
compares the first two; the task that has read the views compares the third.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import SPLATS, address_column
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.manifests.parquet import UNREADABLE
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import FACTS, MADE, Facts
from gaussianverse.pipeline.dataset.shards import read_main, stats_rows
from gaussianverse.pipeline.dataset.versions import Version, finished_versions, open_version
from gaussianverse.pipeline.errors import FragmentError, PipelineError, message

REUSE = "@reuse"
"""Key in the row of a task: `input_sha256` of a fit of the same settings, its shard, the address of its output."""
_SAMPLE = address_column(SPLATS, "sample")
_COLUMNS = ("uid", "shard", "input_sha256", "fit_digest", "code_digest", _SAMPLE)
_NOT_OF_THE_FIT = {"atlas_heldout_psnr", "config_digest", "schema_version"}


def finished(out: str, store: StoreOptions) -> tuple[Storage, Version]:
    """The newest version of an output whose fits may be taken over.

    Raises:
        NotFound: the output does not exist.
        PipelineError: it is not finished.
    """
    storage = open_storage(out, store)
    version = open_version(storage)
    if version.number not in finished_versions(storage):
        raise PipelineError(f"{out}: not finished, so its fits are not used; finish it first")
    return storage, version


class Reuse:
    """The fits of the newest versions of some outputs, by uid; of two, that of the first output.

    Args:
        outs: addresses of the outputs.
        run: the run that takes fits over.
        store: options of all stores.
        code_digest: digest of the code that must have made them; "" = any.

    Raises:
        NotFound: an output does not exist.
        PipelineError: an output is not finished, or its table is damaged.
    """

    def __init__(self, outs: Sequence[str], run: Run, store: StoreOptions, code_digest: str = "") -> None:
        self._outs = list(outs)
        self._found: dict[str, tuple[int, int, str]] = {}
        for number, out in enumerate(self._outs):
            storage, version = finished(out, store)
            key = version.key(dataset_format.METADATA)
            try:
                with pq.ParquetFile(io.BytesIO(storage.get(key))) as file:
                    if not set(_COLUMNS) <= set(file.schema_arrow.names):
                        continue  # version 1 of the schema does not say what its fits are of
                    table = file.read(columns=list(_COLUMNS), use_threads=False)
            except UNREADABLE as error:
                raise PipelineError(f"{out}/{key}: not a readable Parquet file: {message(error)}") from error
            same = pc.and_(pc.equal(table["fit_digest"], run.fit_digest), pc.not_equal(table[_SAMPLE], -1))
            same = pc.and_(same, pc.not_equal(table["input_sha256"], ""))
            if code_digest:
                same = pc.and_(same, pc.equal(table["code_digest"], code_digest))
            chosen = table.filter(same).select(["uid", "shard", "input_sha256"])
            for uid, shard, sha256 in zip(*(column.to_pylist() for column in chosen.columns), strict=True):
                self._found.setdefault(uid, (number, shard, sha256))

    def __len__(self) -> int:
        return len(self._found)

    def of(self, uid: str) -> str:
        """What a task needs to know of a fit of this object, for its row; "" = there is none."""
        if uid not in self._found:
            return ""
        number, shard, sha256 = self._found[uid]
        return f"{sha256} {shard} {self._outs[number]}"


def reused(row: Facts, input_sha256: str, store: StoreOptions) -> tuple[Gaussians, dict[str, Any]] | None:
    """The Gaussians and facts of a published fit of these views, if the row of a task names one; else None.

    Raises:
        NotFound, FragmentError: it is missing or damaged.
    """
    expected, _, rest = str(row.get(REUSE, "")).partition(" ")
    if not expected or expected != input_sha256:
        return None
    number, _, out = rest.partition(" ")
    shard, uid = int(number), str(row["uid"])
    there = _rows(out, store, shard).get(uid)
    if there is None or there["input_sha256"] != input_sha256:
        raise FragmentError(f"{out}: its tables disagree on the fit of {uid}; verify it, or leave it out of --reuse")
    data = read_main(open_storage(out, store), SPLATS, shard, there)
    known = (*FACTS[SPLATS].names[FACTS[SPLATS].names.index("seed") :], *MADE[SPLATS])
    facts = {name: there[name] for name in known if name in there and name not in _NOT_OF_THE_FIT}
    return Gaussians.from_bytes(data), facts


@lru_cache(maxsize=8)
def _rows(out: str, store: StoreOptions, shard: int) -> dict[str, Facts]:
    return {str(row["uid"]): row for row in stats_rows(open_storage(out, store), SPLATS, shard)}
