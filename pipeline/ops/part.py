"""Take a part of a finished dataset: a dataset of its own, with some of the objects and of the families.

Of the source are read the arrays of these objects, by range; what every reader of a dataset reads, its index, sums
and table; and the manifest. Facts and captions come from the table, which the sums vouch for, and each array is
compared with the sha256 that stands there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from gaussianverse.atlas.dataset_format import ATLAS, FAMILIES, SCHEMA_VERSION, VIEWS, address_column, shard_tar
from gaussianverse.atlas.reader.catalogue import ByteRange, Catalogue, read
from gaussianverse.atlas.reader.read_ahead import read_ahead
from gaussianverse.atlas.reader.table import Rows
from gaussianverse.atlas.store import is_remote
from gaussianverse.atlas.store.storage import Storage, sha256_of
from gaussianverse.manifests import runform
from gaussianverse.manifests.schema import Row
from gaussianverse.pipeline.dataset import layout, run_file
from gaussianverse.pipeline.dataset.finalize import finalize
from gaussianverse.pipeline.dataset.pack import assemble, put_shard, without_samples
from gaussianverse.pipeline.dataset.records import unknown_entry
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.dataset.shards import committed_shards
from gaussianverse.pipeline.dataset.take_over import facts_in, taken_over
from gaussianverse.pipeline.dataset.versions import Version, open_version
from gaussianverse.pipeline.errors import PipelineError, UsageError
from gaussianverse.pipeline.ops.choice import Choice
from gaussianverse.pipeline.store.probes import PREFIX, prove_conditional_puts

_KEPT = (
    "schema_version", "extras", "config_digest", "config", "configs", "representation", "versions", "code_digest",
)  # fmt: skip
"""Entries of run.json that a part has from its source."""
_AHEAD = 32
"""Objects whose arrays are read ahead."""


@dataclass(frozen=True)
class Part:
    """Objects of a finished dataset, and the families that are taken of them.

    Attributes:
        source: store of the dataset.
        version: the version of it that is taken.
        catalogue: its catalogue.
        places: places of the objects in the catalogue, in the order of their uids.
        families: families whose samples are taken; always the atlases.
        chosen: how the objects were chosen, in words.
    """

    source: Storage
    version: Version
    catalogue: Catalogue
    places: Rows
    families: tuple[str, ...]
    chosen: tuple[str, ...]

    def take(self, dest: Storage, *, hub: bool = False) -> Iterator[str]:
        """Write the part; yields the key of each shard that is there, and `_SUCCESS` is written last.

        The same part is taken up where it was left, and is left as it is once it is complete.

        Args:
            dest: an empty place, or one where the same part was begun.
            hub: whether the card is for the Hugging Face hub, whose viewer then shows the table.

        Raises:
            UsageError: the place lies in the source, or holds other things.
            RunConflict: it holds another part.
            FragmentError: bytes of the source are not those that were published.
            StoreError: a store failed.
        """
        check_apart(self.source, dest)
        check_empty(dest)
        prove_conditional_puts(dest)
        manifest = runform.encode(list(self._rows()), shard_size=self.version.run.settings.shard_size)
        run = run_file.establish(dest, manifest, self._identity(manifest, hub))
        there, size = committed_shards(dest), run.settings.shard_size
        for shard in range(run.n_shards):
            places = self.places[shard * size : (shard + 1) * size]
            for family in run.families:
                if (family, shard) not in there:
                    self._put(dest, run, family, shard, places)
            yield shard_tar(ATLAS, shard)
        finalize(dest, run)

    def _rows(self) -> Iterator[Row]:
        """Rows of the manifest, as the source has them."""
        wanted, manifests = dict[int, set[str]](), dict[str, bytes]()
        shards = self.catalogue.shards[self.places].tolist()
        for shard, uid in zip(shards, self.catalogue.uids(self.places), strict=True):
            wanted.setdefault(shard, set()).add(uid)
        for shard, uids in sorted(wanted.items()):
            made = self.version.run_of(shard)
            key = made.manifest_key
            if key not in manifests:
                manifests[key] = self.source.get(key)
                if sha256_of(manifests[key]) != made.identity["manifest_sha256"]:
                    raise PipelineError(
                        f"{self.source.url}/{key}: its sha256 is not that of {made.key}; fetch it again"
                    )
            rows = runform.read_shard(manifests[key], shard - made.first_shard)
            found = [row for row in rows if row.uid in uids]
            if len(found) != len(uids):
                raise PipelineError(f"{self.source.url}/{key}: shard {shard} lacks objects of the table")
            yield from found

    def _identity(self, manifest: bytes, hub: bool) -> dict[str, Any]:
        return {
            **{name: self.version.identity[name] for name in _KEPT if name in self.version.identity},
            "manifest_sha256": sha256_of(manifest),
            "n_objects": len(self.places),
            "n_shards": runform.extent_of(manifest).shards,
            "part": {
                "index_sha256": self.catalogue.digest,
                "samples": len(self.catalogue),
                "families": list(self.families),
                "chosen": list(self.chosen),
                **({"hub": True} if hub else {}),
            },
        }

    def _put(self, dest: Storage, run: Run, family: str, shard: int, places: Rows) -> None:
        """Publish one shard."""
        schema, numbers = run.facts_schema(family), places.tolist()
        first = shard * run.settings.shard_size
        facts = [
            facts_in(family, {**self.catalogue.row(place), "index": first + k, "shard": shard}, schema)
            for k, place in enumerate(numbers)
        ]
        if family in self.families:
            fragments = read_ahead(partial(self._fragment, family), zip(numbers, facts, strict=True), _AHEAD)
            assembled = assemble(family, shard, [str(one["uid"]) for one in facts], lambda uid: next(fragments))
        else:
            assembled = without_samples(facts)
        entries = (unknown_entry(family, *one) for one in zip(assembled.rows, assembled.digests, strict=True))
        put_shard(dest, run, family, shard, assembled, entries)

    def _fragment(self, family: str, sample: tuple[int, Facts]) -> bytes:
        """Read a sample of the source and make a fragment of it."""
        place, facts = sample
        row = self.catalogue.row(place, [address_column(family, name) for name in ("offset", "nbytes", "sha256")])
        offset, nbytes, sha256 = row.values()
        if family == VIEWS:
            part = self.catalogue.byte_range(place, family)
        else:
            key, total = self._tars[family][int(self.catalogue.shards[place])]
            part = ByteRange(key, offset, nbytes, total)
        return taken_over(family, facts, read(self.source, part), sha256, f"{self.source.url}/{part.key}")

    @cached_property
    def _tars(self) -> dict[str, dict[int, tuple[str, int]]]:
        """Key and length of each shard, by family and number."""
        return {
            family: {
                int(s["shard"]): (s[family]["key"], int(s[family]["nbytes"])) for s in self.catalogue.index["shards"]
            }
            for family in self.families
        }


def part_of(source: Storage, choice: Choice, families: Sequence[str] = (), number: int | None = None) -> Part:
    """Choose a part of a dataset.

    Args:
        source: store of the dataset.
        choice: which objects.
        families: families to take; none = all that the dataset has.
        number: version of the dataset; None = the newest.

    Raises:
        UsageError: a family that the dataset does not have, or no atlases; see also `Choice.places`.
        DatasetError: the dataset is not finished, or damaged; see also `Choice.places`.
        PipelineError: an older gaussianverse made it.
    """
    catalogue = Catalogue(source, number)
    version = open_version(source, catalogue.version)
    run = version.run
    if run.version != SCHEMA_VERSION:
        raise PipelineError(
            f"{source.url}: schema version {run.version}; parts are taken of datasets of version {SCHEMA_VERSION}"
        )
    for name in ("config_digest", "manifest_sha256"):
        if run.identity[name] != catalogue.index[name]:
            raise PipelineError(f"{source.url}/{run.key}: not that of its index; fetch it again")
    if absent := [family for family in families if family not in run.held]:
        raise UsageError(f"--family {absent[0]}: {source.url} has {', '.join(run.held)}")
    if families and ATLAS not in families:
        raise UsageError(
            f"--family {families[0]} without atlas: statistics and readers of a dataset are those of its atlases; "
            "add --family atlas, or write other formats"
        )
    places = choice.places(catalogue)
    uids = catalogue.uids(places)
    by_uid = sorted(range(len(uids)), key=uids.__getitem__)
    held = tuple(family for family in FAMILIES if family in (families or run.held))
    return Part(source, version, catalogue, places[by_uid], held, tuple(choice.words()))


def check_apart(source: Storage, dest: Storage) -> None:
    """Raise UsageError if one of two places lies in the other."""
    one, other = (url if is_remote(url) else os.path.realpath(url) for url in (source.url, dest.url))
    one, other = one.rstrip("/") + "/", other.rstrip("/") + "/"
    if one.startswith(other) or other.startswith(one):
        raise UsageError(f"{dest.url} lies in {source.url}, or the other way round; choose a place beside it")


def check_empty(dest: Storage) -> None:
    """Raise UsageError if there are things in a place that were not begun as a dataset."""
    keys = [entry.key for entry in dest.list("") if not entry.key.startswith(PREFIX)]
    if keys and layout.RUN not in keys:
        raise UsageError(f"{dest.url} is not empty, it holds {min(keys)}; choose an empty place")
