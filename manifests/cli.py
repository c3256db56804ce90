"""Command line of `manifest build | check | shard`."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gaussianverse.manifests import authored, folders, gobjaverse, joined_files, joining, jsonl, licenses, runform
from gaussianverse.manifests.arguments import add_rules, rules_of
from gaussianverse.manifests.check import Probe, check
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.schema import CATEGORIES, DEFAULT_CATEGORIES, Row
from gaussianverse.manifests.table import parse_default


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of `run` to a parser or sub-parser."""
    verbs = parser.add_subparsers(dest="manifest_verb", required=True, metavar="VERB")
    _add_build(verbs.add_parser("build", help="make a manifest from GObjaverse's index or from folders"))

    verify = verbs.add_parser("check", help="list every fault of a manifest with its line")
    verify.add_argument("manifest", type=Path, metavar="MANIFEST", help="JSON Lines or Parquet")
    verify.add_argument("--probe", type=int, default=0, metavar="K", help="also read the views of K objects")
    _add_licenses(verify, "rows under another licence are faults")
    verify.add_argument(
        "--categories", nargs="+", default=[], metavar="WORD",
        help="rows of another category are faults; `gobjaverse` stands for its ten",
    )  # fmt: skip
    add_rules(verify)
    verify.add_argument("--json", action="store_true", help="print one JSON document and nothing else")

    shard = verbs.add_parser("shard", help="make objects.parquet, whose row group k is shard k")
    shard.add_argument("manifest", type=Path, metavar="MANIFEST", help="JSON Lines or Parquet")
    shard.add_argument("out", type=Path, metavar="PARQUET")
    shard.add_argument("--shard-size", type=int, default=runform.SHARD_SIZE, metavar="N", help="default: 256")
    _add_licenses(shard, "leave out rows under another licence")
    add_rules(shard)
    shard.add_argument("--json", action="store_true", help="print one JSON document and nothing else")


def _add_licenses(parser: argparse.ArgumentParser, effect: str) -> None:
    parser.add_argument("--licenses", nargs="+", default=[], metavar="SPDX", help=f"e.g. CC0-1.0 CC-BY-4.0; {effect}")


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="JSONL", help="the manifest to write")
    parser.add_argument("--force", action="store_true", help="replace an existing manifest")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON document, with what was left out by reason, and nothing else",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--from", dest="manifest", type=Path, metavar="MANIFEST", help="JSON Lines or Parquet")
    source.add_argument("--index", type=Path, nargs="+", metavar="JSON", help="gobjaverse_280k*.json")
    source.add_argument("--folder", type=Path, metavar="DIR", help="one folder or .tar of views per object")
    parser.add_argument(
        "--views",
        metavar="TEMPLATE",
        help="with --index: location of the renders, e.g. /data/{index} or s3://bucket/{dict}/{inst}.tar",
    )
    parser.add_argument("--objaverse-map", type=Path, metavar="JSON", help="..._index_to_objaverse.json")
    parser.add_argument("--category-file", type=Path, metavar="JSON", help="category_annotation.json")
    parser.add_argument(
        "--captions", type=Path, nargs="+", default=[], metavar="FILE", help="JSON {key: caption} or Cap3D CSV"
    )
    parser.add_argument(
        "--caption-source", action=_OfFile, default="",
        help="with --folder, or after --join FILE: source of the captions where the file does not say",
    )  # fmt: skip
    _add_joins(parser)
    wanted = parser.add_mutually_exclusive_group()
    wanted.add_argument(
        "--categories",
        nargs="+",
        choices=CATEGORIES,
        metavar="CATEGORY",
        help=f"with --index: categories to take (default: all of {', '.join(CATEGORIES)} but the last)",
    )
    wanted.add_argument("--all-categories", action="store_true", help="with --index: take all objects")
    wanted.add_argument("--category", default="", help="with --folder: category of all objects")
    parser.add_argument("--license", default="", help="licence of all objects not in --license-file")
    parser.add_argument(
        "--license-file", type=Path, metavar="JSON", help="with --index: {GObjaverse index or Objaverse uid: license}"
    )
    _add_licenses(parser, "leave out objects under another licence")
    parser.add_argument("--drop-uncaptioned", action="store_true", help="with --index: skip uncaptioned objects")


