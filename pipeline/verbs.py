"""The verbs of the command line: groups, help, options. A verb's module is imported when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from gaussianverse.atlas.dataset_format import ATLAS
from gaussianverse.pipeline.arguments import (
    add_building,
    add_json,
    add_manifest,
    add_new_output,
    add_output,
    add_overrides,
    add_page,
    add_quiet,
    add_reuse,
    add_shards,
    building_config_of,
    new_output_of,
    open_output,
)
from gaussianverse.pipeline.completion import SHELLS, script
from gaussianverse.pipeline.examples import EXAMPLES
from gaussianverse.pipeline.parser import Parser, leaves

if TYPE_CHECKING:
    from gaussianverse.manifests.schema import Row

GROUPS = ("prepare", "build", "look", "keep")


@dataclass(frozen=True)
class Verb:
    """One command."""

    group: str
    """One of `GROUPS`; help lists the verb under it."""
    help: str
    options: tuple[Callable[[argparse.ArgumentParser], None], ...]
    """Each adds options to a parser."""
    run: Callable[[argparse.Namespace], int]
    """Returns the exit code."""
    mixed: bool = False
    """Whether options may stand between words of which some can be left out."""


def parser_of(name: str) -> Parser:
    """The parser of a verb: its options, `--quiet`, and its examples."""
    parser = Parser(prog=f"gaussianverse {name}", description=f"{VERBS[name].help}.")
    _fill(parser, name)
    return parser


def whole_parser() -> Parser:
    """The parser of the whole command line, which imports all verbs."""
    parser = Parser(prog="gaussianverse")
    below = parser.add_subparsers(metavar="VERB")
    for name, verb in VERBS.items():
        _fill(below.add_parser(name, help=verb.help), name)
    return parser


def _fill(parser: Parser, name: str) -> None:
    for add_options in VERBS[name].options:
        add_options(parser)
    parser.show(EXAMPLES.get(name, ()))
    for leaf in leaves(parser):
        add_quiet(leaf)
        if leaf is not parser and isinstance(leaf, Parser):
            words = leaf.prog.partition(" ")[2]
            leaf.show([one for one in EXAMPLES.get(name, ()) if one[1].startswith(f"gaussianverse {words} ")])


def _from_module(group: str, help: str, module: str, *, mixed: bool = False) -> Verb:
    """A verb with a module of its own, which has `add_arguments` and `run`."""

    def load() -> ModuleType:
        return importlib.import_module(f"gaussianverse.{module}")

    return Verb(group, help, (lambda parser: load().add_arguments(parser),), lambda args: load().run(args), mixed)


def _add_manifest_verbs(parser: argparse.ArgumentParser) -> None:
    from gaussianverse.manifests import cli

    cli.add_arguments(parser)


def _manifest(args: argparse.Namespace) -> int:
    from gaussianverse.manifests import cli

    def probe(row: Row) -> object:
        from gaussianverse.atlas.store.options import StoreOptions
        from gaussianverse.fitter.views import load_views
        from gaussianverse.pipeline.run import inputs, splats
        from gaussianverse.pipeline.run.splat_files import split_address

        if row.format in splats.FORMATS:
            place, key = split_address(row.views)
            with inputs.local(place, StoreOptions()) as path:
                return splats.read_splats(path, row.format, key=key)
        with inputs.local(row.views, StoreOptions()) as path:
            return load_views(path, row.format)

    return cli.run(args, probe)


def _fit_shard(args: argparse.Namespace) -> int:
    from gaussianverse.pipeline.ops import report
    from gaussianverse.pipeline.run import job
    from gaussianverse.pipeline.run.manifest import manifest_of

    config = building_config_of(args)
    storage, run, base = job.plan(new_output_of(args), manifest_of(args, config), config)
    shards = getattr(args, "shards", "")  # `build` has no --shard
    outcome = job.build(storage, run, config, base, shards=shards, events=args.events, reuse=args.reuse)
    code = report.print_outcome(outcome, args)
    report.look_at(outcome, args, base)
    return code


def _atlas_shard(args: argparse.Namespace) -> int:
    from gaussianverse.pipeline.ops import report
    from gaussianverse.pipeline.run import job

    storage, run = open_output(args)
    config = building_config_of(args)
    outcome = job.build(storage, run, config, "", shards=args.shards, stages=(ATLAS,), events=args.events)
    return report.print_outcome(outcome, args)


def _finalize(args: argparse.Namespace) -> int:
    from gaussianverse.pipeline.dataset.finalize import finalize
    from gaussianverse.pipeline.store.probes import prove_conditional_puts

    storage, run = open_output(args)
    prove_conditional_puts(storage)
    finalize(storage, run)
    if args.json:
        print(json.dumps({"url": storage.url, "version": run.number, "finalized": True}))
    else:
        print(f"The dataset is complete: {storage.url}")
    return 0


def _add_shell(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS)


def _completion(args: argparse.Namespace) -> int:
    print(script(whole_parser(), args.shell))
    return 0


VERBS: dict[str, Verb] = {
    "render": _from_module("prepare", "render a textured mesh to views", "manifests.rendering.render", mixed=True),
    "views-to": _from_module("prepare", "write views as other projects' loaders read them", "pipeline.ops.views_to"),
    "manifest": Verb("prepare", "build, check or shard a manifest", (_add_manifest_verbs,), _manifest),
    "plan": _from_module("prepare", "predict hours, days, bytes and requests of a run", "pipeline.ops.plan"),
    "doctor": _from_module("prepare", "check this machine and a store", "pipeline.node.doctor"),
    "init": _from_module("prepare", "write a profile's settings, each explained, to change", "pipeline.ops.init"),
    "completion": Verb("prepare", "print a shell's script that completes commands", (_add_shell,), _completion),
    "fit-shard": Verb(
        "build",
        "fit objects, build atlases, pack shards; finalize after the last",
        (add_manifest, add_new_output, add_shards, add_reuse, add_building, add_page),
        _fit_shard,
    ),
    "build": Verb(
        "build",
        "run fit-shard for every shard of a manifest",
        (add_manifest, add_new_output, add_reuse, add_building, add_page),
        _fit_shard,
    ),
    "atlas-shard": Verb(
        "build", "build atlases of existing fits", (add_output, add_shards, add_building), _atlas_shard
    ),
    "import": _from_module(
        "build", "build shards of objects that are already Gaussians", "pipeline.ops.import_splats"
    ),
    "finalize": Verb(
        "build",
        "write the tables and checksums that complete a dataset",
        (add_output, add_overrides, add_json),
        _finalize,
    ),
    "extend": _from_module(
        "keep", "add, correct, refit or remove objects, as the next version", "pipeline.ops.extend"
    ),
    "retry-failed": _from_module("build", "try quarantined objects again", "pipeline.ops.retry_failed"),
    "status": _from_module("look", "show the progress of a run, once or live with --watch", "pipeline.ops.status"),
    "report": _from_module("look", "print a table of a run's objects, make a page to look at", "pipeline.ops.report"),
    "evaluate": _from_module(
        "look", "measure fits and atlases against views, compare datasets", "pipeline.ops.evaluate"
    ),
    "inspect": _from_module("look", "print everything known about one object", "pipeline.ops.inspect"),
    "top-errors": _from_module(
        "look", "list causes of quarantine, the most frequent first", "pipeline.ops.top_errors"
    ),
    "diff": _from_module("look", "say what changed between two versions, by object and column", "pipeline.ops.diff"),
    "verify": _from_module("look", "read a dataset back and list every fault", "pipeline.ops.verify"),
    "export": _from_module("keep", "write objects in other projects' formats", "pipeline.ops.export"),
    "duplicates": _from_module(
        "keep", "list objects that are the same, and which to keep", "pipeline.ops.duplicates"
    ),
    "compact": _from_module("keep", "write what a version counts as a dataset of its own", "pipeline.ops.compact"),
    "purge": _from_module("keep", "delete old versions, or one that was given up", "pipeline.ops.purge"),
    "clean-work": _from_module("keep", "delete scratch of committed shards", "pipeline.ops.clean_work"),
}
