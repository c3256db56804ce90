"""verify: reads a dataset back, all of it or a sample, and lists every fault. It recomputes whatever it can."""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from gaussianverse.atlas import dataset_format, tar
from gaussianverse.atlas.canonical_json import json_object, to_json_file
from gaussianverse.atlas.dataset_format import ATLAS, SPLATS, SUCCESS, SUMS, VIEWS
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.reader.views import images_sha256
from gaussianverse.atlas.store.errors import Altered, NotFound, StoreError, StoreRefused
from gaussianverse.atlas.store.storage import Head, Storage, sha256_of
from gaussianverse.pipeline.arguments import add_reading, add_shards, open_output
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.content import faults_of_atlas, faults_of_facts, faults_of_splats
from gaussianverse.pipeline.dataset.finalize import index_of
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.members import atlas_array, check_main, check_views
from gaussianverse.pipeline.dataset.metadata import tables_of
from gaussianverse.pipeline.dataset.pack import commit_record
from gaussianverse.pipeline.dataset.parquet import is_as_written, same_rows
from gaussianverse.pipeline.dataset.records import sample_members
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import Facts, facts_from_json, known, quarantine_schema
from gaussianverse.pipeline.dataset.shards import journal_rows, read_commit, stats_from, stats_rows
from gaussianverse.pipeline.dataset.statistics import merged_statistics, moments_of
from gaussianverse.pipeline.errors import PipelineError, UsageError
from gaussianverse.pipeline.policy import ordered_shards
from gaussianverse.pipeline.run.events import summary_sha256

_OTHER_MANIFEST = f"{layout.MANIFEST}: not the manifest of {layout.RUN}, so no shard can be checked"


def verify(storage: Storage, run: Run, *, shards: list[int] | None = None) -> Iterator[str]:
    """Yield every fault of a dataset, or of `shards` alone without the files of finalize, as a line of text.

    Raises:
        StoreError: the store failed, which is no fault of the dataset.
    """
    if not _has_manifest(storage, run):
        yield _OTHER_MANIFEST
        return
    for shard in range(run.n_shards) if shards is None else shards:
        atlases: list[bytes] = []
        for stage in run.families:
            yield from _named(_shard(storage, run, stage, shard, atlases), f"{stage} shard {shard}")
        yield from _named(_moments(storage, run, shard, atlases), layout.moments(shard))
    if shards is None:
        yield from _named(_sums(storage), SUMS)
        yield from _named(_index(storage, run), dataset_format.INDEX)
        yield from _named(_statistics(storage, run), dataset_format.MEAN)
        yield from _named(_journals(storage), layout.JOURNAL)


def _named(faults: Iterator[str], what: str) -> Iterator[str]:
    """The faults of one part; what its checks cannot read is a fault too, and the next part is checked."""
    try:
        yield from faults
    except (NotFound, StoreRefused, PipelineError) as error:
        yield f"{what}: cannot be checked: {error}"


def _moments(storage: Storage, run: Run, shard: int, atlases: list[bytes]) -> Iterator[str]:
    data = _get(storage, layout.moments(shard))
    if data is not None and data != moments_of(atlases, run):
        yield f"{layout.moments(shard)}: not the moments of the shard's atlases"


def _journals(storage: Storage) -> Iterator[str]:
    """Check that everything below `runs/` is whole, so far as it tells; it is no part of the dataset."""
    for entry in list(storage.list(layout.JOURNAL)):
        data = _get(storage, entry.key)
        if data is None:
            yield f"{entry.key}: altered"
        elif entry.key.endswith(".json"):
            try:
                values = json_object(data, PipelineError)
            except PipelineError as error:
                yield f"{entry.key}: {error}"
                continue
            # summaries of version 1 carry no hash
            if "sha256" in values and values["sha256"] != summary_sha256(values):
                yield f"{entry.key}: its values are not those that were written"
            elif data != to_json_file(values):
                yield f"{entry.key}: not in the form that was written"
        elif not is_as_written(data):
            yield f"{entry.key}: not the bytes that its rows give"


def _has_manifest(storage: Storage, run: Run) -> bool:
    manifest = _get(storage, layout.MANIFEST)
    return manifest is not None and sha256_of(manifest) == run.identity["manifest_sha256"]


def _commit(storage: Storage, stage: str, shard: int) -> dict[str, Any] | str:
    """Read a shard's commit record; returns a fault if it cannot be read."""
    try:
        return read_commit(storage, stage, shard)
    except NotFound:
        return f"{layout.commit(stage, shard)}: missing, so the shard does not exist"
    except PipelineError as error:
        return str(error)


