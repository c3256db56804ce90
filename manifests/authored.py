"""Read a manifest of any form, JSON Lines or Parquet, with the same checks."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from gaussianverse.manifests import jsonl, parquet, runform
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.files import read_bytes
from gaussianverse.manifests.schema import IndexedRow, Row
from gaussianverse.manifests.table import NO_RULES, Checked, Rules, checked


@dataclass(frozen=True)
class Authored:
    """A manifest that was read and checked.

    Attributes:
        rows: its rows; those that cannot be built have their fault.
        faults: one message for each fault, with its line.
        shard_size: objects per shard that the run form has; 0 for the other forms.
    """

    rows: list[Row]
    faults: list[str]
    shard_size: int = 0


def parse(path: Path, rules: Rules = NO_RULES) -> Checked:
    """Parse a manifest into its well-formed rows and all its faults.

    Raises:
        ManifestError: the file cannot be read.
    """
    if path.suffix == ".parquet":
        return checked(parquet.entries(read_bytes(path), path.name), rules)
    return checked(jsonl.entries(path), rules)


def read(path: Path, *, strict: bool = False, rules: Rules = NO_RULES) -> Authored:
    """Read a manifest.

    Args:
        path: JSON Lines; Parquet of any columns; or the run form, which keeps its shards.
        strict: whether one faulty row refuses the manifest.
        rules: defaults of columns, and sources that views may lie under.

    Raises:
        ManifestError: the file cannot be read, no row is without a fault, or `strict` and there are faults.
    """
    kept, shard_size = list[Row](), 0
    if path.suffix != ".parquet":
        found = checked(jsonl.entries(path), rules)
    elif not runform.is_run_form(data := read_bytes(path)):
        found = checked(parquet.entries(data, path.name), rules)
    else:
        rows, shard_size = _run_form(data, path.name)
        kept = [row for row in rows if row.fault]
        given = ((row.index + 1, runform.flat(row, authored=True)) for row in rows if not row.fault)
        found = checked(given, rules)
    faults = jsonl.describe(path, found.faults)
    if found.hopeless or (faults and strict):
        raise ManifestError(faults)
    return Authored([*found.rows(), *kept], faults, shard_size)


def _run_form(data: bytes, name: str) -> tuple[list[IndexedRow], int]:
    """The rows of a run form, whose order and shards must be what they claim, and the size of its shards."""
    try:
        with runform.opened(data) as file:
            parts = [runform.rows_of(file, k, name) for k in range(len(file))]
    except (ManifestError, *parquet.UNREADABLE) as error:
        raise ManifestError(f"{name}: damaged, or no manifest in run form: {error}") from error
    if not parts:
        raise ManifestError(f"{name}: the manifest is empty; there is nothing to build")
    rows, sizes = [row for part in parts for row in part], [len(part) for part in parts]
    wrong = [f"rows {a.uid!r} and {b.uid!r} are not sorted by uid" for a, b in pairwise(rows) if a.uid >= b.uid]
    if [row.index for row in rows] != list(range(len(rows))):
        wrong.append("its column 'index' does not count the rows")
    if len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0] or 0 in sizes:
        wrong.append("its shards are not of one size")
    if wrong:
        raise ManifestError(f"{name}: {message}; make it again with 'manifest shard'" for message in wrong[:20])
    return rows, sizes[0]
