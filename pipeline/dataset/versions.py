"""`Version`: a version of a dataset as a whole, from the shards and rows that count to the run that made each shard.

    version 1                   the root: every row of every shard of run.json
    versions/0002/version.json  its parent, the shards that count, what changed, and the run of its own new shards

Published bytes never change: a later version adds shards, and names rows of earlier ones that do not count any more.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import (
    ADDRESS,
    ORIGINS,
    SUCCESS,
    SUPERSEDED,
    VERSION,
    VERSIONS,
    address_column,
)
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Storage, sha256_of
from gaussianverse.pipeline.config import digest_of
from gaussianverse.pipeline.dataset import layout, run_file
from gaussianverse.pipeline.dataset.manifest_rows import find_row
from gaussianverse.pipeline.dataset.parquet import from_parquet
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import is_count, is_sha256
from gaussianverse.pipeline.errors import NoObject, PipelineError
from gaussianverse.pipeline.policy import ordered_shards

REMOVED, REPLACED, CORRECTED = "removed", "replaced", "corrected"
"""Why a row does not count any more: its object was taken out, was made anew, or is the same with other facts."""


def superseded_schema(families: Sequence[str]) -> pa.Schema:
    """Schema of superseded.parquet; sample is -1 where the object was quarantined."""
    text, whole = pa.string(), pa.int64()
    addresses = [(address_column(f, n), text if n == "sha256" else whole) for f in families for n in ADDRESS]
    columns = [("uid", text), ("shard", whole), ("index", whole), ("since", whole), ("change", text), *addresses]
    return pa.schema(columns)


@dataclass(frozen=True)
class Superseded:
    """Rows of counted shards that do not count any more.

    Attributes:
        table: of `superseded_schema`, sorted by (shard, index); None if there are none.
    """

    table: pa.Table | None = None

    @cached_property
    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if self.table is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return self.table["shard"].to_numpy(), self.table["index"].to_numpy()

    def indices(self) -> NDArray[np.int64]:
        """`index` of all of them; no two rows of an output have the same."""
        return self._places[1]

    def samples_in(self, family: str, shard: int) -> int:
        """Number of these rows of a shard that have a sample in a family."""
        if self.table is None:
            return 0
        first, end = np.searchsorted(self._places[0], [shard, shard + 1])
        samples = self.table[address_column(family, "sample")][int(first) : int(end)].to_numpy()
        return int((samples != -1).sum())

    def in_shard(self, shard: int) -> NDArray[np.int64]:
        """Ascending `index` of each row of a shard that does not count any more."""
        shards, indices = self._places
        first, end = np.searchsorted(shards, [shard, shard + 1])
        return indices[first:end]


@dataclass(frozen=True)
class Version:
    """A version, finished or begun.

    Attributes:
        run: what made its own new shards; of its configuration and columns are all rows that count.
        runs: the runs whose shards count, by their first shard; `run` is the last one if it has shards.
        shards: numbers of the shards that count, ascending.
        superseded: rows of these shards that do not count any more.
    """

    run: Run
    runs: tuple[Run, ...]
    shards: Sequence[int]
    superseded: Superseded = field(default_factory=Superseded)

    @property
    def number(self) -> int:
        """Its number, from 1."""
        return self.run.number

    @property
    def families(self) -> tuple[str, ...]:
        """Families of its shards."""
        return self.run.families

    @property
    def identity(self) -> dict[str, Any]:
        """Content of its run.json or version.json."""
        return self.run.identity

    @property
    def parent(self) -> int:
        """Number of the version that it changed; 0 for version 1."""
        return int(self.identity.get("parent", 0))

    @property
    def n_objects(self) -> int:
        """Number of rows that count, with those that were quarantined."""
        rows = sum(self.run_of(shard).objects_in(shard) for shard in self.shards)
        return rows - (len(self.superseded.table) if self.superseded.table is not None else 0)

    def key(self, name: str) -> str:
        """Key of one of its files, such as `dataset_format.METADATA`."""
        return dataset_format.version_key(self.number, name)

    def sources(self) -> list[str]:
        """Keys of the files that were there before its shards: what its runs are, their manifests, its tables."""
        numbers = sorted({1, *(run.number for run in self.runs), self.number})
        own = [self.key(name) for name in (ORIGINS, SUPERSEDED)] if self.number > 1 else []
        return [key for n in numbers for key in (layout.run_key(n), layout.manifest_key(n))] + own

    def run_of(self, shard: int) -> Run:
        """The run that made a shard that counts."""
        return self.runs[bisect_right([run.first_shard for run in self.runs], shard) - 1]

    def live(self, rows: pa.Table, shard: int) -> pa.Table:
        """The rows that count of a table of a shard, which has the column `index`."""
        lost = self.superseded.in_shard(shard)
        if not len(lost):
            return rows
        return rows.filter(pa.array(~np.isin(rows["index"].to_numpy(), lost)))

    def bearing(self, digest: str) -> Run | None:
        """The run with the configuration of this digest, which some of its samples may bear; None if none may."""
        if digest == self.run.digest:
            return self.run
        config = self.identity.get("configs", {}).get(digest)
        if config is None:
            return None
        return replace(self.run, identity={**self.identity, "config": config, "config_digest": digest})

    def find(self, storage: Storage, uid: str) -> tuple[dict[str, Any], int]:
        """The row of the manifest, and the shard, of an object that counts.

        Raises:
            NoObject: this version has no such object.
            NotFound, PipelineError: a manifest is missing or damaged.
        """
        for run in reversed(self.runs):
            try:
                row, shard = find_row(storage, run, uid)
            except NoObject:
                continue
            if shard in self.shards and row["index"] not in self.superseded.in_shard(shard):
                return row, shard
        where = "" if self.number == 1 else f", version {self.number}"
        raise NoObject(f"{storage.url}{where}: no object {uid!r} in the manifest")


def finished_versions(storage: Storage) -> list[int]:
    """Numbers of the versions that have their `_SUCCESS`, ascending."""
    later = [entry.key for entry in storage.list(VERSIONS)]
    return dataset_format.finished_versions(later, storage.head(SUCCESS) is not None)


def begun_version(storage: Storage) -> int | None:
    """Number of the version that was begun after the newest finished one, or None."""
    keys = [entry.key for entry in storage.list(VERSIONS)]
    newest = max(dataset_format.finished_versions(keys, storage.head(SUCCESS) is not None), default=0)
    if not newest:
        return 1
    parsed = (dataset_format.parse_version_key(key) for key in keys)
    return max((n for n, name in filter(None, parsed) if name == VERSION and n > newest), default=None)


def open_version(storage: Storage, number: int | None = None) -> Version:
    """A version of an output, finished or begun.

    Args:
        storage: store of the output.
        number: its number; None = the newest that is finished, or version 1 while none is.

    Raises:
        NotFound: there is no run, or no such version; the message names those that are finished.
        PipelineError: a file of it is damaged.
    """
    finished = finished_versions(storage)
    newest = max(finished, default=1)
    if number is None:
        number = newest
    listed = ", ".join(map(str, finished)) or "none"
    if 1 <= number < newest and number not in finished:
        raise NotFound(
            f"{storage.url}: no version {number}: it was purged, or has lost its {SUCCESS}; "
            f"finished versions: {listed}"
        )
    if number == 1:
        run = run_file.load(storage)
        return Version(run, (run,), run.shards)
    try:
        run = run_file.load(storage, number)
    except (NotFound, ValueError) as error:
        raise NotFound(f"{storage.url}: no version {number}; finished versions: {listed}") from error
    return version_of(storage, run)


def version_of(storage: Storage, run: Run) -> Version:
    """The version that a run belongs to; raises the errors of `open_version`."""
    if run.number == 1:
        return Version(run, (run,), run.shards)
    where = f"{storage.url}/{run.key}"
    if text := _fault_of(run):
        raise PipelineError(f"{where}: {text}; it was damaged after it was written")
    runs = tuple(run if n == run.number else run_file.load(storage, n) for n in run.identity["runs"])
    known = [k for one in runs for k in one.shards]
    try:
        shards = ordered_shards(run.identity["shards"], known) if run.identity["shards"] else []
    except PipelineError as error:
        raise PipelineError(f"{where}: {error}; it was damaged after it was written") from error
    return Version(run, runs, tuple(shards), _superseded(storage, run))


def _superseded(storage: Storage, run: Run) -> Superseded:
    key = dataset_format.version_key(run.number, SUPERSEDED)
    data = storage.get(key)
    if sha256_of(data) != run.identity["superseded_sha256"]:
        raise PipelineError(f"{storage.url}/{key}: its sha256 is not that of {run.key}; it was damaged")
    return Superseded(from_parquet(superseded_schema(run.families), data))


def _fault_of(run: Run) -> str:
    """The fault of a version.json beside those that `run_file.load` finds."""
    identity: Mapping[str, Any] = run.identity
    if identity.get("version") != run.number or not is_count(identity.get("parent")):
        return f"version is {identity.get('version')!r}, parent {identity.get('parent')!r}"
    if not all(is_count(identity.get(name)) for name in ("first_shard", "first_index")):
        return "it does not say which shards and rows are its own"
    if not all(is_sha256(identity.get(f"{name}_sha256")) for name in ("superseded", "origins", "parent_sums")):
        return "it has not the sha256 of its tables and its parent"
    runs, configs = identity.get("runs"), identity.get("configs")
    if not isinstance(runs, list) or runs != sorted(set(runs)) or not all(is_count(n) and n for n in runs):
        return f"runs is {runs!r}, expected numbers of versions"
    if not isinstance(configs, dict) or any(digest_of(config) != digest for digest, config in configs.items()):
        return "configs are not the configurations of their digests"
    if not isinstance(identity.get("shards"), str):
        return "it does not say which shards count"
    if not isinstance(identity.get("note"), str) or not isinstance(identity.get("history"), list):
        return "it does not say what changed"
    try:
        for entry in run.history:
            [int(entry["changes"][name]) for name in ("added", "refitted", "corrected", "removed")]
            dict(entry["changes"]["columns"]), str(entry["note"]), int(entry["version"])
    except (TypeError, KeyError, ValueError):
        return "its changes are not numbers of objects"
    return ""
