"""Options that several verbs share, and the configuration and output that they name."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gaussianverse.manifests.arguments import add_rules
from gaussianverse.manifests.sample_path import SAMPLE
from gaussianverse.terminal import note

if TYPE_CHECKING:
    from gaussianverse.atlas.store.options import StoreOptions
    from gaussianverse.atlas.store.storage import Storage
    from gaussianverse.pipeline.config import RunConfig
    from gaussianverse.pipeline.dataset.run_file import Run
    from gaussianverse.pipeline.dataset.versions import Version


_SAMPLE_OUT = "out"


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add `--out`."""
    parser.add_argument("--out", required=True, help="folder or s3://bucket/prefix of the dataset")


def add_new_output(parser: argparse.ArgumentParser) -> None:
    """Add `--out` of verbs that begin an output, which need not name one for the sample."""
    parser.add_argument(
        "--out", help=f"folder or s3://bucket/prefix of the dataset; with --sample it may be left out: {_SAMPLE_OUT}/"
    )


def new_output_of(args: argparse.Namespace) -> str:
    """The output that `--out` of `add_new_output` names; raises UsageError if it must and does not."""
    from gaussianverse.pipeline.errors import UsageError

    if not args.out and args.manifest != SAMPLE:
        raise UsageError("no --out: say where to write, a folder or s3://bucket/prefix")
    return str(args.out or _SAMPLE_OUT)


def add_manifest(parser: argparse.ArgumentParser) -> None:
    """Add `--manifest` and `--sample`, one of which must be given, and the rules by which a manifest is read."""
    objects = parser.add_mutually_exclusive_group(required=True)
    objects.add_argument("--manifest", help="path or s3:// address of JSON Lines or Parquet")
    objects.add_argument(
        "--sample", dest="manifest", action="store_const", const=SAMPLE, help="the four objects of this package"
    )
    add_rules(parser)


def add_reuse(parser: argparse.ArgumentParser) -> None:
    """Add `--reuse`."""
    parser.add_argument(
        "--reuse", action="append", default=[], metavar="OUT", help="finished output whose fits are taken over where "
        "uid, views and settings of the fit are the same; repeatable",
    )  # fmt: skip


def add_base(parser: argparse.ArgumentParser) -> None:
    """Add `--base`."""
    parser.add_argument(
        "--base", default=".", metavar="DIR", help="folder or s3:// prefix that addresses of views in the manifest "
        "are relative to, which is that of the manifest; default: the working directory",
    )  # fmt: skip


