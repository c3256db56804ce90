"""Compact a dataset: the rows that count in a version, as version 1 of a dataset of their own.

Arrays and pictures are taken over as they are, each checked by its sha256, and so are all facts but the number of the
row and of the shard. A dataset that grew in steps becomes the one that is built at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gaussianverse.atlas.dataset_format import SCHEMA_VERSION
from gaussianverse.atlas.reader.read_ahead import read_ahead
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Storage, sha256_of
from gaussianverse.manifests import runform
from gaussianverse.manifests.schema import arrow_schema
from gaussianverse.pipeline.dataset import run_file
from gaussianverse.pipeline.dataset.live_rows import LiveRows
from gaussianverse.pipeline.dataset.pack import Assembled, assemble, put_shard, without_samples
from gaussianverse.pipeline.dataset.records import unknown_entry
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.dataset.shards import journal_rows, stats_rows
from gaussianverse.pipeline.dataset.take_over import fragment_of
from gaussianverse.pipeline.dataset.versions import Version
from gaussianverse.pipeline.errors import PipelineError, RunConflict

_KEPT = (
    "schema_version", "extras", "config_digest", "config", "configs", "representation", "versions", "code_digest",
    "part",
)  # fmt: skip
"""Entries of the version's file that the new run.json has; those that are empty are left out."""
_AHEAD = 16
"""Objects whose samples are read ahead."""
_TABLES = 16
"""Shards of the source whose tables are in memory: neighbours in a new shard come from the same few."""
_COMPARED = ("index", "shard", "uid", "status", "reason", "error_message", "sha256")
"""Columns that tell whether a row is of the same version, where manifest and configuration are the same."""