def _get(storage: Storage, key: str) -> bytes | None:
    try:
        return storage.get(key)
    except NotFound:
        return None


def _shard(storage: Storage, run: Run, stage: str, shard: int, atlases: list[bytes]) -> Iterator[str]:
    """Check a shard of one family; adds its readable atlases to `atlases`."""
    commit = _commit(storage, stage, shard)
    if isinstance(commit, str):
        yield commit
        return
    heads: dict[str, Head] = {}
    for key, stored in commit["files"].items():
        try:
            data = storage.get(key)
        except NotFound as error:
            yield str(error) if isinstance(error, Altered) else f"{key}: missing"
            continue
        if (len(data), sha256_of(data)) != (stored["nbytes"], stored["sha256"]):
            yield f"{key}: {len(data)} bytes whose sha256 is not that of the commit record"
        else:
            heads[key] = Head(len(data), stored["sha256"])
    if {dataset_format.shard_tar(stage, shard), layout.stats(stage, shard)} - set(heads):
        return
    try:
        rows = stats_rows(storage, stage, shard)
    except PipelineError as error:
        yield f"{layout.stats(stage, shard)}: {error}"
        return
    if commit != commit_record(run, stage, shard, rows, heads):
        yield f"{layout.commit(stage, shard)}: does not match the contents of the shard"
    yield from _rows(storage, run, stage, shard, rows)
    if stage == VIEWS:
        yield from _aligned(storage, shard, rows)
    key = dataset_format.shard_tar(stage, shard)
    yield from _samples(run, stage, key, storage.get(key), rows, atlases, _Splats(storage, shard))


class _Splats:
    """The splats beside the atlases of a shard: arrays and facts, by uid."""

    def __init__(self, storage: Storage, shard: int) -> None:
        self._storage, self._shard = storage, shard

    @cached_property
    def _rows(self) -> dict[str, Facts]:
        return {str(r["uid"]): r for r in stats_rows(self._storage, SPLATS, self._shard)}

    def get(self, uid: str) -> tuple[Gaussians, Facts]:
        """The splat of an object. Raises NotFound, PipelineError or AtlasError if there is none that can be read."""
        facts = self._rows.get(uid)
        if facts is None or facts["sample"] == -1:
            raise PipelineError("there is no splat beside its atlas")
        key = dataset_format.shard_tar(SPLATS, self._shard)
        data = bytes(self._storage.read(key, int(facts["offset"]), int(facts["nbytes"])))
        return Gaussians.from_bytes(data), facts


def _rows(storage: Storage, run: Run, stage: str, shard: int, rows: list[Facts]) -> Iterator[str]:
    of_manifest = shard_rows(storage, shard)
    manifest = [(r["index"], r["uid"]) for r in of_manifest]
    if [(r["index"], r["uid"]) for r in rows] != manifest:
        yield f"{layout.stats(stage, shard)}: its rows are not the manifest's"
    else:
        for facts, row in zip(rows, of_manifest, strict=True):
            for text in faults_of_facts(run, stage, row, facts):
                yield f"{layout.stats(stage, shard)}: {facts['uid']}: {text}"
    key = layout.journal(stage, shard)
    try:
        entries = journal_rows(storage, stage, shard)
    except (PipelineError, NotFound) as error:
        yield f"{key}: {error}"
        return
    if [(r["index"], r["uid"]) for r in entries] != manifest:
        yield f"{key}: its rows are not the manifest's"


def _aligned(storage: Storage, shard: int, rows: list[Facts]) -> Iterator[str]:
    """Check that there are views of the objects with an atlas, and of no others."""
    try:
        atlases = stats_rows(storage, ATLAS, shard)
    except (PipelineError, NotFound) as error:
        yield f"{layout.stats(VIEWS, shard)}: cannot be compared with the atlases: {error}"
        return
    places = [[(r["uid"], r["sample"], r["reason"]) for r in table] for table in (rows, atlases)]
    if places[0] != places[1]:
        yield f"{layout.stats(VIEWS, shard)}: its samples are not those of the atlases"


