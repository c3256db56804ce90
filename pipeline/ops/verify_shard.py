"""Checks of one shard: its files against the commit record, each sample against everything that speaks of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy.typing as npt

from gaussianverse import atlas
from gaussianverse.atlas import dataset_format, tar
from gaussianverse.atlas.dataset_format import ATLAS, OK, SPLATS, VIEWS
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.reader.views import images_sha256
from gaussianverse.atlas.store.errors import Altered, NotFound, StoreError, StoreRefused
from gaussianverse.atlas.store.storage import Head, Storage, sha256_of
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.content import faults_of_atlas, faults_of_facts, faults_of_splats
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.members import atlas_array, check_main, check_views
from gaussianverse.pipeline.dataset.pack import commit_record
from gaussianverse.pipeline.dataset.records import sample_members
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import Facts, facts_from_json, known
from gaussianverse.pipeline.dataset.shards import journal_rows, read_commit, stats_rows
from gaussianverse.pipeline.dataset.statistics import moments_of
from gaussianverse.pipeline.dataset.versions import Version
from gaussianverse.pipeline.errors import PipelineError

_PSNR_STEP = 1e-3
"""Difference in dB that two machines may find in the PSNR of the same renders."""


def named(faults: Iterator[str], what: str) -> Iterator[str]:
    """The faults of one part; if its checks cannot read something, that is a fault too, and the caller goes on."""
    try:
        yield from faults
    except (NotFound, StoreRefused, PipelineError) as error:
        yield f"{what}: cannot be checked: {error}"


def other_manifests(storage: Storage, version: Version) -> Iterator[str]:
    """The faults of manifests that are not those of their runs; without them no shard can be checked."""
    for run in {run.number: run for run in (*version.runs, version.run)}.values():
        try:
            manifest = storage.get(run.manifest_key)
        except NotFound:
            manifest = b""
        if sha256_of(manifest) != run.identity["manifest_sha256"]:
            yield f"{run.manifest_key}: not the manifest of {run.key}, so no shard can be checked"


def commit_or_fault(storage: Storage, family: str, shard: int) -> dict[str, Any] | str:
    """Read a shard's commit record; returns a fault if it cannot be read."""
    try:
        return read_commit(storage, family, shard)
    except NotFound:
        return f"{layout.commit(family, shard)}: missing, so the shard does not exist"
    except PipelineError as error:
        return str(error)


def places(rows: Iterable[Mapping[str, Any]]) -> list[tuple[int, str]]:
    """Index and uid of each row."""
    return [(row["index"], row["uid"]) for row in rows]