@dataclass(frozen=True)
class Compaction:
    """The rows that count in a version, in the order of their uids.

    Attributes:
        source: store of the dataset.
        version: the version.
        uids: the objects, those that were quarantined included.
        shards: shard of the source that each lies in, int64 [N].
        manifest: the manifest of the new dataset, in run form.
    """

    source: Storage
    version: Version
    uids: pa.Array
    shards: NDArray[np.int64]
    manifest: bytes

    def begin(self, dest: Storage) -> Run:
        """Write run.json and the manifest, or confirm that they are there.

        Raises:
            RunConflict: the place holds another run.
        """
        identity = {name: self.version.identity.get(name) for name in _KEPT}
        n_shards = -(-len(self.uids) // self.version.run.settings.shard_size)
        counts = {"manifest_sha256": sha256_of(self.manifest), "n_objects": len(self.uids), "n_shards": n_shards}
        kept = {name: value for name, value in identity.items() if value or name == "extras"}
        return run_file.establish(dest, self.manifest, {**kept, **counts})

    def put(self, dest: Storage, run: Run, family: str, shard: int) -> None:
        """Publish a shard of the new dataset.

        Raises:
            NotFound, PipelineError: a table of the source is missing or damaged.
            FragmentError: bytes of the source are not those that were published.
            ShardConflict: a key of the new dataset holds other bytes.
        """
        rows, schema, facts = self._objects(run, shard), run.facts_schema(family), []
        for number, uid, of in rows:
            there = self._row(family, of, uid)
            facts.append({name: there[name] for name in schema.names} | {"index": number, "shard": shard})
        if family in run.held:
            places = [(of, one) for (_, _, of), one in zip(rows, facts, strict=True)]
            fragments = read_ahead(partial(self._fragment, family), places, _AHEAD)
            assembled = assemble(family, shard, [uid for _, uid, _ in rows], lambda uid: next(fragments))
        else:
            assembled = without_samples(facts)
        put_shard(dest, run, family, shard, assembled, self._entries(family, rows, assembled))

    def check(self, dest: Storage, run: Run, family: str, shard: int) -> None:
        """Check that a shard of the new dataset that is there is of this version.

        Another version may have the same manifest and other samples, as once `retry-failed` has rescued an object.

        Raises:
            NotFound, PipelineError: a table is missing or damaged.
            RunConflict: it is of another version.
        """
        there = stats_rows(dest, family, shard)
        own = [
            {**self._row(family, of, uid), "index": number, "shard": shard}
            for number, uid, of in self._objects(run, shard)
        ]
        names = _COMPARED if family in run.held else _COMPARED[:-1]
        if [[row[name] for name in names] for row in own] != [[row[name] for name in names] for row in there]:
            raise RunConflict(
                f"{dest.url}: shard {shard} of {family} is not of version {self.version.number} of "
                f"{self.source.url}, but of another with the same manifest. Nothing was changed. Compact that one "
                "(--version), or choose an empty place"
            )

    def _objects(self, run: Run, shard: int) -> list[tuple[int, str, int]]:
        """Number and uid of each object of a shard, and the shard of the source that it is in."""
        size = run.settings.shard_size
        numbers = range(shard * size, min((shard + 1) * size, len(self.uids)))
        return [(k, str(self.uids[k].as_py()), int(self.shards[k])) for k in numbers]

    def _row(self, family: str, shard: int, uid: str) -> Facts:
        found = self._tables(family, shard).get(uid)
        if found is None:
            raise PipelineError(f"{self.source.url}: shard {shard} of {family} has no row of {uid}; fetch it again")
        return dict(found)

    def _fragment(self, family: str, sample: tuple[int, Facts]) -> bytes:
        """The fragment of an object under its new facts."""
        shard, facts = sample
        there = self._row(family, shard, str(facts["uid"]))
        return fragment_of(self.source, family, shard, there, self._tables(family, shard).values(), facts)

    def _entries(self, family: str, rows: Sequence[tuple[int, str, int]], assembled: Assembled) -> Iterator[Facts]:
        """The journal of a shard: times and hosts of those that made its objects, as far as they are known."""
        for (_, uid, of), facts, sha256 in zip(rows, assembled.rows, assembled.digests, strict=True):
            spent = self._journals(family, of).get(uid, {})
            yield {
                **unknown_entry(family, facts, sha256),
                **spent,
                "index": facts["index"],
                "fragment_sha256": sha256,
            }

    @cached_property
    def _tables(self) -> Any:
        return lru_cache(_TABLES)(lambda family, shard: _by_uid(stats_rows(self.source, family, shard)))

    @cached_property
    def _journals(self) -> Any:
        def read(family: str, shard: int) -> dict[str, Facts]:
            try:
                return _by_uid(journal_rows(self.source, family, shard))
            except (NotFound, PipelineError):
                return {}  # a journal is not part of the dataset

        return lru_cache(_TABLES)(read)


def compaction_of(source: Storage, version: Version) -> Compaction:
    """Read which rows count in a finished version.

    Raises:
        NotFound, PipelineError: a manifest is missing or damaged, or an older gaussianverse made the dataset.
    """
    run = version.run
    if run.version != SCHEMA_VERSION:
        raise PipelineError(
            f"{source.url}: schema version {run.version}; datasets of version {SCHEMA_VERSION} are compacted"
        )
    live = LiveRows(source, version)
    order = pc.sort_indices(live.uid)
    schema = arrow_schema(run.identity.get("extras", {}))
    columns = [live.column(f.name).take(order).combine_chunks() if f.name != "index" else None for f in schema]
    count = pa.array(np.arange(len(live)), pa.int64())
    rows = pa.Table.from_arrays([count if column is None else column for column in columns], schema=schema)
    manifest = runform.encode_table(rows, shard_size=run.settings.shard_size)
    return Compaction(source, version, rows["uid"].combine_chunks(), live.shard[np.asarray(order)], manifest)


def _by_uid(rows: Sequence[Mapping[str, Any]]) -> dict[str, Facts]:
    return {str(row["uid"]): dict(row) for row in rows}
