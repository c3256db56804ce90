"""export: writes objects in other projects' formats, or a part of a dataset as a dataset of its own."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gaussianverse.atlas.arrays import npy
from gaussianverse.atlas.dataset_format import ATLAS, FAMILIES, SPLATS
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.interchange.gaussiancube import BOUND, BOUNDS, PADDINGS
from gaussianverse.atlas.interchange.harmonics import MAX_DEGREE
from gaussianverse.atlas.interchange.published import write_pair
from gaussianverse.atlas.reader.catalogue import Catalogue
from gaussianverse.atlas.store import is_remote, open_storage
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.atlas.tar import END, build
from gaussianverse.manifests.schema import is_uid
from gaussianverse.pipeline.arguments import add_json, add_output, add_overrides, add_version, config_of, open_dataset
from gaussianverse.pipeline.dataset import layout, shards
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.members import atlas_array
from gaussianverse.pipeline.dataset.records import Record
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import FRAME
from gaussianverse.pipeline.dataset.versions import version_of
from gaussianverse.pipeline.errors import PipelineError, UsageError
from gaussianverse.pipeline.ops import croissant
from gaussianverse.pipeline.ops.choice import Choice, add_choice, choice_of
from gaussianverse.pipeline.ops.object_formats import PLY, WRITERS, Options, place
from gaussianverse.pipeline.ops.part import part_of
from gaussianverse.terminal import note

GAUSSIANVERSE = "gaussianverse"
FORMATS = (*WRITERS, GAUSSIANVERSE)
DATASET, HUGGINGFACE = "dataset", "huggingface"
_OPTIONS = Options()
PARTS = (DATASET, HUGGINGFACE)
"""Formats that are datasets of their own."""


def export(
    storage: Storage, run: Run, dest: Path, format: str, uids: Iterable[str] = (), options: Options = _OPTIONS
) -> Iterator[Path]:
    """Write objects into a folder; yields the path of each file once it is complete.

    gaussianverse: gaussianverse-NNNNNN.tar per shard, which the published loader reads like its own tars. The other
    formats are those of `object_formats`.

    Args:
        storage: store of the run, finalized or not. Without `uids` every shard must be committed.
        run: the run.
        dest: folder to write into; created if it is missing.
        format: one of `FORMATS`.
        uids: objects to export; none = all that were not quarantined.
        options: choices within the format.

    Raises:
        UsageError: an unknown format, or an option that it does not have.
        PipelineError: an object is not in the manifest, was quarantined, or is not done, or has a uid that no
            manifest allows.
        AtlasError: an object cannot be converted.
    """
    if format not in FORMATS:
        raise UsageError(f"format {format!r}: expected one of {', '.join(FORMATS)}")
    options.check(format)
    dest.mkdir(parents=True, exist_ok=True)
    chosen = map(_named_safely, _chosen(storage, run, tuple(dict.fromkeys(uids))))
    if format == GAUSSIANVERSE:
        for shard, objects in groupby(chosen, key=lambda found: found[1]):
            yield _tar(storage, run, dest / f"gaussianverse-{shard:06d}.tar", objects)
        return
    writer = WRITERS[format](dest, options)
    for row, shard in chosen:
        record = _record(storage, SPLATS, shard, str(row["uid"]))
        yield writer.write(row, Gaussians.from_bytes(record.main(SPLATS)), record.facts)
    yield from writer.finish()


def _chosen(storage: Storage, run: Run, uids: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield rows of the manifest with their shards, in the manifest's order."""
    version = version_of(storage, run)
    if uids:
        found = [version.find(storage, uid) for uid in uids]
        yield from sorted(found, key=lambda one: one[0]["index"])
        return
    for shard in version.shards:
        rows = version.live(shards.stats_table(storage, ATLAS, shard), shard).to_pylist()
        done = {r["uid"] for r in rows if r["sample"] != -1}
        yield from ((row, shard) for row in shard_rows(storage, version.run_of(shard), shard) if row["uid"] in done)


def _named_safely(found: tuple[dict[str, Any], int]) -> tuple[dict[str, Any], int]:
    """Refuse a uid that is no part of a file's name, as somebody else's dataset may have."""
    if not is_uid(uid := found[0]["uid"]):
        raise PipelineError(f"shard {found[1]} has an object {ascii(uid)[:80]}: no manifest allows this uid")
    return found


def _record(storage: Storage, stage: str, shard: int, uid: str) -> Record:
    record = shards.read_record(storage, stage, shard, uid)
    if not record.ok:
        facts = record.facts
        raise PipelineError(f"{uid} was quarantined: {facts['reason']}: {facts['error_message']}")
    return record