def add_shards(parser: argparse.ArgumentParser) -> None:
    """Add `--shard`."""
    parser.add_argument(
        "--shard", "--shards", dest="shards", default="", help="shards, such as 3 or 0-9,12; default: all"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add `--quiet`, which the command line adds to every verb."""
    parser.add_argument(
        "--quiet", "-q", action="store_true", help="no progress and no notes; results, warnings and errors stay"
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add `--set`, which verbs without a profile need to reach a store."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one setting"
    )
    parser.set_defaults(profile="quick", workers=None, ray_address=None, plane_indices=None)


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add `--version`."""
    parser.add_argument("--version", type=int, metavar="N", help="version of the dataset; default: the newest")


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add `--out`, `--version`, `--set` and `--json`, the options of verbs that read an output."""
    add_output(parser)
    add_version(parser)
    add_overrides(parser)
    add_json(parser)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add `--profile`, `--set` and the other options that configure a run."""
    parser.add_argument(
        "--profile", default="quick", help="quick, cpu, fast, paper, fixed, unbounded, test, or a TOML file"
    )
    parser.add_argument(
        "--plane-indices", metavar="FILE", help="such as the published sphere2plane.npy; default: ours"
    )
    parser.add_argument("--workers", type=int, help="cores to use on this machine; default: all")
    parser.add_argument(
        "--ray-address",
        help="Ray cluster to join: host:port, ray://host:port or auto; local = start Ray on this machine; "
        "default: RAY_ADDRESS, else local",
    )
    parser.add_argument("--events", type=Path, metavar="FILE", help="append events to this file as JSON lines")
    add_overrides(parser)


def add_building(parser: argparse.ArgumentParser) -> None:
    """Add the options of verbs that build shards: `add_config`, `--fail-above` and `--json`."""
    add_config(parser)
    parser.add_argument(
        "--fail-above",
        type=_share,
        metavar="SHARE",
        help="exit code 6 if more than this share of the objects, 0 to 1, is quarantined; default: never",
    )
    add_json(parser)


def add_page(parser: argparse.ArgumentParser) -> None:
    """Add `--no-report`."""
    parser.add_argument("--no-report", action="store_true", help="make no page to look at when the shards are there")


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share, expected a number from 0 to 1")
    return share


def building_config_of(args: argparse.Namespace) -> RunConfig:
    """`config_of`, where RAY_ADDRESS names the cluster if no option does, as everywhere in Ray; says so on stderr."""
    return _joining(config_of(args))


def continued_config_of(args: argparse.Namespace, identity: Mapping[str, Any]) -> RunConfig:
    """`building_config_of` for the next version of an output, whose `RunConfig.identity` the options change."""
    from gaussianverse.pipeline.config import load_over

    return _joining(load_over(identity, args.profile, _overrides_of(args)))


def store_of(args: argparse.Namespace) -> StoreOptions:
    """The options of the store alone, by which an output is read whose other settings are those of its run."""
    from gaussianverse.pipeline.config import load_over

    return load_over({}, None, [text for text in args.set if text.strip().startswith("store.")]).store


def _joining(config: RunConfig) -> RunConfig:
    given = os.environ.get("RAY_ADDRESS", "")
    if not config.ray.address and given and given != "local":
        note(f"Ray: joining {given}, as RAY_ADDRESS says (--ray-address local starts it here)")
        config = replace(config, ray=replace(config.ray, address=given))
    if config.ray.address == "local":
        config = replace(config, ray=replace(config.ray, address=""))
    return config


def config_of(args: argparse.Namespace) -> RunConfig:
    """Load the configuration that the options name; raises ConfigError, see `pipeline.config.load`."""
    from gaussianverse.pipeline.config import load

    return load(args.profile, _overrides_of(args))


def _overrides_of(args: argparse.Namespace) -> list[str]:
    given = {
        "ray.workers": args.workers,
        "ray.address": args.ray_address,
        "atlas.plane_indices": args.plane_indices and str(Path(args.plane_indices).absolute()),
    }
    options = [f"{name}={json.dumps(value)}" for name, value in given.items() if value is not None]
    return [*args.set, *options]


def open_output(args: argparse.Namespace) -> tuple[Storage, Run]:
    """Open the output that `--out` names, and read its run.json."""
    from gaussianverse.atlas.store import open_storage
    from gaussianverse.pipeline.dataset import run_file

    storage = open_storage(args.out, config_of(args).store)
    return storage, run_file.load(storage)


def open_dataset(args: argparse.Namespace, *, begun: bool = False) -> tuple[Storage, Version]:
    """Open the output that `--out` names, and the version that `--version` names.

    Args:
        args: the options of `add_reading`.
        begun: take a version that was begun, if there is one, for the newest.

    Raises:
        NotFound: there is no run, or no such version.
        PipelineError: the files of the version are damaged.
    """
    from gaussianverse.atlas.store import open_storage
    from gaussianverse.atlas.store.errors import NotFound
    from gaussianverse.pipeline.dataset.versions import begun_version, open_version

    storage = open_storage(args.out, config_of(args).store)
    if args.version is None and begun and (number := begun_version(storage)) is not None:
        try:
            return storage, open_version(storage, number)
        except NotFound:  # claimed, and killed before its tables were written
            if number == 1:
                raise
    return storage, open_version(storage, args.version)
