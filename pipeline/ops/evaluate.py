"""evaluate: measures the quality of a dataset's fits and atlases against views, and compares datasets."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gaussianverse.atlas.store import is_remote, open_storage
from gaussianverse.escape import one_line
from gaussianverse.fitter.config import LPIPS_NETS
from gaussianverse.fitter.geometry import THRESHOLDS, VOXEL
from gaussianverse.fitter.lpips import LpipsUnavailable
from gaussianverse.pipeline.arguments import add_base, add_reading, add_shards, config_of
from gaussianverse.pipeline.config import RunConfig
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.parquet import exact
from gaussianverse.pipeline.dataset.shards import committed_shards
from gaussianverse.pipeline.dataset.versions import Version, open_version
from gaussianverse.pipeline.errors import UsageError
from gaussianverse.pipeline.ops.evaluation import pairs, statistics, tables
from gaussianverse.pipeline.ops.evaluation.place import REPORT, default_folder
from gaussianverse.pipeline.ops.evaluation.rows import LOST, MEASURED, Evaluator, schema_of
from gaussianverse.pipeline.ops.evaluation.summary import counts_of, groups_of
from gaussianverse.pipeline.policy import ordered_shards
from gaussianverse.pipeline.run.measure import Lpips, Measurer, one_thread

OBJECTS, PAIRS = "objects.parquet", "pairs.parquet"
TABLE_MD, TABLE_TEX = "table1.md", "table1.tex"
_GEOMETRY = (
    "depth, normals and points of the unpacked atlas against those of the views, without any alignment, in units "
    f"of the published Gaussians; F-scores at {', '.join(map(str, THRESHOLDS))}, IoU of voxels of {VOXEL}."
)
_NETS = tuple(net for net in LPIPS_NETS if net != "none")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse evaluate`."""
    add_reading(parser)
    add_shards(parser)
    parser.add_argument(
        "--against", nargs="+", default=[], metavar="OUT2", help="datasets to compare with, object by object"
    )
    parser.add_argument(
        "--to", type=Path, metavar="DIR", help=f"folder to write to; default: {layout.EVALUATION} in the output, "
        "where `report` finds it, or in the working directory where the output is no folder",
    )  # fmt: skip
    add_base(parser)
    parser.add_argument(
        "--views", type=_count, default=0, metavar="N", help="views per object; default: all held out"
    )
    parser.add_argument(
        "--objects", type=_count, default=0, metavar="N", help="measure about N objects, by hash; default: all"
    )
    parser.add_argument(
        "--geometry", action="store_true", help="compare atlases with depth and normals of the views (_nd.exr)"
    )
    parser.add_argument("--lpips-weights", default="", metavar="FILE", help="weights of LPIPS's backbone")
    parser.add_argument("--lpips-net", choices=_NETS, default="alex", help="the backbone; default: alex")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number, expected 1 or more")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Measure, write the files, print the first table; returns the exit code, 1 if no object could be measured."""
    config = config_of(args)
    outs = [args.out, *args.against]
    for out in outs:
        _version_of(out, args, config)  # before a folder is made in what is no output
    folder = _folder_apart(args.to or default_folder(args.out), outs)
    one_thread()
    datasets, files = [], []
    for number, out in enumerate(outs):
        files.append(folder / (OBJECTS if not number else f"against-{number}.parquet"))
        datasets.append(_evaluated(out, files[-1], args, config))
    found: dict[str, Any] = {
        "datasets": datasets,
        "bootstrap": {"resamples": statistics.RESAMPLES, "seed": statistics.SEED, "level": statistics.LEVEL},
        "differences": [],
        "curve": [],
    }
    if args.against:
        joined, found["differences"], found["curve"] = pairs.pairs_of(files[0], files[1:])
        pq.write_table(joined, folder / PAIRS, compression="zstd")
    shown, notes = tables.tables_of(found), [note for dataset in datasets for note in _notes(dataset)]
    (folder / REPORT).write_text(json.dumps(_plain(found), indent=1, allow_nan=False) + "\n")
    (folder / TABLE_MD).write_text(tables.to_markdown(shown, notes))
    (folder / TABLE_TEX).write_text(tables.to_latex(shown, notes))
    print(json.dumps(_plain(found), allow_nan=False) if args.json else tables.to_markdown(shown, notes), end="\n")
    if not args.json:
        print(f"Written to {one_line(folder)}: {REPORT}, {TABLE_MD}, {TABLE_TEX}, {', '.join(f.name for f in files)}")
    if not all(dataset["states"].get(MEASURED) for dataset in datasets):
        print("error: no object of a dataset could be measured; see --base, and the notes above", file=sys.stderr)
        return 1
    return 0