def _samples(
    run: Run, stage: str, key: str, archive: bytes, rows: list[Facts], atlases: list[bytes], splats: _Splats
) -> Iterator[str]:
    try:
        members = {m.name: m for m in tar.index(archive, exact=True)}
    except AtlasError as error:
        yield f"{key}: {error}"
        return
    samples = [facts for facts in rows if facts["sample"] != -1]
    expected = [n for f in samples for n in sample_members(stage, f)]
    if list(members) != expected or not archive.endswith(tar.END):
        yield f"{key}: its members are not those of its table, in the manifest's order"
        return
    for facts in samples:
        uid = str(facts["uid"])
        own = [members[n] for n in sample_members(stage, facts)]
        data = {m.name: archive[m.offset : m.offset + m.nbytes] for m in own}
        main = members[dataset_format.main_member(stage, uid)]
        content = data[main.name]
        found = {"offset": main.offset, "nbytes": main.nbytes, "sha256": sha256_of(content)}
        if any(facts[name] != value for name, value in found.items()):
            yield f"{key}: {uid}: offset, size or sha256 differs from its row of the table"
        try:
            if facts_from_json(stage, data[dataset_format.facts_member(uid)]) != known(
                run.facts_schema(stage), facts
            ):
                yield f"{key}: {dataset_format.facts_member(uid)} differs from its row of the table"
            if stage == SPLATS:
                about = faults_of_splats(facts, Gaussians.from_bytes(content))
                yield from (f"{key}: {uid}: {text}" for text in about)
            elif stage == ATLAS:
                array, (splat, of) = atlas_array(content, run.atlas), splats.get(uid)
                yield from (f"{key}: {uid}: {text}" for text in faults_of_atlas(facts, array, splat, of, run.atlas))
            else:
                check_main(stage, content, run)
                check_views({name.removeprefix(f"{uid}."): m for name, m in data.items()}, run)
                if images_sha256(data) != facts["images_sha256"]:
                    yield f"{key}: {uid}: its images differ from its row of the table"
        except StoreError:
            raise
        except Exception as error:  # any error in reading a sample is a fault
            yield f"{key}: {uid}: {type(error).__name__}: {error}"
            continue
        if data[dataset_format.caption_member(uid)] != str(facts["caption"]).encode():
            yield f"{key}: {dataset_format.caption_member(uid)} is not the object's caption"
        if stage == ATLAS:
            atlases.append(content)


def _sums(storage: Storage) -> Iterator[str]:
    """Check that SHA256SUMS lists every file of the dataset with its hash."""
    data, success = _get(storage, SUMS), _get(storage, SUCCESS)
    if data is None or success is None:
        yield f"{SUMS if data is None else SUCCESS}: missing; the dataset is not finalized"
        return
    if success != dataset_format.sums_file({SUMS: sha256_of(data)}):
        yield f"{SUCCESS}: does not hold the sha256 of {SUMS}"
    sums = dataset_format.read_sums(data)
    present = {entry.key for entry in storage.list("") if layout.in_dataset(entry.key)}
    yield from (f"{key}: in {SUMS} but missing" for key in sorted(set(sums) - present))
    yield from (f"{key}: not in {SUMS}" for key in sorted(present - set(sums)))
    for key in sorted(present & set(sums)):
        try:
            if sha256_of(storage.get(key)) != sums[key]:
                yield f"{key}: its sha256 is not that of {SUMS}"
        except (NotFound, StoreRefused) as error:
            yield f"{key}: cannot be read: {error}"


def _index(storage: Storage, run: Run) -> Iterator[str]:
    """Check the tables and index.json against the shards."""
    try:
        shards = range(run.n_shards)
        commits = {(stage, k): read_commit(storage, stage, k) for stage in run.families for k in shards}
        tables = tables_of(storage, run.n_shards, run.families)
        heads = {key: Head(0, sha256_of(storage.get(key))) for key in dataset_format.STATISTICS}
    except (PipelineError, NotFound) as error:
        yield f"{dataset_format.INDEX}: cannot be checked: {error}"
        return
    for key, schema, expected in (
        (dataset_format.METADATA, run.metadata_schema(), tables.metadata),
        (dataset_format.QUARANTINE, quarantine_schema(run.version), tables.quarantine),
    ):
        try:
            if not same_rows(schema, storage.get(key), expected):
                yield f"{key}: not the rows of the shards"
        except (PipelineError, NotFound) as error:
            yield f"{key}: {error}"
    try:
        index = json_object(storage.get(dataset_format.INDEX), PipelineError)
        if index != index_of(run, commits, tables.totals, heads):
            yield f"{dataset_format.INDEX}: does not match the contents of the shards"
    except (PipelineError, NotFound) as error:
        yield f"{dataset_format.INDEX}: {error}"


