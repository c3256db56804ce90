"""Pack the fragments of a shard: its tar, then its tables, and the commit record last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.canonical_json import to_json_file
from gaussianverse.atlas.dataset_format import ATLAS, OK, VIEWS
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Head, Storage, sha256_of
from gaussianverse.atlas.tar import END, index
from gaussianverse.pipeline.dataset import layout, records
from gaussianverse.pipeline.dataset.manifest_rows import ORIGIN, work_rows
from gaussianverse.pipeline.dataset.parquet import to_parquet
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import JOURNAL, MADE, Facts
from gaussianverse.pipeline.dataset.shards import read_commit, stats_rows
from gaussianverse.pipeline.dataset.statistics import moments_of
from gaussianverse.pipeline.errors import DamagedFragment, FragmentError
from gaussianverse.pipeline.store.publish import publish, publish_exact

Fetch = Callable[[str], bytes]
"""Returns the fragment of a uid; raises NotFound if there is none."""
_NO_ADDRESS: Facts = {"sample": -1, "offset": -1, "nbytes": 0, "sha256": ""}
"""Address of an object without a sample."""


@dataclass(frozen=True)
class Assembled:
    """A shard in memory.

    Attributes:
        tar: the whole archive.
        rows: rows of the shard's table, in the order of the manifest.
        digests: hex sha256 of each object's fragment, quarantined ones included.
    """

    tar: bytearray
    rows: list[Facts]
    digests: list[str]

    def mains(self) -> Iterator[bytes]:
        """The main members, in the order of the tar."""
        for facts in self.rows:
            if facts["sample"] != -1:
                yield bytes(self.tar[int(facts["offset"]) : int(facts["offset"]) + int(facts["nbytes"])])


def assemble(family: str, shard: int, uids: Sequence[str], fetch: Fetch) -> Assembled:
    """Concatenate fragments in the order of `uids`, without the quarantined ones.

    Besides the tar, one fragment is in memory at a time.

    Args:
        family: family of the shard.
        shard: number of the shard.
        uids: objects of the shard, in the order of the manifest.
        fetch: returns the fragment of an object.

    Raises:
        FragmentError: fragments are missing, damaged, or of other objects.
    """
    tar, rows, digests, missing, sample = bytearray(), list[Facts](), list[str](), list[str](), 0
    for uid in uids:
        try:
            data = fetch(uid)
        except NotFound:
            missing.append(uid)
            continue
        if missing:  # the shard cannot be packed: only count what else is missing
            continue
        record = records.parse(family, shard, uid, data)
        address = _NO_ADDRESS
        if record.ok:
            name = dataset_format.main_member(family, uid)
            member = next(m for m in index(data) if m.name == name)
            address = {
                "sample": sample,
                "offset": len(tar) + member.offset,
                "nbytes": member.nbytes,
                "sha256": sha256_of(record.members[name]),
            }
            tar += data
            sample += 1
        rows.append({**record.facts, **address})
        digests.append(sha256_of(data))
    if missing:
        raise FragmentError(f"shard {shard}, {family}: no fragment of {', '.join(missing[:5])} ({len(missing)})")
    tar += END
    return Assembled(tar, rows, digests)


def without_samples(facts: Sequence[Facts]) -> Assembled:
    """A shard of a family that a part was taken without: facts, and no tar."""
    return Assembled(bytearray(), [{**one, **_NO_ADDRESS} for one in facts], [""] * len(facts))


def pack(storage: Storage, run: Run, family: str, shard: int) -> dict[str, Any]:
    """Publish a shard, its commit record last, and return that record.

    Packing twice, or in two places at once, gives the same bytes under the same keys. A shard that exists is left
    as it is, since its fragments may have been deleted.

    Args:
        storage: store of the run.
        run: the run.
        family: one of the run's families; `VIEWS` only after the shard of the atlases exists.
        shard: number of the shard; all of its objects have fragments.

    Raises:
        FragmentError: a fragment is missing or damaged.
        ShardConflict: a key holds other bytes.
    """
    with suppress(NotFound):
        return read_commit(storage, family, shard)
    try:
        return _pack(storage, run, family, shard)
    except FragmentError:
        with suppress(NotFound):  # another process has packed it meanwhile, and cleaned up
            return read_commit(storage, family, shard)
        raise


def _pack(storage: Storage, run: Run, family: str, shard: int) -> dict[str, Any]:
    rows = work_rows(storage, run, shard)
    assembled = assemble(family, shard, [str(r["uid"]) for r in rows], _fetch(storage, family, shard))
    if run.number > 1:  # run.json never changes, and a version that is given up frees its number and its shards
        _check_plan(storage, run, family, rows, assembled.rows)
    entries = (
        records.read_entry(storage, family, facts, digest)
        for facts, digest in zip(assembled.rows, assembled.digests, strict=True)
    )
    return put_shard(storage, run, family, shard, assembled, entries)


def _check_plan(storage: Storage, run: Run, family: str, rows: Sequence[Facts], there: Sequence[Facts]) -> None:
    """Delete the fragments that a driver wrote for a version of the same number that was given up.

    Raises:
        DamagedFragment: there were some.
    """
    found = []
    for row, facts in zip(rows, there, strict=True):
        made_here = row[ORIGIN] >= 0 or facts["config_digest"] == run.digest
        if not made_here or any(facts[name] != value for name, value in row.items() if name in facts):
            uid, shard = str(row["uid"]), int(row["shard"])
            where = layout.fragment(family, shard, uid)
            found.append(DamagedFragment(f"{where}: of a version that was given up", family, shard, uid))
    for error in found:
        records.discard(storage, error)
    if found:
        raise found[0]


def put_shard(
    storage: Storage, run: Run, family: str, shard: int, assembled: Assembled, entries: Iterable[Facts]
) -> dict[str, Any]:
    """Publish what was assembled, the commit record last, and return that record.

    Args:
        storage, run, family, shard: as in `pack`.
        assembled: the shard; of a family that is not `held`, only its table is published.
        entries: the journal's, which are read only after the shard's files are there.

    Raises:
        DamagedFragment: the columns of the table are not those of the run.
        ShardConflict: a key holds other bytes.
    """
    schema = run.stats_schema(family)
    for facts in assembled.rows:
        if list(facts) != schema.names:
            where = layout.fragment(family, shard, str(facts["uid"]))
            raise DamagedFragment(f"{where}: its columns are not those of this run", family, shard, str(facts["uid"]))
    files: dict[str, Head] = {}

    def put(key: str, data: bytes | bytearray) -> None:
        files[key] = publish_exact(storage, key, data)

    if family in run.held:
        put(dataset_format.shard_tar(family, shard), assembled.tar)
    put(layout.stats(family, shard), to_parquet(schema, assembled.rows))
    if family == ATLAS:
        put(layout.moments(shard), moments_of(assembled.mains(), run))
    publish(storage, layout.journal(family, shard), to_parquet(JOURNAL[family], entries, checksums=True))
    commit = commit_record(run, family, shard, assembled.rows, files)
    publish_exact(storage, layout.commit(family, shard), to_json_file(commit))
    return commit


def _fetch(storage: Storage, family: str, shard: int) -> Fetch:
    """A function that fetches the fragments of a shard.

    Views are published before the fit, and are never quarantined by themselves: they follow the committed atlases,
    so that both families hold the same objects.
    """
    written = records.Written(storage, family, shard)
    if family != VIEWS:
        return written.get
    read_commit(storage, ATLAS, shard)  # the table below counts only if the shard exists
    lost = {r["uid"]: r for r in stats_rows(storage, ATLAS, shard) if r["sample"] == -1}

    def fetch(uid: str) -> bytes:
        if uid in lost:
            return records.given_up(family, lost[uid])
        return written.get(uid)

    return fetch


def made_of(family: str, rows: Sequence[Facts]) -> list[dict[str, Any]]:
    """The makers of the fragments of a shard: each digest of code with versions of packages, and how many it made."""
    if family not in MADE:
        return []
    made = Counter(tuple(str(facts[name]) for name in MADE[family]) for facts in rows)
    return [{"code_digest": code, "versions": with_, "objects": n} for (code, with_), n in sorted(made.items())]


def commit_record(
    run: Run, family: str, shard: int, rows: Sequence[Facts], files: Mapping[str, Head]
) -> dict[str, Any]:
    """The commit record: the files of a shard with their hashes, and the numbers of its objects."""
    ok = sum(facts["status"] == OK for facts in rows)
    reasons: dict[str, int] = {}
    for facts in rows:
        if facts["status"] != OK:
            reasons[str(facts["reason"])] = reasons.get(str(facts["reason"]), 0) + 1
    return {
        "schema_version": run.version,
        "config_digest": run.digest,
        "stage": family,
        "shard": shard,
        "objects": len(rows),
        "samples": ok,
        "quarantined": dict(sorted(reasons.items())),
        **({"made_with": made_of(family, rows)} if run.version > 1 else {}),
        **({} if family in run.held else {"facts_only": True}),
        "files": {k: {"nbytes": h.nbytes, "sha256": h.sha256} for k, h in sorted(files.items())},
    }
