"""Take published samples over into another shard: the same arrays under other facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from gaussianverse.atlas import tar
from gaussianverse.atlas.canonical_json import to_json
from gaussianverse.atlas.dataset_format import ATLAS, VIEWS, facts_member, main_member, shard_tar
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.reader.views import images_sha256
from gaussianverse.atlas.store.storage import Storage, sha256_of
from gaussianverse.pipeline.dataset.records import members_of
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.dataset.shards import read_commit
from gaussianverse.pipeline.errors import FragmentError


def facts_in(family: str, row: Mapping[str, Any], schema: pa.Schema) -> Facts:
    """The facts of a sample in a family, from its row of metadata.parquet, which has shared columns only once.

    Args:
        family: one of `FAMILIES`.
        row: the row, with every column of `schema`; what changes has its new value in it.
        schema: of the family's facts.
    """
    facts = {name: row[name] for name in schema.names}
    if family == ATLAS:  # the table counts those of the fit
        facts["n_gaussians"] = int(row["n_gaussians"]) - int(row["n_dropped"])
    return facts


def taken_over(family: str, facts: Facts, data: bytes | memoryview, sha256: str, where: str) -> bytes:
    """The fragment of a published sample under these facts, with its arrays and PNGs as they are.

    Its JSON and its caption are made of the facts.

    Args:
        family: one of `FAMILIES`.
        facts: of the sample to be; those of views have the sha256 of its PNGs.
        data: the published main member; of views the whole sample, from its first header on.
        sha256: of the published main member.
        where: key of the published shard, for messages.

    Raises:
        FragmentError: the bytes are not those that were published.
    """
    uid = str(facts["uid"])
    main, images = bytes(data) if family != VIEWS else b"", dict[str, bytes]()
    if family == VIEWS:
        try:
            found = {m.name: bytes(data[m.offset : m.offset + m.nbytes]) for m in tar.index(data, exact=True)}
        except AtlasError as error:
            raise FragmentError(f"{where}: {uid}: {error}; fetch the shard again") from error
        main = found.get(main_member(family, uid), b"")
        images = {name.removeprefix(f"{uid}."): held for name, held in found.items() if name.endswith(".png")}
    if sha256_of(main) != sha256:
        raise FragmentError(f"{where}: {uid}: its sha256 is not that of the table; fetch the shard again")
    if family == VIEWS and images_sha256(images) != facts["images_sha256"]:
        raise FragmentError(f"{where}: {uid}: its images are not those of the table; fetch the shard again")
    return tar.build(members_of(family, facts, main, images))


def fragment_of(
    storage: Storage, family: str, shard: int, there: Facts, rows: Iterable[Facts], facts: Facts
) -> bytes:
    """The fragment of a published object under these facts; of a quarantined one it has these alone.

    Args:
        storage: store of the dataset.
        family: one of `FAMILIES`.
        shard: number of the published shard.
        there: the object's row of the shard's table.
        rows: all rows of that table.
        facts: of the object to be.

    Raises:
        NotFound, PipelineError: the shard is missing or its commit record damaged.
        FragmentError: the bytes are not those that were published.
    """
    if there["sample"] == -1:
        return tar.build({facts_member(str(facts["uid"])): to_json(facts)})
    key, offset, nbytes = shard_tar(family, shard), int(there["offset"]), int(there["nbytes"])
    if family == VIEWS:  # the whole sample, whose first member is the main one
        starts = [_start(family, row) for row in rows if row["sample"] == there["sample"] + 1]
        end = starts[0] if starts else read_commit(storage, family, shard)["files"][key]["nbytes"] - len(tar.END)
        offset = _start(family, there)
        nbytes = end - offset
    data = storage.read(key, offset, nbytes)
    return taken_over(family, facts, data, str(there["sha256"]), f"{storage.url}/{key}")


def _start(family: str, row: Facts) -> int:
    """Where a sample whose main member comes first begins in its shard."""
    return int(row["offset"]) - tar.header_nbytes(len(main_member(family, str(row["uid"]))))