def _statistics(storage: Storage, run: Run) -> Iterator[str]:
    """Check the mean, the standard deviation and the other statistics against the shards' moments."""
    try:
        expected = merged_statistics((storage.get(layout.moments(k)) for k in range(run.n_shards)), run)
        found = {key: storage.get(key) for key in dataset_format.STATISTICS}
    except StoreError:
        raise
    except Exception as error:  # any error in reading the moments is a fault
        yield f"{dataset_format.MEAN}: cannot be checked: {type(error).__name__}: {error}"
        return
    for key, data in found.items():
        if data != expected[key]:
            yield f"{key}: does not match the shards' moments"


def verify_sample(storage: Storage, run: Run, count: int, *, seed: int = 0) -> Iterator[str]:
    """Yield the faults of a random sample of objects as lines of text.

    Every commit record is read, and the sizes of its files are checked. The arrays of `count` objects, drawn with
    `seed`, are read by one range read each, hashed and unpacked. Other objects may still be damaged.
    """
    if not _has_manifest(storage, run):
        yield _OTHER_MANIFEST
        return
    readable: set[tuple[str, int]] = set()
    for stage in run.families:
        for shard in range(run.n_shards):
            faults = list(_sizes(storage, stage, shard))
            yield from faults
            if not faults:
                readable.add((stage, shard))
    drawn: dict[int, list[int]] = defaultdict(list)
    size = run.settings.shard_size
    for index in sorted(random.Random(seed).sample(range(run.n_objects), min(count, run.n_objects))):
        drawn[index // size].append(index)
    for shard, indices in drawn.items():
        for stage in run.families:
            if (stage, shard) in readable:
                yield from _objects(storage, run, stage, shard, indices)


def _sizes(storage: Storage, stage: str, shard: int) -> Iterator[str]:
    commit = _commit(storage, stage, shard)
    if isinstance(commit, str):
        yield commit
        return
    for key, stored in commit["files"].items():
        try:
            nbytes = storage.size(key)
        except NotFound:
            yield f"{key}: missing"
            continue
        if nbytes != stored["nbytes"]:
            yield f"{key}: {nbytes} bytes, {stored['nbytes']} in the commit record"


def _objects(storage: Storage, run: Run, stage: str, shard: int, indices: list[int]) -> Iterator[str]:
    key = layout.stats(stage, shard)
    data = storage.get(key)
    if sha256_of(data) != read_commit(storage, stage, shard)["files"][key]["sha256"]:
        yield f"{key}: its sha256 is not that of the commit record"
        return
    rows: dict[int, Facts] = {r["index"]: r for r in stats_from(stage, data).to_pylist()}
    manifest = {r["index"]: r["uid"] for r in shard_rows(storage, shard)}
    shard_key = dataset_format.shard_tar(stage, shard)
    for index in indices:
        facts = rows.get(index)
        if facts is None or facts["uid"] != manifest[index]:
            yield f"{key}: no row for object {index}, {manifest[index]}"
        elif facts["sample"] != -1:
            content = bytes(storage.read(shard_key, int(facts["offset"]), int(facts["nbytes"])))
            if sha256_of(content) != facts["sha256"]:
                yield f"{shard_key}: {facts['uid']}: its sha256 differs from its row of the table"
                continue
            try:
                check_main(stage, content, run)
            except Exception as error:  # any error in reading a sample is a fault
                yield f"{shard_key}: {facts['uid']}: {type(error).__name__}: {error}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse verify`."""
    add_shards(parser)
    parser.add_argument("--sample", type=int, help="read only this many objects, and check every file's size")
    parser.add_argument("--seed", type=int, default=0, help="seed of --sample")
    add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Print every fault; returns the exit code, 1 if there is a fault."""
    storage, opened = open_output(args)
    if args.sample is not None:
        if args.sample < 1 or args.shards:
            raise UsageError(f"--sample {args.sample}: expected at least 1, without --shards")
        found = verify_sample(storage, opened, args.sample, seed=args.seed)
    else:
        chosen = ordered_shards(args.shards, opened.n_shards) if args.shards else None
        found = verify(storage, opened, shards=chosen)
    faults = []
    for line in found:
        faults.append(line)
        if not args.json:
            print(f"fault: {line}")
    if args.json:
        print(json.dumps({"url": storage.url, "faults": faults}))
    elif not faults:
        checked = "every byte, sample and hash" if args.sample is None else "everything that was read"
        print(f"{storage.url}: {checked} is right")
    return 1 if faults else 0
