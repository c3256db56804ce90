"""Edits the samples of a finished dataset and makes every sum above them agree, as somebody who means harm would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.canonical_json import to_json, to_json_file
from gaussianverse.atlas.dataset_format import ADDRESS, ATLAS
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.storage import Head, sha256_of
from gaussianverse.atlas.tar import build, index
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.finalize import finalize
from gaussianverse.pipeline.dataset.pack import assemble, commit_record
from gaussianverse.pipeline.dataset.parquet import to_parquet
from gaussianverse.pipeline.dataset.records import sample_members
from gaussianverse.pipeline.dataset.run_file import load
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.dataset.shards import read_commit, stats_rows
from gaussianverse.pipeline.dataset.statistics import moments_of

Sample = tuple[Facts, dict[str, bytes]]
"""Facts of an object, and the other members of its sample by their names; none if it is quarantined."""


class Forger:
    """A dataset whose first shard is edited."""

    def __init__(self, root: Path) -> None:
        self.storage = LocalStorage(root)
        self.run = load(self.storage)

    def write(self, key: str, data: bytes | bytearray) -> None:
        """Replace a file."""
        (self.storage.root / key).write_bytes(data)

    def samples(self, family: str) -> dict[str, Sample]:
        """The samples of the first shard, by uid."""
        archive = self.storage.get(dataset_format.shard_tar(family, 0))
        members = {m.name: archive[m.offset : m.offset + m.nbytes] for m in index(archive)}
        found = {}
        for row in stats_rows(self.storage, family, 0):
            uid = str(row["uid"])
            names = sample_members(family, row) if row["sample"] != -1 else []
            facts = {name: value for name, value in row.items() if name not in ADDRESS}
            found[uid] = facts, {n: members[n] for n in names if n != dataset_format.facts_member(uid)}
        return found

    def edit(self, family: str, change: Callable[[dict[str, Sample]], None]) -> None:
        """Edit the samples of the first shard, and rewrite its tar, table, moments and commit record."""
        samples = self.samples(family)
        change(samples)
        fragments = {
            uid: build({**members, dataset_format.facts_member(uid): to_json(facts)})
            for uid, (facts, members) in samples.items()
        }
        forged = assemble(family, 0, list(samples), fragments.__getitem__)
        files: dict[str, bytes | bytearray] = {
            dataset_format.shard_tar(family, 0): forged.tar,
            layout.stats(family, 0): to_parquet(self.run.stats_schema(family), forged.rows),
        }
        if family == ATLAS:
            try:
                files[layout.moments(0)] = moments_of(forged.mains(), self.run)
            except AtlasError:  # there are none of an array that cannot be read
                files[layout.moments(0)] = self.storage.get(layout.moments(0))
        for key, data in files.items():
            self.write(key, data)
        heads = {key: Head(len(data), sha256_of(data)) for key, data in files.items()}
        assert set(read_commit(self.storage, family, 0)["files"]) == set(heads)
        record = commit_record(self.run, family, 0, forged.rows, heads)
        self.write(layout.commit(family, 0), to_json_file(record))

    def facts(self, families: tuple[str, ...], uid: str, values: Mapping[str, object]) -> None:
        """Edit facts of an object in member and table; a caption in its own member too."""

        def change(samples: dict[str, Sample]) -> None:
            facts, members = samples[uid]
            facts.update(values)
            caption = dataset_format.caption_member(uid)
            if "caption" in values and caption in members:
                members[caption] = str(values["caption"]).encode()

        for family in families:
            self.edit(family, change)

    def seal(self) -> None:
        """Write the files of the whole dataset anew: statistics, tables, index, card and sums."""
        for key in dataset_format.FINAL:
            self.storage.delete(key)
        finalize(self.storage, self.run)
