"""Plan what `purge` deletes, in an order in which it may be killed between any two deletions.

Whatever is left then is an output whose kept versions are whole, and the same plan, made again, is the rest: every
version.json stays until the last, and says which shards were its version's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import FINAL, SUCCESS, SUMS, VERSION, parse_version_key, version_key
from gaussianverse.atlas.store.storage import Entry, Storage, sha256_of
from gaussianverse.pipeline.dataset import layout, run_file
from gaussianverse.pipeline.dataset.shards import read_commit
from gaussianverse.pipeline.dataset.versions import Version, begun_version, finished_versions, open_version
from gaussianverse.pipeline.errors import UsageError

_FIRST = (SUCCESS, SUMS)


@dataclass(frozen=True)
class Purge:
    """Files to delete, in order.

    Attributes:
        name: what is typed to confirm it.
        entries: the files.
        versions: numbers of the versions that are deleted.
        shards: numbers of the shards that are deleted, of any family.
        kept: versions that stay, which were not checked yet.
    """

    name: str
    entries: list[Entry]
    versions: list[int]
    shards: list[int]
    kept: list[Version]

    def delete(self, storage: Storage) -> None:
        """Delete the files, one after the other."""
        for entry in self.entries:
            storage.delete(entry.key)


def before(storage: Storage, number: int) -> Purge:
    """The versions before a finished one, and the shards that no version counts from it on.

    Raises:
        UsageError: there is no such finished version, or one was begun after it.
        NotFound, PipelineError: the files of a version that is kept are damaged.
    """
    finished = finished_versions(storage)
    if number not in finished:
        there = ", ".join(map(str, finished)) or "none"
        raise UsageError(f"--before {number}: not a finished version of {storage.url}; there are {there}")
    if (begun := begun_version(storage)) is not None:
        raise UsageError(
            f"{storage.url}: version {begun} was begun and counts older shards; before older versions go, finish it "
            "with the command that began it, or give it up with --unfinished"
        )
    kept = [open_version(storage, n) for n in finished if n >= number]
    counted = {k for version in kept for k in version.shards}
    needed = {key for v in kept for key in dataset_format.read_sums(storage.get(v.key(SUMS)))}
    needed |= {key for version in kept for key in version.sources()}
    present = {entry.key: entry for entry in storage.list("") if entry.key not in needed}
    gone = {key: entry for key, entry in present.items() if _is_of(key, number)}
    claimed = max(version.run.shards.stop for version in kept)
    shards = {
        key: entry
        for key, entry in present.items()
        if (k := _shard(key)) is not None and k < claimed and k not in counted
    }
    numbers = sorted({_version(key) for key in gone})
    return Purge(f"{number:04d}", [*_ordered(gone), *_ordered(shards)], numbers, _numbers(shards), kept)


def unfinished(storage: Storage) -> Purge:
    """The version that was begun and is not finished, with its shards and fragments.

    Raises:
        UsageError: there is none, or the dataset itself is not finished.
    """
    number = begun_version(storage)
    if number is None:
        raise UsageError(f"{storage.url}: no version was begun that is not finished")
    if number == 1:
        raise UsageError(f"{storage.url}: the dataset itself is not finished; to give it up, delete it as a whole")
    runs = [run_file.load(storage, n) for n in finished_versions(storage)]
    free = max(run.shards.stop for run in runs)
    present = {entry.key: entry for entry in storage.list("")}
    shards = {k: entry for k, entry in present.items() if (shard := _shard(k)) is not None and shard >= free}
    own = {k: entry for k, entry in present.items() if (parsed := parse_version_key(k)) and parsed[0] == number}
    claim = own.pop(version_key(number, VERSION))
    entries = [*_ordered(shards), *_ordered(own), claim]
    return Purge(f"{number:04d}", entries, [number], _numbers(shards), [])


def faults_of_kept(storage: Storage, purge: Purge) -> Iterator[str]:
    """Check that every file that a kept version counts is there, with the size and the sha256 that it must have."""
    seen: dict[str, str] = {}
    for version in purge.kept:
        sums = storage.get(version.key(SUMS))
        success = dataset_format.sums_file({version.key(SUMS): sha256_of(sums)})
        if storage.get(version.key(SUCCESS)) != success:
            yield f"{version.key(SUCCESS)}: does not hold the sha256 of {version.key(SUMS)}"
        sizes = {
            key: file["nbytes"]
            for family in version.families
            for shard in version.shards
            for key, file in read_commit(storage, family, shard)["files"].items()
        }
        for key, digest in dataset_format.read_sums(sums).items():
            if seen.setdefault(key, digest) != digest:
                yield f"{key}: has another sha256 in another version"
                continue
            head = storage.head(key)
            if head is None:
                yield f"{key}: missing"
            elif head.sha256 != digest or head.nbytes != sizes.get(key, head.nbytes):
                yield f"{key}: {head.nbytes} bytes whose sha256 is not that of {version.key(SUMS)}"


def _is_of(key: str, number: int) -> bool:
    """Whether a file is about a version before this one, and not its version.json or run.json."""
    if parsed := parse_version_key(key):
        return parsed[0] < number and parsed[1] != VERSION
    return number > 1 and key in (*FINAL, layout.MANIFEST, layout.CROISSANT)


def _version(key: str) -> int:
    parsed = parse_version_key(key)
    return parsed[0] if parsed else 1


def _shard(key: str) -> int | None:
    """The shard that a file is of: published, its journal, or scratch."""
    return layout.shard_of(key) if (shard := layout.scratch_of(key)) is None else shard


def _numbers(keys: Iterable[str]) -> list[int]:
    return sorted({shard for key in keys if (shard := _shard(key)) is not None})


def _ordered(entries: dict[str, Entry]) -> list[Entry]:
    """The order of deletion: what says that others are there goes before these."""

    def place(entry: Entry) -> tuple[int, str]:
        name = entry.key.rpartition("/")[2]
        first = _FIRST.index(name) if name in _FIRST else 2 if entry.key.startswith(layout.COMMITS) else 3
        return first, entry.key

    return sorted(entries.values(), key=place)
