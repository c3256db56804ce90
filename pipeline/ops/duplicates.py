"""duplicates: lists the objects of a dataset that are the same, and which of them to keep."""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gaussianverse.atlas.reader.catalogue import Catalogue
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.escape import one_line
from gaussianverse.manifests.files import write_whole
from gaussianverse.pipeline.arguments import add_json, add_overrides, open_output
from gaussianverse.pipeline.dataset import near
from gaussianverse.pipeline.dataset.duplicates import COLUMNS, EXACT, NEAR, duplicates
from gaussianverse.pipeline.dataset.parquet import table_to_parquet
from gaussianverse.pipeline.errors import PipelineError, UsageError
from gaussianverse.terminal import columns, cut

DISTANCE = 4
_MOST_SHOWN = 20


def objects_of(storage: Storage) -> pa.Table:
    """The columns `COLUMNS`, those of them that there are, of the objects of the newest version that have an atlas.

    Raises:
        DatasetError: the dataset is not complete, or damaged.
        PipelineError: its table is too old.
    """
    catalogue = Catalogue(storage)
    there = [name for name in COLUMNS if catalogue.has_column(name)]
    if "input_sha256" not in there:
        raise PipelineError(f"{storage.url}: version 1 of the table has no input_sha256 and no view_hash to compare")
    return pa.table({name: catalogue.column(name) for name in there})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse duplicates`."""
    parser.add_argument("output", metavar="OUT", help="folder or s3://bucket/prefix of the dataset")
    parser.add_argument(
        "--distance", type=_distance, default=DISTANCE, metavar="N",
        help=f"bits, 0 to {near.MOST}, in which view_hash may differ; default: {DISTANCE}",
    )  # fmt: skip
    parser.add_argument("--out", dest="file", type=Path, metavar="FILE.parquet", help="write the list here")
    add_overrides(parser)
    add_json(parser)


def _distance(text: str) -> int:
    if not text.isdecimal() or int(text) > near.MOST:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 0 to {near.MOST}")
    return int(text)


def _check_file(file: Path, storage: Storage) -> None:
    """Raise UsageError for a list that would lie in the dataset, or would replace something else."""
    if file.suffix != ".parquet":
        raise UsageError(f"--out {file}: the list is Parquet; call it FILE.parquet")
    if Path(os.path.realpath(file)).is_relative_to(os.path.realpath(storage.url)):
        raise UsageError(f"--out {file} lies in the dataset {storage.url}; choose a place beside it")


def run(args: argparse.Namespace) -> int:
    """Print, and write, the groups; returns the exit code."""
    args.out = args.output
    storage, _ = open_output(args)
    if args.file:
        _check_file(args.file, storage)
    objects = objects_of(storage)
    found = duplicates(objects, args.distance)
    if args.file:
        write_whole(args.file, table_to_parquet(found))
    kinds = Counter(found["kind"].to_pylist())
    summary: dict[str, Any] = {
        "objects": len(objects), "distance": args.distance, "groups": len(pc.unique(found["group"])),
        EXACT: kinds[EXACT], NEAR: kinds[NEAR], "drop": kinds[EXACT] + kinds[NEAR],
    }  # fmt: skip
    if args.json:
        print(json.dumps({**summary, "rows": found.to_pylist()}))
        return 0
    for row in found.slice(0, _MOST_SHOWN).to_pylist():
        about = f"{row['kind']}, {row['distance']} bits" if row["drop"] else "kept"
        room = columns()
        uid = cut(one_line(row["uid"]), room and max(8, room - len(about) - 10))
        print(f"{row['group']:6}  {uid}  {about}")
    if len(found) > _MOST_SHOWN:
        print(f"... and {len(found) - _MOST_SHOWN} more rows")
    print(
        f"{summary['drop']} of {len(objects)} objects to drop, in {summary['groups']} groups: {kinds[EXACT]} of the "
        f"same files, {kinds[NEAR]} within {args.distance} bits"
        + (f"; listed in {args.file}" if args.file else "; --out FILE.parquet writes the list")
    )
    return 0