class _OfFile(argparse.Action):
    """--join, --keep and --drop begin a file; --on, --take, --text and --caption-source belong to the one before."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        given: list[joined_files.Given] = [*(getattr(namespace, "files", None) or [])]
        name = str(option).removeprefix("--").replace("-", "_")
        if name in (joined_files.JOIN, joined_files.KEEP, joined_files.DROP):
            given.append(joined_files.Given(Path(values), name))
        elif given and name in ("take", "caption_source") and given[-1].use != joined_files.JOIN:
            parser.error(f"{option} belongs to a --join, and --{given[-1].use} {given[-1].path} only lists keys")
        elif given:
            given[-1] = replace(given[-1], **{name: values})
        elif name == "caption_source":
            namespace.caption_source = values
        else:
            parser.error(f"{option} belongs to the --join, --keep or --drop before it")
        namespace.files = given


def _add_joins(parser: argparse.ArgumentParser) -> None:
    forms = "Parquet, CSV, JSON or JSON Lines"
    one: dict[str, Any] = {"action": _OfFile, "default": argparse.SUPPRESS}
    parser.add_argument("--join", metavar="FILE", help=f"{forms}: columns to add to the rows; repeatable", **one)
    parser.add_argument("--keep", metavar="FILE", help=f"keep only the objects it names; {forms}, or text", **one)
    parser.add_argument("--drop", metavar="FILE", help="leave out the objects that it names, as --keep", **one)
    parser.add_argument(
        "--on", metavar="COLUMN", help="after a FILE: its column of keys, or LEFT=COLUMN if they are the manifest's "
        "LEFT: a column, or index, objaverse, sha256", **one,
    )  # fmt: skip
    parser.add_argument(
        "--take", nargs="+", metavar="NAME[=COLUMN]", help="after --join FILE: columns to join; default: all", **one
    )
    parser.add_argument(
        "--text", nargs="+", metavar="COLUMN", help="after a FILE: columns of a CSV that are texts", **one
    )
    parser.add_argument(
        "--map", type=Path, action="append", default=[], metavar="FILE",
        help="file of which each row has several names of one object, as ..._index_to_objaverse.json",
    )  # fmt: skip
    parser.add_argument(
        "--default", action="append", default=[], metavar="NAME=VALUE", help="value of a column where rows lack it"
    )
    parser.add_argument("--unmatched", type=Path, metavar="JSONL", help="write what did not match here")
    parser.set_defaults(files=[])


def run(args: argparse.Namespace, probe: Probe | None = None) -> int:
    """Run `manifest build`, `check` or `shard`.

    Args:
        args: parsed by a parser of `add_arguments`.
        probe: reads the views of a row and raises if it cannot; used by `check --probe`.

    Returns:
        The exit code: 0 done, 1 faults or errors (printed on stderr), 2 wrong usage.
    """
    verb = {"build": _build, "check": _check, "shard": _shard}[args.manifest_verb]
    try:
        return verb(args, probe)
    except ManifestError as error:
        for fault in error.faults:
            print(f"error: {fault}", file=sys.stderr)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
    return 1


# Flags that only one of the two sources takes.
_OF_INDEX = (
    "--views",
    "--objaverse-map",
    "--category-file",
    "--categories",
    "--all-categories",
    "--drop-uncaptioned",
    "--license-file",
)
_OF_FOLDER = ("--caption-source", "--category")


# Flags of the two sources that have no meaning for a manifest that is there.
_OF_BOTH = ("--captions", "--license")


def _build(args: argparse.Namespace, _: Probe | None) -> int:
    if args.manifest:
        source, foreign = "--from", [*_OF_INDEX, *_OF_FOLDER, *_OF_BOTH]
    else:
        source, foreign = ("--index", [*_OF_FOLDER]) if args.index else ("--folder", [*_OF_INDEX])
    useless = [flag for flag in foreign if getattr(args, flag.removeprefix("--").replace("-", "_"))]
    if useless:
        print(f"error: {', '.join(useless)}: not allowed with {source}", file=sys.stderr)
        return 2
    if args.index and not args.views:
        print("error: --index needs --views, the location of the renders", file=sys.stderr)
        return 2
    inputs = [path for path in (args.manifest, *args.map, *(file.path for file in args.files)) if path]
    for path in filter(None, (args.out, args.unmatched)):
        if path.exists() and not args.force:
            print(f"error: {path} exists; pass --force to replace it", file=sys.stderr)
            return 1
        others = inputs[1:] if args.manifest and path is args.out else inputs
        if path.resolve() in {other.resolve() for other in others}:
            print(f"error: {path} is read, and would be replaced; choose another file", file=sys.stderr)
            return 1
    if args.unmatched and args.unmatched.resolve() == args.out.resolve():
        print(f"error: --unmatched {args.unmatched} is the manifest to write; choose another file", file=sys.stderr)
        return 1
    told: Callable[[str], object] = (lambda text: None) if args.json else print
    if args.manifest:
        return _join(args, lambda: jsonl.moved(args.manifest, args.out), {}, told)
    if args.index:
        built = gobjaverse.build(
            args.index,
            args.views,
            objaverse_map=args.objaverse_map,
            category_file=args.category_file,
            caption_files=args.captions,
            categories=None if args.all_categories else args.categories or DEFAULT_CATEGORIES,
            license=args.license,
            license_file=args.license_file,
            drop_uncaptioned=args.drop_uncaptioned,
        )
        rows, left_out = built.rows, dict(built.left_out)
        for reason, count in sorted(left_out.items()):
            told(f"left out: {count} ({reason})")
    else:
        captions: dict[str, str] = {}
        for file in args.captions:
            captions = gobjaverse.read_captions(file) | captions
        found = folders.build(
            args.folder,
            args.out.parent,
            captions=captions,
            caption_source=args.caption_source,
            category=args.category,
            license=args.license,
        )
        rows, left_out = found.rows, dict(found.left_out)
        if left_out:
            told(folders.left_out_text(left_out))
    if args.files or args.default or args.unmatched:
        return _join(args, lambda: iter(rows), left_out, told)
    rows, unlicensed = _licensed(rows, args.licenses)
    for reason, count in unlicensed.items():
        told(f"left out: {count} ({reason})")
    jsonl.write(args.out, rows)
    told(f"{len(rows)} objects in {args.out}")
    if args.json:
        print(json.dumps({"manifest": str(args.out), "objects": len(rows), "left_out": left_out | unlicensed}))
    return 0


def _join(
    args: argparse.Namespace, rows: joining.Rows, left_out: Mapping[str, int], told: Callable[[str], object]
) -> int:
    """Write the rows with what --join, --keep and --drop make of them; returns the exit code."""
    done = joining.build(
        args.out,
        rows,
        args.files,
        maps=[*args.map, *([args.objaverse_map] if args.objaverse_map else [])],
        defaults=dict(map(parse_default, args.default)),
        wanted=args.licenses,
        unmatched=args.unmatched,
    )
    for reason, count in done.left_out.items():
        told(f"left out: {count} ({reason})")
    for file, counts in done.files.items():
        lacking = f", {counts['not_in_file']} objects without a row" if "not_in_file" in counts else ""
        told(f"{file}: {counts['matched']} objects, {counts['not_in_manifest']} keys of no object{lacking}")
    told(f"{done.objects} objects in {args.out}")
    if args.json:
        found = {"manifest": str(args.out), "objects": done.objects, "left_out": {**left_out, **done.left_out}}
        print(json.dumps({**found, "files": done.files}))
    return 0


def _licensed(rows: list[Row], wanted: list[str]) -> tuple[list[Row], dict[str, int]]:
    """Rows under a wanted licence, or all if `wanted` is empty, and the number of others by their licence."""
    if not wanted:
        return rows, {}
    kept = licenses.keep(rows, wanted)
    return kept.rows, {licenses.described(license): count for license, count in sorted(kept.left_out.items())}


def _check(args: argparse.Namespace, probe: Probe | None) -> int:
    if args.probe and probe is None:
        print("error: --probe needs a reader of views; use `gaussianverse manifest check`", file=sys.stderr)
        return 2
    categories = [c for word in args.categories for c in (CATEGORIES if word == "gobjaverse" else (word,))]
    rules = replace(rules_of(args), base=str(args.manifest.absolute().parent))
    faults = check(
        args.manifest, probe=probe, count=args.probe, licenses=args.licenses, categories=categories, rules=rules
    )
    if args.json:
        print(json.dumps({"manifest": str(args.manifest), "faults": faults}))
    else:
        for fault in faults:
            print(fault)
        print(f"{len(faults)} faults" if faults else "no faults")
    return 1 if faults else 0


def _shard(args: argparse.Namespace, _: Probe | None) -> int:
    if args.shard_size < 1:
        print(f"error: --shard-size is {args.shard_size}, expected at least 1", file=sys.stderr)
        return 2
    rules = replace(rules_of(args), base=str(args.manifest.absolute().parent))
    found = authored.read(args.manifest, strict=args.strict, rules=rules)
    for fault in found.faults:
        print(f"{fault}; a run will quarantine this row as bad_input", file=sys.stderr)
    rows, unlicensed = _licensed(found.rows, args.licenses)
    rows = jsonl.resolve_views(rows, args.manifest.parent)
    shards = runform.write(args.out, rows, shard_size=args.shard_size)
    if args.json:
        counts = {"objects": len(rows), "shards": shards, "left_out": unlicensed}
        print(json.dumps({"manifest": str(args.out), **counts, "faults": found.faults}))
        return 0
    for reason, count in unlicensed.items():
        print(f"left out: {count} ({reason})")
    print(f"{len(rows)} objects in {shards} shards in {args.out}")
    return 0