def _tar(storage: Storage, run: Run, path: Path, objects: Iterable[tuple[dict[str, Any], int]]) -> Path:
    """Write one tar of published pairs."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            for row, shard in objects:
                record = _record(storage, ATLAS, shard, str(row["uid"]))
                file.write(_published(row, atlas_array(record.main(ATLAS), run.atlas), run, record.facts))
            file.write(END)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _published(row: dict[str, Any], array: NDArray[Any], run: Run, facts: Mapping[str, Any]) -> bytes:
    """Build a sample of the published tars."""
    uid, caption = str(row["uid"]), str(row["caption"])
    point_cloud, gs2sphere = write_pair(array, run.atlas)
    # the published loader reads the caption from the metadata
    center, unit = place(facts)
    metadata = {
        "hash_key": uid,
        "caption": caption,
        "has_caption": bool(caption),
        **dict(zip(FRAME, (*center, unit), strict=True)),
    }
    members = {
        "point_cloud.npy": npy(point_cloud),
        "gs2sphere.npy": npy(gs2sphere),
        "caption.txt": caption.encode(),
        "metadata.json": json.dumps(metadata, ensure_ascii=False).encode(),
    }
    return build({f"{uid}.{name}": data for name, data in members.items()})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse export`."""
    parser.add_argument("uids", nargs="*", metavar="UID", help="objects to export; default: all samples")
    parser.add_argument(
        "dest",
        nargs="?",
        metavar="DEST",
        help="folder to write into, for a dataset also s3://bucket/prefix; with --debug: OUT-debug",
    )
    add_output(parser)
    add_version(parser)
    parser.add_argument("--format", required=True, choices=(*FORMATS, *PARTS))
    parser.add_argument("--count", type=int, default=0, metavar="N", help="ply: N Gaussians for every object")
    parser.add_argument(
        "--sh-degree", type=int, choices=range(MAX_DEGREE + 1), default=0, help="ply: with columns f_rest, all zero"
    )
    parser.add_argument("--by-category", action="store_true", help="ply: in folders of their categories")
    parser.add_argument("--bound", type=float, choices=BOUNDS, default=BOUND, help="cubes: half extent of the grid")
    parser.add_argument("--padding", choices=PADDINGS, default="centre", help="cubes: what empty voxels hold")
    add_choice(parser)
    parser.add_argument(
        "--family",
        action="append",
        default=[],
        choices=FAMILIES,
        help="of a dataset: take only these; again for more",
    )
    add_overrides(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Write the files and print their paths; returns the exit code."""
    # argparse gives all words to the first
    uids, dest = (args.uids, args.dest) if args.dest else (args.uids[:-1], args.uids[-1] if args.uids else "")
    if args.debug and args.format in PARTS and not dest:
        dest = f"{args.out.rstrip('/')}-debug"
    if not dest:
        raise UsageError("no DEST: say where to write")
    choice = choice_of(args, uids)
    options = Options(args.count, args.sh_degree, args.by_category, args.bound, args.padding)
    if args.format in PARTS:
        return _part(args, choice, dest, options)
    if args.family or is_remote(dest):
        what = f"--family {args.family[0]}" if args.family else dest
        raise UsageError(f"{what}: with --format {' or '.join(PARTS)} only")
    storage, version = open_dataset(args)
    opened = version.run
    if choice != Choice(uids=choice.uids):
        catalogue = Catalogue(storage, version.number)
        uids = catalogue.uids(choice.places(catalogue))
    paths = _told(export(storage, opened, Path(dest), args.format, uids or choice.uids or (), options), args)
    if args.json:
        print(json.dumps({"url": storage.url, "dest": dest, "format": args.format, "files": paths}))
    return 0


def _told(paths: Iterable[Path | str], args: argparse.Namespace) -> list[str]:
    """The paths that are written; printed as they come, unless they are to be JSON."""
    written = []
    for path in map(str, paths):
        written.append(path)
        if not args.json:
            print(path)
    return written


def _part(args: argparse.Namespace, choice: Choice, dest: str, options: Options) -> int:
    """Write a part of a dataset; returns the exit code."""
    if args.count:
        raise UsageError(
            f"--count {args.count} is of Gaussians, for --format {PLY}; --objects {args.count} draws objects"
        )
    options.check(args.format)
    store, hub = config_of(args).store, args.format == HUGGINGFACE
    place = open_storage(dest, store)
    part = part_of(open_storage(args.out, store), choice, args.family, args.version)
    written = _told((f"{place.url}/{key}" for key in part.take(place, hub=hub)), args)
    if hub:
        if croissant.is_installed():
            croissant.write_croissant(place)
        else:
            note(
                f"note: no {layout.CROISSANT}, which mlcroissant makes: pip install 'gaussianverse[croissant]', and "
                "give the same command again"
            )
    counts = len(part.places), len(part.catalogue)
    if args.json:
        found = {"url": args.out, "dest": place.url, "format": args.format, "files": written}
        print(json.dumps({**found, "objects": counts[0], "of": counts[1]}))
        return 0
    print(f"The part is complete: {counts[0]} of {counts[1]} objects in {place.url}")
    if hub:
        # hf reads folders alone
        folder = "FOLDER" if is_remote(place.url) else shlex.quote(place.url)
        first = f"Copy {place.url} into a FOLDER, and upload that" if is_remote(place.url) else "Upload it"
        print(f"{first}: hf upload --repo-type dataset USER/NAME {folder} .")
    return 0
