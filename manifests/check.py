"""Check of a manifest: lists every fault with its line."""

from collections.abc import Callable, Collection
from pathlib import Path

from gaussianverse.manifests.authored import parse
from gaussianverse.manifests.jsonl import describe, resolve_views
from gaussianverse.manifests.licenses import check_wanted, described
from gaussianverse.manifests.schema import Row
from gaussianverse.manifests.table import NO_RULES, Fault, Rules

Probe = Callable[[Row], object]


def check(
    path: Path,
    *,
    probe: Probe | None = None,
    count: int = 0,
    licenses: Collection[str] = (),
    categories: Collection[str] = (),
    rules: Rules = NO_RULES,
) -> list[str]:
    """List all faults of a manifest, JSON Lines or Parquet.

    Faults are: invalid JSON, unknown and missing keys, values that are not text, bad uids, duplicate uids,
    unknown formats and splits, columns without one type, missing captions, an empty manifest; with `licenses` and
    `categories`, rows of any other; with `probe`, views that cannot be read.

    Args:
        path: the manifest.
        probe: called with rows whose `views` are resolved; any exception it raises is a fault of the row.
        count: number of rows to probe, evenly spread over the manifest.
        licenses: licences that rows may have; empty allows all.
        categories: categories that rows may have; empty allows all.
        rules: defaults of columns, and sources that views may lie under.

    Returns:
        One message a fault, "<path>:<line>: <message>", in the order of lines.

    Raises:
        ManifestError: the file cannot be read, or `licenses` are misspelled.
    """
    found = parse(path, rules)
    lines, faults = found.lines, list(found.faults)
    faults += [
        Fault(line.number, f"{line.row.uid!r} has no caption; text conditioning needs one")
        for line in lines
        if not line.row.caption.strip()
    ]
    if licenses:
        check_wanted(licenses, {line.row.license for line in lines})
        faults += [
            Fault(line.number, f"{line.row.uid!r}: {described(line.row.license)}; not among {', '.join(licenses)}")
            for line in lines
            if line.row.license not in licenses
        ]
    faults += [
        Fault(line.number, f"{line.row.uid!r}: category {line.row.category!r} is not among {', '.join(categories)}")
        for line in lines
        if categories and line.row.category not in categories
    ]
    if probe is not None:
        count = min(count, len(lines))
        chosen = [lines[i * len(lines) // count] for i in range(count)]
        for line, row in zip(chosen, resolve_views([line.row for line in chosen], path.parent), strict=True):
            try:
                probe(row)
            except Exception as error:  # any error that keeps the probe from reading is a fault
                faults.append(Fault(line.number, f"{row.uid!r}: {type(error).__name__}: {error}"))
    return describe(path, faults)
