"""Take published samples over into another shard: the same arrays under other facts, as a pure function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from gaussianverse.atlas import tar
from gaussianverse.atlas.dataset_format import ATLAS, VIEWS, main_member
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.reader.views import images_sha256
from gaussianverse.atlas.store.storage import sha256_of
from gaussianverse.pipeline.dataset.records import members_of
from gaussianverse.pipeline.dataset.schemas import Facts
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
