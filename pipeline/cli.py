"""The command line: `gaussianverse VERB`. A verb's module is imported when the verb is called, not for `--help`.

Exit codes: 0 done, 1 error, 2 usage, 3 breaker, 4 watchdog, 5 conflict, 6 more quarantined than `--fail-above`,
130 interrupted (SIGINT), 143 terminated (SIGTERM). A reader that leaves, as `head` does, changes none of them.
"""

from __future__ import annotations

import difflib
import logging
import shutil
import sys
import textwrap

from gaussianverse import __version__
from gaussianverse.atlas.configuration import ConfigError
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.store.errors import NotFound, StoreError
from gaussianverse.escape import one_line
from gaussianverse.manifests.errors import LayoutError, ManifestError, RenderError
from gaussianverse.pipeline.errors import PipelineError
from gaussianverse.pipeline.interrupt import QuietInterrupt, sigterm_interrupts
from gaussianverse.pipeline.parser import wrapped
from gaussianverse.pipeline.verbs import GROUPS, VERBS, parser_of
from gaussianverse.terminal import leave_out_notes, printing

_MOST_FAULTS = 20
_ABOUT = "Fit 3D Gaussians, build Gaussian atlases and publish them as WebDataset shards."
_END = (
    "`gaussianverse VERB --help` lists a verb's options and shows examples; `gaussianverse --version` names the "
    "version.",
    "Every verb takes --quiet, which leaves out progress and notes, and all but `completion` --json.",
)


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
        print(_help(shutil.get_terminal_size().columns))
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
    verb = VERBS.get(given[0])
    if verb is None:
        print(f"error: {_no_verb(given[0])}; see gaussianverse --help", file=sys.stderr)
        return 2
    args = parser_of(given[0]).parsed(given[1:], mixed=verb.mixed)
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
    near = difflib.get_close_matches(word, VERBS, 1)
    return f"no verb {word!r}{f' (did you mean {near[0]}?)' if near else ''}"


def _help(columns: int) -> str:
    width = max(map(len, VERBS)) + 1
    lines = ["usage: gaussianverse VERB [options]", "", *textwrap.wrap(_ABOUT, max(columns, 8))]
    for group in GROUPS:
        lines += ["", f"{group}:"]
        for name, verb in VERBS.items():
            if verb.group == group:
                lines += wrapped(name, verb.help, columns, width)
    for text in _END:
        lines += ["", *textwrap.wrap(text, max(columns, 8), break_on_hyphens=False)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
