"""top-errors: lists the causes of quarantine, the most frequent first."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow.compute as pc

from gaussianverse.atlas.dataset_format import OK
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.escape import one_line
from gaussianverse.pipeline.arguments import add_reading, open_dataset
from gaussianverse.pipeline.dataset import layout, records, shards
from gaussianverse.pipeline.dataset.versions import Version
from gaussianverse.terminal import columns, folded

_SMALL = 16 << 10
"""Bytes. The fragment of a quarantined object holds one short JSON file; larger ones need not be read."""
_EXAMPLES = 3
_COLUMNS = ("uid", "status", "reason", "error_class", "error_message")
_TAKEN_OUT = (
    (re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`"), "<name>"),
    (re.compile(r"\b(view|member|frame|image|file|column) (?!<)[^\s:,;]+"), r"\1 <name>"),
    (re.compile(r"(?:\w+://)?[^\s:,;()'\"]*/[^\s:,;()'\"]*"), "<path>"),
    (re.compile(r"\S+\.(?:png|jpe?g|webp|exr|json|npy|npz|ply|glb|gltf|bin|tar|t?gz|zip|parquet)\b"), "<path>"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.I), "#"),
    (re.compile(r"\b[0-9a-f]{16,}\b"), "#"),
    (re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?|\b[-+]?(?:nan|inf|infinity)\b", re.I), "#"),
    (re.compile(r"#(?:[\s,x]+#)+"), "#"),
)
"""Patterns that tell two objects apart that failed for the same cause, in this order, and what stands for them."""


@dataclass
class Cause:
    """Objects quarantined for the same cause."""

    stage: str
    reason: str
    error_class: str
    pattern: str
    """The message without numbers, names, paths and uids."""
    count: int = 0
    uids: list[str] = field(default_factory=list)
    """The first few."""
    message: str = ""
    """The message of the first."""


def top_errors(storage: Storage, version: Version) -> list[Cause]:
    """Count the causes in committed shards and in fragments of a version; returns the most frequent first."""
    committed = {pair for pair in shards.committed_shards(storage) if pair[1] in version.shards}
    found: dict[tuple[str, ...], Cause] = {}
    seen: set[str] = set()
    for stage in layout.STAGES:  # the atlas stage repeats the quarantines of the fits, which count once
        for pair in sorted(committed):
            if pair[0] == stage:
                table = version.live(shards.stats_table(storage, *pair), pair[1]).select(_COLUMNS)
                for facts in table.filter(pc.not_equal(table["status"], OK)).to_pylist():
                    _count(found, seen, stage, facts)
        for entry in storage.list(f"{layout.WORK}{stage}/"):
            place = layout.parse_fragment(entry.key)
            if place and place[1] in version.run.shards and place[:2] not in committed and entry.nbytes <= _SMALL:
                try:
                    facts = records.read(storage, *place).facts
                except NotFound:
                    continue  # packed and deleted meanwhile
                if facts["status"] != OK:
                    _count(found, seen, stage, facts)
    return sorted(found.values(), key=lambda cause: (-cause.count, cause.stage, cause.reason, cause.pattern))


def _count(found: dict[tuple[str, ...], Cause], seen: set[str], stage: str, facts: dict[str, Any]) -> None:
    uid = str(facts["uid"])
    if uid in seen:
        return
    seen.add(uid)
    text = str(facts["error_message"])
    pattern = pattern_of(text, uid)
    key = (stage, str(facts["reason"]), str(facts["error_class"]), pattern)
    cause = found.setdefault(key, Cause(*key, message=text))
    cause.count += 1
    if len(cause.uids) < _EXAMPLES:
        cause.uids.append(uid)


def pattern_of(text: str, uid: str = "") -> str:
    """The message with numbers, names, paths and the object's uid taken out, equal for messages of one kind."""
    if uid:
        text = re.sub(rf"(?<![\w-]){re.escape(uid)}(?![\w-])", "<uid>", text)
    for pattern, stand_in in _TAKEN_OUT:
        text = pattern.sub(stand_in, text)
    return " ".join(text.split())


def errors_text(causes: list[Cause], most: int) -> str:
    """Format the `most` frequent causes for people."""
    if not causes:
        return "no object was quarantined"
    lines = []
    for cause in causes[:most]:
        lines.append(f"{cause.count:>7}  {cause.stage}: {cause.reason}: {one_line(cause.message)}")
        lines.append(f"         such as {', '.join(cause.uids)}")
    if len(causes) > most:
        rest = sum(cause.count for cause in causes[most:])
        lines.append(f"{rest:>7}  of {len(causes) - most} other causes")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse top-errors`."""
    parser.add_argument("--most", type=int, default=20, help="number of causes to show")
    add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Print the most frequent causes; returns the exit code."""
    found = top_errors(*open_dataset(args, begun=True))
    if args.json:
        print(json.dumps([asdict(cause) for cause in found[: args.most]]))
    else:
        print(folded(errors_text(found, args.most), columns()))
    return 0
