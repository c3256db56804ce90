"""`Run` and its file: what the shards of a version are made of, written by its first call, compared by later ones.

The file of version 1 is run.json, that of a later one its version.json, see `versions`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from heapq import merge
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.canonical_json import json_object, to_json_file
from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.configuration import from_table
from gaussianverse.atlas.dataset_format import ATLAS, FAMILIES, SCHEMA_VERSION, VIEWS, version_error
from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.fitter.config import FitConfig, ReduceConfig
from gaussianverse.manifests import runform
from gaussianverse.manifests.row_groups import RowGroups
from gaussianverse.manifests.schema import ARROW
from gaussianverse.pipeline.config import RunConfig, RunSettings, SplatsConfig, digest_of
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.provenance import code_digest, versions
from gaussianverse.pipeline.dataset.schemas import (
    Columns,
    facts_schema,
    is_count,
    is_sha256,
    metadata_schema,
    stats_schema,
)
from gaussianverse.pipeline.errors import PipelineError, RunConflict
from gaussianverse.pipeline.store.publish import Published, publish, publish_exact, sha256_of_data

log = logging.getLogger(__name__)

PROVENANCE = ("versions", "code_digest")
"""Entries that may differ between two calls of one run: every sample names what made it."""
_SHOWN = 8
"""Differences between two manifests that an error names."""


@dataclass(frozen=True)
class Run:
    """A run, as run.json describes it, or the version.json of a later version.

    Attributes:
        identity: content of the file.
        number: version whose shards it makes.
    """

    identity: dict[str, Any]
    number: int = 1

    @property
    def first_shard(self) -> int:
        """Number of its first shard: shards of later versions are numbered on."""
        return int(self.identity.get("first_shard", 0))

    @property
    def first_index(self) -> int:
        """`index` of its first row: rows of later versions are counted on."""
        return int(self.identity.get("first_index", 0))

    @property
    def history(self) -> list[dict[str, Any]]:
        """The changes of its version and of those before it, from version 2 on; each with its number and note."""
        if self.number == 1:
            return []
        own = {"version": self.number, "changes": self.identity["changes"], "note": self.identity["note"]}
        return [*self.identity["history"], own]

    @property
    def shards(self) -> range:
        """Numbers of its shards."""
        return range(self.first_shard, self.first_shard + self.n_shards)

    @property
    def key(self) -> str:
        """Key of its file."""
        return layout.run_key(self.number)

    @property
    def manifest_key(self) -> str:
        """Key of its manifest, whose row group j is shard `first_shard` + j."""
        return layout.manifest_key(self.number)

    @property
    def n_objects(self) -> int:
        """Number of rows of the manifest."""
        return int(self.identity["n_objects"])

    @property
    def n_shards(self) -> int:
        """Number of row groups of the manifest."""
        return int(self.identity["n_shards"])

    def objects_in(self, shard: int) -> int:
        """Number of objects of a shard."""
        size = self.settings.shard_size
        return min(size, self.n_objects - (shard - self.first_shard) * size)

    @property
    def version(self) -> int:
        """Schema version of its tables and members."""
        return int(self.identity["schema_version"])

    @property
    def extras(self) -> Columns:
        """Columns of the manifest's author."""
        return [(name, ARROW[kind]) for name, kind in self.identity.get("extras", {}).items()]

    def facts_schema(self, family: str) -> pa.Schema:
        """Schema of the JSON members of a family."""
        return facts_schema(family, self.extras, self.version)

    def stats_schema(self, family: str) -> pa.Schema:
        """Schema of the tables of a family's shards."""
        return stats_schema(family, self.extras, self.version)

    def metadata_schema(self) -> pa.Schema:
        """Schema of metadata.parquet."""
        return metadata_schema(self.families, self.extras, self.version)

    @property
    def digest(self) -> str:
        """Digest of the configuration."""
        return str(self.identity["config_digest"])

    @property
    def code_digest(self) -> str:
        """Digest of the code that began it; "" if run.json has none."""
        return str(self.identity.get("code_digest", ""))

    @property
    def fit_digest(self) -> str:
        """Digest of all settings that decide a fit: equal views and digests give equal fits on one CPU."""
        config = self.identity["config"]
        return digest_of({"fit": config["fit"], "seed": config["run"]["seed"]})

    @property
    def fit(self) -> FitConfig:
        """Configuration of the fits."""
        return from_table(FitConfig, self.identity["config"]["fit"], "fit")

    @property
    def atlas(self) -> AtlasConfig:
        """Configuration of the atlases."""
        return from_table(AtlasConfig, self.identity["config"]["atlas"], "atlas")

    @property
    def reduce(self) -> ReduceConfig:
        """Reduction of objects with more Gaussians than cells."""
        return from_table(ReduceConfig, self.identity["config"].get("reduce", {}), "reduce")

    @property
    def settings(self) -> RunSettings:
        """Configuration of the run: seed, shard size and reference views."""
        return from_table(RunSettings, self.identity["config"]["run"], "run")

    @property
    def splats(self) -> SplatsConfig:
        """Configuration of reading objects that already are Gaussians."""
        return from_table(SplatsConfig, self.identity["config"].get("splats", {}), "splats")

    @property
    def part(self) -> dict[str, Any]:
        """What a part that was taken of a dataset says of that; {} for a dataset that was built."""
        return dict(self.identity.get("part", {}))

    @property
    def families(self) -> tuple[str, ...]:
        """Families of shards that this run makes: each has tables and commit records."""
        return dataset_format.FAMILIES if VIEWS in self.held else layout.STAGES

    @property
    def held(self) -> tuple[str, ...]:
        """Families whose samples are there, in tars: all of them, but in a part that was taken without some."""
        made = dataset_format.FAMILIES if self.settings.views else layout.STAGES
        return tuple(family for family in made if family in self.part.get("families", made))

    @property
    def views_size(self) -> int:
        """Side of the reference views in pixels."""
        return self.settings.views_size or self.fit.size