class ShardCheck:
    """Checks the families of one shard, the splats first, since atlases are compared with them.

    All of its rows are checked, also those that no longer count.
    """

    def __init__(self, storage: Storage, version: Version, shard: int) -> None:
        self._storage, self._version, self._shard = storage, version, shard
        self._run = version.run_of(shard)
        self._manifest = shard_rows(storage, self._run, shard)
        # None until the splats' tar is known to hold what their table says
        self._splats: dict[str, Facts] | None = None
        self._unread = set[str]()
        self._atlases: list[bytes] = []
        self._all_atlases = False

    def faults(self) -> Iterator[str]:
        """Yield every fault as a line of text. Raises StoreError if the store failed."""
        for family in self._run.families:
            yield from named(self._family(family), f"{family} shard {self._shard}")
            yield from named(self._journal(family), layout.journal(family, self._shard))
        yield from named(self._moments(), layout.moments(self._shard))

    def _family(self, family: str) -> Iterator[str]:
        commit = commit_or_fault(self._storage, family, self._shard)
        if isinstance(commit, str):
            yield commit
            return
        key = dataset_format.shard_tar(family, self._shard)
        archive, heads = b"", dict[str, Head]()
        for name, stored in commit["files"].items():
            try:
                data = self._storage.get(name)
            except NotFound as error:
                yield str(error) if isinstance(error, Altered) else f"{name}: missing"
                continue
            if (len(data), sha256_of(data)) != (stored["nbytes"], stored["sha256"]):
                yield f"{name}: {len(data)} bytes whose sha256 is not that of the commit record"
                continue
            heads[name] = Head(len(data), stored["sha256"])
            if name == key:
                archive = data
        table = layout.stats(family, self._shard)
        if table not in heads:
            return
        try:
            rows = stats_rows(self._storage, family, self._shard)
        except PipelineError as error:
            yield f"{table}: {error}"
            return
        whole = heads.keys() == commit["files"].keys()
        if whole and commit != commit_record(self._run, family, self._shard, rows, heads):
            yield f"{layout.commit(family, self._shard)}: does not match the contents of the shard"
        yield from self._rows(family, rows)
        if family == VIEWS:
            yield from self._aligned(rows)
        if key in heads:
            yield from self._samples(family, key, archive, rows)

    def _rows(self, family: str, rows: list[Facts]) -> Iterator[str]:
        """Compare the rows of the table with the manifest."""
        table = layout.stats(family, self._shard)
        if places(rows) != places(self._manifest):
            yield f"{table}: its rows are not the manifest's"
            return
        for facts, row in zip(rows, self._manifest, strict=True):
            if (facts["sample"] != -1) != (facts["status"] == OK and family in self._run.held):
                yield f"{table}: {facts['uid']}: sample is {facts['sample']}, its status {facts['status']}"
            made = _configured(self._version, self._run, str(facts["config_digest"]))
            for text in faults_of_facts(made, family, row, facts):
                yield f"{table}: {facts['uid']}: {text}"

    def _journal(self, family: str) -> Iterator[str]:
        """Compare the rows of the journal with the manifest."""
        journal = layout.journal(family, self._shard)
        try:
            entries = journal_rows(self._storage, family, self._shard)
        except (PipelineError, NotFound) as error:
            yield f"{journal}: {error}"
            return
        if places(entries) != places(self._manifest):
            yield f"{journal}: its rows are not the manifest's"

    def _aligned(self, rows: list[Facts]) -> Iterator[str]:
        """Check that there are views of the objects with an atlas, and of no others."""
        table = layout.stats(VIEWS, self._shard)
        try:
            atlases = stats_rows(self._storage, ATLAS, self._shard)
        except (PipelineError, NotFound) as error:
            yield f"{table}: cannot be compared with the atlases: {error}"
            return
        ours, theirs = ([(r["uid"], r["sample"], r["reason"]) for r in table_of] for table_of in (rows, atlases))
        if ours != theirs:
            yield f"{table}: its samples are not those of the atlases"

    def _samples(self, family: str, key: str, archive: bytes, rows: list[Facts]) -> Iterator[str]:
        """Compare each sample of a tar with its row, its facts and the splat beside it."""
        try:
            members = {m.name: m for m in tar.index(archive, exact=True)}
        except AtlasError as error:
            yield f"{key}: {error}"
            return
        samples = [facts for facts in rows if facts["sample"] != -1]
        if list(members) != [n for f in samples for n in sample_members(family, f)] or not archive.endswith(tar.END):
            yield f"{key}: its members are not those of its table, in the manifest's order"
            return
        if family == SPLATS:
            self._splats = {str(facts["uid"]): facts for facts in samples}
        self._all_atlases = family == ATLAS or self._all_atlases
        for facts in samples:
            uid = str(facts["uid"])
            own = [members[n] for n in sample_members(family, facts)]
            data = {m.name: archive[m.offset : m.offset + m.nbytes] for m in own}
            main = members[dataset_format.main_member(family, uid)]
            found = {"offset": main.offset, "nbytes": main.nbytes, "sha256": sha256_of(data[main.name])}
            if any(facts[name] != value for name, value in found.items()):
                yield f"{key}: {uid}: offset, size or sha256 differs from its row of the table"
            try:
                yield from (f"{key}: {text}" for text in self._sample(family, facts, data, data[main.name]))
            except StoreError:
                raise
            except Exception as error:  # any error in reading a sample is a fault
                if family == SPLATS:
                    self._unread.add(uid)
                yield f"{key}: {uid}: {type(error).__name__}: {error}"

    def _sample(self, family: str, facts: Facts, data: Mapping[str, bytes], main: bytes) -> Iterator[str]:
        uid = str(facts["uid"])
        caption, member = dataset_format.caption_member(uid), dataset_format.facts_member(uid)
        if data[caption] != str(facts["caption"]).encode():
            yield f"{caption} is not the object's caption"
        array = self._counted(main) if family == ATLAS else None
        if facts_from_json(family, data[member]) != known(self._run.facts_schema(family), facts):
            yield f"{member} differs from its row of the table"
        if family == SPLATS:
            yield from (f"{uid}: {text}" for text in faults_of_splats(facts, Gaussians.from_bytes(main)))
        elif family == ATLAS:
            yield from (f"{uid}: {text}" for text in self._beside(facts, array))
        else:
            check_main(family, main, self._run)
            check_views({name.removeprefix(f"{uid}."): m for name, m in data.items()}, self._run)
            if images_sha256(data) != facts["images_sha256"]:
                yield f"{uid}: its images differ from its row of the table"

    def _counted(self, main: bytes) -> npt.NDArray[Any]:
        """The array of an atlas, which the moments count whatever else is wrong with its sample."""
        try:
            array = atlas_array(main, self._run.atlas)
        except AtlasError:
            self._all_atlases = False
            raise
        self._atlases.append(main)
        return array

    def _beside(self, facts: Facts, array: Any) -> Iterator[str]:
        """Compare an atlas with the splat beside it, unless that is a fault of its own already."""
        uid = str(facts["uid"])
        if self._splats is None or uid in self._unread:
            return
        if uid not in self._splats:
            yield "there is no splat beside its atlas"
            return
        of = self._splats[uid]
        key = dataset_format.shard_tar(SPLATS, self._shard)
        splat = Gaussians.from_bytes(bytes(self._storage.read(key, int(of["offset"]), int(of["nbytes"]))))
        yield from faults_of_atlas(facts, array, splat, of, self._run.atlas, self._run.reduce.rule)
        if facts["n_dropped"] > 0 and self._run.reduce.rule == "refine":
            yield from _psnr_fault(facts, atlas.unpack(array, self._run.atlas), splat)

    def _moments(self) -> Iterator[str]:
        if not self._all_atlases:  # those that cannot be read are faults of their own
            return
        try:
            data = self._storage.get(layout.moments(self._shard))
        except NotFound:  # named with the files of the atlases
            return
        if data != moments_of(self._atlases, self._run):
            yield f"{layout.moments(self._shard)}: not the moments of the shard's atlases"


def _configured(version: Version, run: Run, digest: str) -> Run:
    """The run with the configuration of this digest, if its samples, taken over from others, may bear it."""
    configs = {version.run.digest: version.run.identity["config"]}
    for one in (version.run, run):
        configs |= one.identity.get("configs", {})
    if digest == run.digest or digest not in configs:
        return run
    return replace(run, identity={**run.identity, "config": configs[digest], "config_digest": digest})


def _psnr_fault(facts: Facts, unpacked: Gaussians, splat: Gaussians) -> Iterator[str]:
    """Compare the `atlas_psnr` of an atlas whose cells were refined with that of its arrays."""
    from gaussianverse.pipeline.run.fidelity import atlas_psnr  # loads torch

    found = atlas_psnr(splat, unpacked)
    if abs(facts["atlas_psnr"] - found) > _PSNR_STEP:
        yield f"atlas_psnr is {facts['atlas_psnr']}, its arrays give {found}"
