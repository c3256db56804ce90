"""extend: makes the next version of a dataset, with objects added, corrected, made again and removed.

Published bytes stay as they are. Objects of which only facts changed are taken over from their shards; new ones, and
those with other views, are fitted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.escape import one_line
from gaussianverse.manifests import columns, parquet
from gaussianverse.manifests.arguments import add_rules, rules_of
from gaussianverse.manifests.columns import Columns
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.files import read_bytes
from gaussianverse.manifests.table import Rules
from gaussianverse.pipeline.arguments import (
    add_building,
    add_output,
    add_reuse,
    add_shards,
    continued_config_of,
    store_of,
)
from gaussianverse.pipeline.config import digest_of
from gaussianverse.pipeline.dataset import extension, new_version
from gaussianverse.pipeline.dataset.extension import Refit
from gaussianverse.pipeline.dataset.live_rows import LiveRows
from gaussianverse.pipeline.dataset.new_version import Given
from gaussianverse.pipeline.dataset.provenance import code_digest
from gaussianverse.pipeline.dataset.run_file import Run, differences
from gaussianverse.pipeline.errors import PipelineError, RunConflict, UsageError
from gaussianverse.pipeline.run.manifest import local_file

_SHOWN = 20
_MOST_TEXT = 80


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse extend`."""
    add_output(parser)
    parser.add_argument(
        "--manifest", help="rows to add, and rows that replace those of the same objects: a path or s3:// address"
    )
    add_rules(parser)
    parser.add_argument(
        "--remove", metavar="FILE", help="objects to take out: a text with a uid a line, or Parquet or CSV with a "
        "column uid; where it has a column drop, as lists of `duplicates`, those of which it is true",
    )  # fmt: skip
    parser.add_argument(
        "--refit", nargs="?", const="settings", choices=("settings", "code"),
        help="fit objects of the manifest again whose fits have other settings; =code: or were made by other code",
    )  # fmt: skip
    parser.add_argument("--note", default="", metavar="TEXT", help="why; version.json and the card keep it")
    parser.add_argument("--dry-run", action="store_true", help="print the changes and write nothing")
    add_shards(parser)
    add_reuse(parser)
    add_building(parser)
    parser.set_defaults(profile=None)


def run(args: argparse.Namespace) -> int:
    """Print the changes and make the version; returns the exit code."""
    storage = open_storage(args.out, store_of(args))
    given = planned(storage, args)
    text = json.dumps(summary(given)) if args.json else "\n".join(lines(given))
    if args.dry_run:
        print(text)
        return 0
    if not args.json:
        print(text, flush=True)
    from gaussianverse.pipeline.ops.building import build_version

    made = given.plan.counts["added"] + given.plan.counts["refitted"] + int(given.plan.retried.sum())
    # its own fits too: views may have moved without a change
    reuse = [*args.reuse, args.out] if made else []
    return build_version(storage, given, args, reuse=reuse, code=code_digest() if args.refit == "code" else "")


def planned(storage: Storage, args: argparse.Namespace) -> Given:
    """Read what the options name, and plan.

    Raises:
        UsageError: there is nothing to make a version of.
        ManifestError, PipelineError, NotFound: see `read_manifest`, `read_uids`, `plan_of` and `open_parent`.
    """
    if not (args.manifest or args.remove or args.default):
        raise UsageError("nothing given to extend by: --manifest, --remove, or --default for a new column")
    parent = new_version.open_parent(storage)
    config = continued_config_of(args, parent.run.identity["config"])
    identity = new_version.continued(parent.run, config)
    if (found := "; ".join(differences(parent.run.identity["config"], identity, "config"))) and not args.refit:
        raise RunConflict(
            f"other settings of fits than those of version {parent.number}: {found}. Nothing was changed: leave them "
            "out, or give --refit to fit the objects of the manifest with them"
        )
    rules = rules_of(args)
    live = LiveRows(storage, parent)
    new, base = read_manifest(args.manifest, config.store, rules) if args.manifest else (None, str(Path.cwd()))
    refit = _refit_of(parent.run, identity, args.refit == "code") if args.refit else None
    remove = read_uids(args.remove, config.store) if args.remove else []
    plan = extension.plan_of(live, new, remove=remove, refit=refit, defaults=rules.defaults)
    if not any(count for name, count in plan.counts.items() if name != "unchanged"):
        raise PipelineError(
            f"{storage.url}: nothing would change: all {plan.counts['unchanged']} objects of version {parent.number} "
            "stay as they are, and nothing was written"
        )
    return Given(parent, plan, config, identity, base)