def identity_of(manifest: bytes | Path, config: RunConfig, representation: Mapping[str, Any]) -> dict[str, Any]:
    """The content of run.json.

    Args:
        manifest: objects.parquet.
        config: configuration of the run.
        representation: channel order, dtype, and hashes of sphere and plane.
    """
    tables = config.identity()
    extent = runform.extent_of(manifest)
    tables["run"]["shard_size"] = extent.shard_size if extent.shards > 1 else config.run.shard_size
    return {
        "schema_version": SCHEMA_VERSION,
        "manifest_sha256": sha256_of_data(manifest),
        "n_objects": extent.objects,
        "n_shards": extent.shards,
        "extras": extent.kinds,
        "config_digest": digest_of(tables),
        "config": tables,
        "representation": dict(representation),
        "versions": versions(),
        "code_digest": code_digest(),
    }


def establish(storage: Storage, manifest: bytes | Path, identity: dict[str, Any]) -> Run:
    """Write run.json and the manifest, or confirm that the output holds the same ones.

    Other versions of packages than those of the first call are no obstacle: every sample names what made it.

    Raises:
        RunConflict: the output holds another run, and the message lists every difference; or it was purged.
    """
    _check_not_purged(storage)
    data = to_json_file(identity, sort_keys=True)
    if publish(storage, layout.RUN, data) is Published.ADOPTED:
        there = load(storage)
        _check_same(storage, there, manifest, identity)
        publish_exact(storage, layout.MANIFEST, manifest)
        return there
    publish_exact(storage, layout.MANIFEST, manifest)
    return Run(json.loads(data))  # parsed back, so that its keys have the order that later calls see


def _check_not_purged(storage: Storage) -> None:
    """Raise RunConflict if later versions are finished and the first is not: its shards would be made again."""
    later = dataset_format.finished_versions((e.key for e in storage.list(dataset_format.VERSIONS)), False)
    if later and storage.head(dataset_format.SUCCESS) is None:
        raise RunConflict(
            f"{storage.url}: version 1 was purged, and version {max(later)} is the newest. Nothing was changed. "
            "Extend it, or choose another output"
        )


def _check_same(storage: Storage, there: Run, manifest: bytes | Path, identity: dict[str, Any]) -> None:
    if there.version != SCHEMA_VERSION:
        raise RunConflict(
            f"{storage.url} was begun by an older gaussianverse (schema version {there.version}). Nothing was "
            "changed. Finish it with that version, or choose another output"
        )
    one, other = ({n: v for n, v in i.items() if n not in PROVENANCE} for i in (there.identity, identity))
    found = list(differences(one, other))
    if one["manifest_sha256"] != other["manifest_sha256"]:
        found = [d for d in found if not d.startswith(("manifest_sha256 ", "n_objects ", "n_shards "))]
        found += other_rows(storage.get(layout.MANIFEST), manifest)
    if found:
        raise RunConflict(
            f"{storage.url} holds a run of another manifest or configuration: {'; '.join(found)}. "
            "Nothing was changed. Choose another output, use the manifest and settings of the first call, or add to "
            "a finished dataset with extend"
        )
    made, now = ({n: i[n] for n in PROVENANCE} for i in (there.identity, identity))
    if changed := list(differences(made, now)):
        log.warning("%s was begun with other code: %s", storage.url, "; ".join(changed))


