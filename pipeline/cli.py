"""The command line: `gaussianverse VERB`. A verb's module is imported when the verb is called, not for `--help`.

Exit codes: 0 done, 1 error, 2 usage, 3 breaker, 4 watchdog, 5 conflict, 6 more quarantined than `--fail-above`,
130 interrupted (SIGINT), 143 terminated (SIGTERM). A reader that leaves, as `head` does, changes none of them.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
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
    add_json,
    add_manifest,
    add_new_output,
    add_output,
    add_overrides,
    add_page,
    add_reuse,
    add_shards,
    building_config_of,
    new_output_of,
    open_output,
)
from gaussianverse.pipeline.completion import SHELLS, script
from gaussianverse.pipeline.errors import PipelineError
from gaussianverse.pipeline.interrupt import QuietInterrupt, sigterm_interrupts
from gaussianverse.pipeline.parser import did_you_mean
from gaussianverse.pipeline.verbs import Verb, from_module, overview, parser_of, whole_parser
from gaussianverse.terminal import leave_out_notes, printing

if TYPE_CHECKING:
    from gaussianverse.manifests.schema import Row

_MOST_FAULTS = 20


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
        print(overview(_VERBS, shutil.get_terminal_size().columns))
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
        print(f"error: {_no_verb(given[0])}; see gaussianverse --help", file=sys.stderr)
        return 2
    args = parser_of(given[0], verb).parsed(given[1:], mixed=verb.mixed)
    if args.quiet:
        leave_out_notes()
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


def _no_verb(word: str) -> str:
    if word.startswith("-"):
        return f"no option {word} before the verb: gaussianverse VERB {word}"
    return f"no verb {word!r}{did_you_mean(word, _VERBS)}"


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
    print(script(whole_parser(_VERBS), args.shell))
    return 0


_VERBS: dict[str, Verb] = {
    "render": from_module("prepare", "render a textured mesh to views", "manifests.rendering.render", mixed=True),
    "views-to": from_module("prepare", "write views as other projects' loaders read them", "pipeline.ops.views_to"),
    "manifest": Verb("prepare", "build, check or shard a manifest", (_add_manifest_verbs,), _manifest),
    "plan": from_module("prepare", "predict hours, days, bytes and requests of a run", "pipeline.ops.plan"),
    "doctor": from_module("prepare", "check this machine or a cluster, and a store", "pipeline.ops.doctor"),
    "init": from_module("prepare", "write a profile's settings, each explained, to change", "pipeline.ops.init"),
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
    "import": from_module(
        "build", "build shards of objects that are already Gaussians", "pipeline.ops.import_splats"
    ),
    "finalize": Verb(
        "build",
        "write the tables and checksums that complete a dataset",
        (add_output, add_overrides, add_json),
        _finalize,
    ),
    "extend": from_module(
        "keep", "add, correct, refit or remove objects, as the next version", "pipeline.ops.extend"
    ),
    "retry-failed": from_module("build", "try quarantined objects again", "pipeline.ops.retry_failed"),
    "status": from_module("look", "show the progress of a run, once or live with --watch", "pipeline.ops.status"),
    "report": from_module("look", "print a table of a run's objects, make a page to look at", "pipeline.ops.report"),
    "evaluate": from_module(
        "look", "measure fits and atlases against views, compare datasets", "pipeline.ops.evaluate"
    ),
    "inspect": from_module("look", "print everything known about one object", "pipeline.ops.inspect"),
    "top-errors": from_module(
        "look", "list causes of quarantine, the most frequent first", "pipeline.ops.top_errors"
    ),
    "diff": from_module("look", "say what changed between two versions, by object and column", "pipeline.ops.diff"),
    "verify": from_module("look", "read a dataset back and list every fault", "pipeline.ops.verify"),
    "export": from_module("keep", "write objects in other projects' formats", "pipeline.ops.export"),
    "duplicates": from_module("keep", "list objects that are the same, and which to keep", "pipeline.ops.duplicates"),
    "compact": from_module("keep", "write what a version counts as a dataset of its own", "pipeline.ops.compact"),
    "purge": from_module("keep", "delete old versions, or one that was given up", "pipeline.ops.purge"),
    "clean-work": from_module("keep", "delete scratch of committed shards", "pipeline.ops.clean_work"),
}

if __name__ == "__main__":
    sys.exit(main())