def _folder_apart(folder: Path, outs: list[str]) -> Path:
    """The folder to write to, made if it is not there; refused inside a dataset, but for its evaluation/."""
    place = folder.resolve()
    for out in outs:
        inside = not is_remote(out) and place.is_relative_to(Path(out).resolve())
        if inside and place != default_folder(out).resolve():
            raise UsageError(f"--to {folder} lies inside the dataset {out}, whose files are complete; name another")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--to {folder}: {error.strerror}") from error
    return folder


def _version_of(out: str, args: argparse.Namespace, config: RunConfig) -> Version:
    """The version of a dataset to measure: `--version` is that of `--out`, of others it is the newest."""
    return open_version(open_storage(out, config.store), args.version if out == args.out else None)


def _evaluated(out: str, file: Path, args: argparse.Namespace, config: RunConfig) -> dict[str, Any]:
    """Measure one dataset into a file of rows; returns its part of evaluation.json."""
    storage = open_storage(out, config.store)
    version = _version_of(out, args, config)
    opened = version.run
    lpips = Lpips(args.lpips_net, args.lpips_weights) if args.lpips_weights else None
    try:
        measurer = Measurer(opened, args.base, config.store, most_views=args.views, lpips=lpips)
    except LpipsUnavailable as error:
        raise UsageError(str(error)) from error
    evaluator = Evaluator(storage, opened, measurer, most=args.objects, geometry=args.geometry)
    schema, committed = exact(schema_of(geometry=args.geometry)), committed_shards(storage)
    with pq.ParquetWriter(file, schema, compression="zstd") as sink:
        for shard in ordered_shards(args.shards, version.shards):
            if not all((stage, shard) in committed for stage in layout.STAGES):
                evaluator.found.shards_missing += 1
                continue
            rows = list(evaluator.shard(shard))
            sink.write_table(pa.Table.from_pylist(rows, schema=schema))
    found = evaluator.found
    return {
        "out": out,
        "version": version.number,
        "config_digest": opened.digest,
        "manifest_sha256": opened.identity["manifest_sha256"],
        "states": dict(found.states),
        "named": {state: uids for state, uids in found.named.items() if uids},
        "shards_not_committed": found.shards_missing,
        "backend": measurer.backend,
        "lpips": {"net": args.lpips_net if lpips else "none", "sha256": measurer.lpips_sha256},
        "largest_change_of_published_psnr": found.largest_change,
        "counts": counts_of(file, opened.fit.tau),
        "quality": groups_of(file),
        "device_years": found.cost.years(storage),
    }


def _notes(dataset: dict[str, Any]) -> list[str]:
    """Sentences below the tables: what the numbers do not cover."""
    states = dataset["states"]
    out = dataset["out"]
    notes = [f"{out}, {states.get(MEASURED, 0)} of {sum(states.values())} objects measured."]
    if dataset["lpips"]["sha256"]:
        notes.append(f"{out}, LPIPS with {dataset['lpips']['net']}, weights {dataset['lpips']['sha256'][:12]}.")
    for state, uids in dataset["named"].items():
        listed = ", ".join(f"{uid} ({note})" if note else uid for uid, note in list(uids.items())[:3])
        notes.append(f"{out}, {states[state]} {state}, such as {listed}{', ..' if states[state] > 3 else ''}.")
    if any("depth_l1" in group["all"] for group in dataset["quality"]):
        notes.append(f"{out}, {_GEOMETRY}")
    if states.get(LOST):
        notes.append(f"{out}, {states[LOST]} quarantined.")
    if dataset["shards_not_committed"]:
        notes.append(f"{out}, {dataset['shards_not_committed']} shards are not committed yet.")
    if len(dataset["quality"]) > 1:
        notes.append(
            f"{out}, objects were measured under {len(dataset['quality'])} conditions, which are kept apart."
        )
    if dataset["largest_change_of_published_psnr"] > 0.01:
        change = dataset["largest_change_of_published_psnr"]
        notes.append(
            f"{out}, a fit's PSNR differs by up to {change:.2f} dB from its column psnr; other code made it."
        )
    return notes


def _plain(value: Any) -> Any:
    """The value for JSON, with null for NaN."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