def other_rows(there: bytes, here: bytes | Path) -> list[str]:
    """The first differences between two manifests in run form, by row and column, and how many more there are."""
    found, more = list[str](), 0
    for text in _differing_rows(there, here):
        if len(found) < _SHOWN:
            found.append(text)
        else:
            more += 1
    found += [f"and {more} more differences"] if more else []
    return found or ["the manifest's bytes, though not its rows"]


def _differing_rows(there: bytes, here: bytes | Path) -> Iterator[str]:
    """Every difference of two manifests, whose rows are both sorted by uid."""
    with runform.opened(there) as one, runform.opened(here) as other:
        rows = merge(
            ((uid, 0, row) for uid, row in _rows(one)), ((uid, 1, row) for uid, row in _rows(other)),
            key=lambda found: found[:2],
        )  # fmt: skip
        for uid, found in groupby(rows, key=lambda found: found[0]):
            sides = {side: row for _, side, row in found}
            if len(sides) == 2:
                yield from (f"row {uid!r}: {text}" for text in differences(sides[0], sides[1]))
            else:
                yield f"row {uid!r} is only {'here' if 1 in sides else 'there'}"


def _rows(file: RowGroups) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a manifest, without their places, by their uids."""
    for shard in range(len(file)):
        for row in runform.rows_of(file, shard, "manifest"):
            yield row.uid, {name: value for name, value in runform.flat(row).items() if name != "index"}


def load(storage: Storage, number: int = 1) -> Run:
    """The run of an output, or of a later version of it.

    Raises:
        NotFound: there is none.
        PipelineError: its file is damaged, or of an unknown schema version.
    """
    key = layout.run_key(number)
    try:
        data = storage.get(key)
    except NotFound as error:
        start = "no run here" if number == 1 else f"no version {number} here"
        mend = "start one with fit-shard" if number == 1 else "start it with extend"
        raise NotFound(f"{storage.url}: {start} (no {key}); {mend}") from error
    where = f"{storage.url}/{key}"
    try:
        identity = json_object(data, PipelineError)
    except PipelineError as error:
        raise PipelineError(f"{where}: {error}; it was damaged after the run") from error
    if text := version_error(identity.get("schema_version")):
        raise PipelineError(f"{where}: {text}")
    least = 1 if number == 1 else 0
    counts: list[Any] = [least, identity.get("n_shards"), identity.get("n_objects")]
    tables = [identity.get(name) for name in ("config", "representation", "versions")]
    if (
        not all(map(is_count, counts))
        or counts != sorted(counts)
        or not is_sha256(identity.get("manifest_sha256"))
        or not all(isinstance(table, dict) for table in tables)
        or not _is_part(identity.get("part"))
        or identity.get("config_digest") != digest_of(identity["config"])
    ):
        raise PipelineError(f"{where}: its entries contradict one another; it was damaged after the run")
    return Run(identity, number)


def _is_part(part: object) -> bool:
    """Whether this is the entry `part` of a run.json, or there is none."""
    if part is None:
        return True
    if not isinstance(part, dict) or not is_sha256(part.get("index_sha256")) or not is_count(part.get("samples")):
        return False
    families, chosen = part.get("families"), part.get("chosen")
    texts = isinstance(chosen, list) and all(isinstance(text, str) for text in chosen)
    return texts and isinstance(families, list) and ATLAS in families and set(FAMILIES).issuperset(families)


@lru_cache(maxsize=4)
def load_cached(url: str, store: StoreOptions, number: int = 1) -> Run:
    """`load`, cached per process, since the file never changes."""
    return load(open_storage(url, store), number)


def differences(there: Any, here: Any, path: str = "") -> Iterator[str]:
    """Every difference, such as "config.fit.steps is 160 there, 200 here"."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted({*there, *here}):
            yield from differences(there.get(name), here.get(name), f"{path}.{name}" if path else name)
    elif there != here:
        yield f"{path} is {json.dumps(there)} there, {json.dumps(here)} here"
