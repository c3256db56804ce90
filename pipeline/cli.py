"""The command line: `gaussianverse VERB`. A verb's module is imported when the verb is called, not for `--help`.

Exit codes: 0 done, 1 error, 2 usage, 3 breaker, 4 watchdog, 5 conflict, 6 more quarantined than `--fail-above`,
130 interrupted (SIGINT), 143 terminated (SIGTERM). A reader that leaves, as `head` does, changes none of them.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from gaussianverse import __version__
from gaussianverse.atlas.configuration import ConfigError
from gaussianverse.atlas.dataset_format import ATLAS
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.store.errors import NotFound, StoreError
from gaussianverse.escape import one_line
from gaussianverse.manifests.errors import LayoutError, ManifestError, RenderError
from gaussianverse.pipeline.arguments import (
    add_building,
    add_manifest,
    add_output,
    add_overrides,
    add_page,
    add_reuse,
    add_shards,
    building_config_of,
    open_output,
)
from gaussianverse.pipeline.errors import PipelineError
from gaussianverse.pipeline.interrupt import QuietInterrupt, sigterm_interrupts
from gaussianverse.terminal import printing

if TYPE_CHECKING:
    from gaussianverse.manifests.schema import Row

_MOST_FAULTS = 20
_ABOUT = "Fit 3D Gaussians, build Gaussian atlases and publish them as WebDataset shards."
_GROUPS = ("prepare", "build", "look", "keep")


@dataclass(frozen=True)
class Verb:
    """One command."""

    group: str
    """One of `_GROUPS`; help lists the verb under it."""
    help: str
    options: tuple[Callable[[argparse.ArgumentParser], None], ...]
    """Each adds options to a parser."""
    run: Callable[[argparse.Namespace], int]
    """Returns the exit code."""
    mixed: bool = False
    """Whether options may stand between words of which some can be left out."""


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    try:
        with printing(), sigterm_interrupts() as termination:
            try:
                return _run(sys.argv[1:] if argv is None else argv)
            except KeyboardInterrupt as error:
                if not isinstance(error, QuietInterrupt):
                    termination.tell()
                return termination.exit_code
    except OSError as error:
        print(f"error: the output cannot be written: {one_line(error)}", file=sys.stderr)
        return 1


def _run(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help"):
        print(_help())
        return 0 if given else 2
    if given[0] == "--version":
        print(f"gaussianverse {__version__}")
        return 0
    if strange := next((word for word in given if any("\ud800" <= c <= "\udfff" for c in word)), ""):
        print(
            f"error: {one_line(strange)}: no text in this locale's encoding, {sys.getfilesystemencoding()}; rename "
            "it or set LC_ALL=C.UTF-8, and leave PYTHONUTF8 unset",
            file=sys.stderr,
        )
        return 2
    verb = _VERBS.get(given[0])
    if verb is None:
        near = difflib.get_close_matches(given[0], _VERBS, 1)
        print(
            f"error: no verb {given[0]!r}{f' (did you mean {near[0]}?)' if near else ''}; see gaussianverse --help",
            file=sys.stderr,
        )
        return 2
    parser = argparse.ArgumentParser(prog=f"gaussianverse {given[0]}", description=f"{verb.help}.")
    for add_options in verb.options:
        add_options(parser)
    args = (parser.parse_intermixed_args if verb.mixed else parser.parse_args)(given[1:])
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        return verb.run(args)
    except ManifestError as error:
        for line in error.faults[:_MOST_FAULTS]:
            print(f"error: {one_line(line)}", file=sys.stderr)
        if len(error.faults) > _MOST_FAULTS:
            print(f"error: ... and {len(error.faults) - _MOST_FAULTS} more", file=sys.stderr)
        return 1
    except (PipelineError, StoreError, NotFound, ConfigError, AtlasError, RenderError, LayoutError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code if isinstance(error, PipelineError) else 1
    except OSError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1


def _help() -> str:
    lines = ["usage: gaussianverse VERB [options]", "", _ABOUT]
    for group in _GROUPS:
        lines += ["", f"{group}:"]
        lines += [f"  {name:13} {verb.help}" for name, verb in _VERBS.items() if verb.group == group]
    lines += ["", "`gaussianverse VERB --help` lists a verb's options; `gaussianverse --version` names the version."]
    return "\n".join(lines)


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
    storage, run, base = job.plan(args.out, manifest_of(args, config), config)
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
    print(f"The dataset is complete: {storage.url}")
    return 0


_VERBS: dict[str, Verb] = {
    "render": _from_module("prepare", "render a textured mesh to views", "manifests.rendering.render", mixed=True),
    "views-to": _from_module("prepare", "write views as other projects' loaders read them", "pipeline.ops.views_to"),
    "manifest": Verb("prepare", "build, check or shard a manifest", (_add_manifest_verbs,), _manifest),
    "plan": _from_module("prepare", "predict hours, days, bytes and requests of a run", "pipeline.ops.plan"),
    "doctor": _from_module("prepare", "check this machine and a store", "pipeline.node.doctor"),
    "fit-shard": Verb(
        "build",
        "fit objects, build atlases, pack shards; finalize after the last",
        (add_manifest, add_output, add_shards, add_reuse, add_building, add_page),
        _fit_shard,
    ),
    "build": Verb(
        "build",
        "run fit-shard for every shard of a manifest",
        (add_manifest, add_output, add_reuse, add_building, add_page),
        _fit_shard,
    ),
    "atlas-shard": Verb(
        "build", "build atlases of existing fits", (add_output, add_shards, add_building), _atlas_shard
    ),
    "import": _from_module(
        "build", "build shards of objects that are already Gaussians", "pipeline.ops.import_splats"
    ),
    "finalize": Verb(
        "build", "write the tables and checksums that complete a dataset", (add_output, add_overrides), _finalize
    ),
    "extend": _from_module(
        "keep", "add, correct, make again or remove objects, as the next version", "pipeline.ops.extend"
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

if __name__ == "__main__":
    sys.exit(main())