def _refit_of(parent: Run, identity: Mapping[str, Any], code: bool) -> Refit:
    """The fits that the new ones replace, which are of a configuration with this identity."""
    configs = {parent.digest: parent.identity["config"], **parent.identity.get("configs", {})}
    alike = frozenset(k for k, config in configs.items() if config.get("splats") == identity.get("splats"))
    fit = digest_of({"fit": identity["fit"], "seed": identity["run"]["seed"]})
    return Refit(fit, code_digest() if code else "", alike)


def read_manifest(address: str, store: StoreOptions, rules: Rules) -> tuple[Columns, str]:
    """The rows of a manifest, and the folder or s3 prefix that its relative `views` are relative to.

    Raises:
        ManifestError: it cannot be read, or has any fault.
    """
    with local_file(address, store) as (path, base):
        return columns.read(path, Rules(rules.defaults, rules.sources, base)), base


def read_uids(address: str, store: StoreOptions) -> list[str]:
    """The uids of a list of objects: a text, or the rows of a Parquet or CSV file, by `drop` if it has it.

    Raises:
        ManifestError: it cannot be read, has no column uid, or names nothing.
    """
    with local_file(address, store) as (path, _):
        uids = _uids_of(address, read_bytes(path))
    if not uids:
        raise ManifestError(f"{address}: names no object")
    return uids


def _uids_of(address: str, data: bytes) -> list[str]:
    try:
        if address.endswith(".parquet"):
            from pyarrow.parquet import ParquetFile

            with ParquetFile(pa.BufferReader(data)) as file:
                table = file.read(use_threads=False)
        elif address.endswith(".csv"):
            from pyarrow.csv import ConvertOptions, ReadOptions, read_csv

            options = ConvertOptions(column_types={"uid": pa.string()})
            table = read_csv(pa.BufferReader(data), ReadOptions(use_threads=False), convert_options=options)
        else:
            return [line.strip() for line in data.decode().splitlines() if line.strip()]
    except (UnicodeDecodeError, *parquet.UNREADABLE) as error:
        raise ManifestError(f"{address}: cannot be read: {one_line(error)}") from error
    if "uid" not in table.column_names:
        raise ManifestError(f"{address}: no column uid; it has {', '.join(table.column_names)}")
    if "drop" in table.column_names:
        if not pa.types.is_boolean(table["drop"].type):
            raise ManifestError(f"{address}: column drop is {table['drop'].type}, expected true and false")
        table = table.filter(table["drop"])
    return [str(uid) for uid in table["uid"].to_pylist() if uid is not None]


def summary(given: Given) -> dict[str, Any]:
    """The changes for `--json`."""
    plan = given.plan
    return {
        "version": given.parent.number + 1,
        "parent": given.parent.number,
        **plan.counts,
        "columns": plan.columns,
        "differences": [
            {"uid": d.uid, "change": d.change, "columns": {n: list(values) for n, values in d.columns.items()}}
            for d in plan.differences(_SHOWN)
        ],
    }


def lines(given: Given) -> list[str]:
    """The changes for people: counts, columns, and the first objects with the values that differ."""
    plan, counts = given.plan, given.plan.counts
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    found = [f"version {given.parent.number + 1}: {said}"]
    if plan.columns:
        found.append(f"columns: {', '.join(f'{name} in {count}' for name, count in plan.columns.items())}")
    shown = plan.differences(_SHOWN)
    for difference in shown:
        values = "; ".join(f"{n}: {_text(a)} -> {_text(b)}" for n, (a, b) in difference.columns.items())
        found.append(f"  {difference.change:9} {difference.uid}{f': {values}' if values else ''}")
    if rest := sum(count for name, count in counts.items() if name != "unchanged") - len(shown):
        found.append(f"  and {rest} more")
    return found


def _text(value: Any) -> str:
    text = "none" if value is None else json.dumps(value, ensure_ascii=False)
    return one_line(text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 2]}..")
