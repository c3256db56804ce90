"""The samples that filters and splits select, as masks over the rows of metadata.parquet."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.table import Table

ALL, TRAIN, HELDOUT = "all", "train", "heldout"
_HELDOUT_SHARE = 0.01
_SPLIT = "split"
"""Column of the manifest's splits."""
_OPERATORS = {
    "==": pc.equal, "!=": pc.not_equal, "<": pc.less, "<=": pc.less_equal, ">": pc.greater,
    ">=": pc.greater_equal,
}  # fmt: skip

Filter = tuple[str, str, Any]
"""(column, operator, value); operators are == != < <= > >= and, with a list of values, `in` and `not in`."""
Filters = Sequence[Filter] | Sequence[Sequence[Filter]]
"""Conditions, all of which must hold; or alternatives, lists of conditions, of which one must hold."""
Mask = npt.NDArray[np.bool_]


def filtered(table: Table, filters: Filters, file: str) -> Mask:
    """The rows of metadata.parquet, the table at `file`, that pass filters.

    Raises:
        DatasetError: an unknown column or operator, a value that does not fit, or an alternative without conditions.
    """
    alternatives = _alternatives(filters)
    mask = np.full(len(table), not alternatives, np.bool_)
    for conditions in alternatives:
        passing = np.ones(len(table), np.bool_)
        for condition in conditions:
            passing &= _passes(table, condition, file)
        mask |= passing
    return mask


def in_split(table: Table, split: str, heldout: float | None, file: str) -> Mask:
    """The rows of metadata.parquet, the table at `file`, that belong to a split.

    Args:
        table, file: the rows, and the address that messages name.
        split: "all", or a split of the manifest; where it has none, one of two disjoint parts, "train" and "heldout".
            An object's part depends on its uid alone, so that it stays the same when the dataset grows.
        heldout: fraction of objects in "heldout", in [0, 1]; None = 0.01. Only where the manifest has no splits.

    Raises:
        DatasetError: no such split, or `heldout` where the manifest has splits.
    """
    if split == ALL and heldout is None:
        return np.ones(len(table), np.bool_)
    own = _own_splits(table)
    if own and heldout is not None:
        raise DatasetError(f"{file} has the manifest's own splits ({', '.join(own)}): leave heldout out")
    if heldout is not None and not 0.0 <= heldout <= 1.0:
        raise DatasetError(f"heldout is a fraction in [0, 1], got {heldout!r}")
    known = [ALL, *(own or (TRAIN, HELDOUT))]
    if split not in known:
        by = "by its column split" if own else "as its column split is empty"
        raise DatasetError(f"{file}: split {split!r} is none of {', '.join(known)}, {by}")
    if split == ALL:
        return np.ones(len(table), np.bool_)
    if own:
        return _as_mask(pc.equal(table[_SPLIT], split))
    share = _HELDOUT_SHARE if heldout is None else heldout
    held = np.array([is_heldout(uid, share) for uid in table["uid"].to_pylist()], np.bool_)
    return held if split == HELDOUT else ~held


def is_heldout(uid: str, fraction: float) -> bool:
    """Whether an object belongs to a held-out split of this fraction, by a hash of its uid."""
    word = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8], "big")
    return word < fraction * 2**64


def _own_splits(table: Table) -> list[str]:
    """The splits of the manifest, sorted."""
    if _SPLIT not in table.column_names:
        return []
    return sorted(split for split in pc.unique(table[_SPLIT]).to_pylist() if split)


def _alternatives(filters: Filters) -> list[Sequence[Filter]]:
    """Filters as alternatives; none if there are no filters."""
    if isinstance(filters, str) or not isinstance(filters, Sequence):
        raise DatasetError(f"filters {filters!r}: expected a list of (column, operator, value)")
    if not filters:
        return []
    nested = [isinstance(one, Sequence) and not isinstance(one, str) and not _is_condition(one) for one in filters]
    if not any(nested):
        return [filters]  # type: ignore[list-item]
    if not all(nested):
        raise DatasetError(f"filters {list(filters)!r}: conditions beside lists of them; put each into a list")
    if not all(filters):
        raise DatasetError(f"filters {list(filters)!r}: an alternative without conditions; leave it out")
    return list(filters)  # type: ignore[arg-type]


def _is_condition(one: Sequence[Any]) -> bool:
    """Whether this is a condition, right or wrong, and no list of conditions."""
    return len(one) > 0 and isinstance(one[0], str)


def _passes(table: Table, condition: Filter, file: str) -> Mask:
    if isinstance(condition, str) or not isinstance(condition, Sequence) or len(condition) != 3:
        raise DatasetError(f"filter {condition!r}: expected (column, operator, value)")
    name, operator, value = condition
    check_columns(table, [name], file)
    column = table[name]
    try:
        if operator in _OPERATORS:
            if value is None or (isinstance(value, float) and math.isnan(value)):
                raise DatasetError(f"filter {condition!r}: no value compares with {value}; leave it out")
            return _as_mask(_OPERATORS[operator](column, pa.scalar(value)))
        if operator in ("in", "not in") and not isinstance(value, str):
            mask = pc.is_in(column, value_set=pa.array(list(value), column.type))
            return _as_mask(pc.invert(mask) if operator == "not in" else mask)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise DatasetError(f"filter {condition!r} on a column of {column.type}: {error}") from error
    known = ", ".join([*_OPERATORS, "in [..]", "not in [..]"])
    raise DatasetError(f"filter {condition!r}: expected one of {known}")


def check_columns(table: Table, names: Iterable[Any], file: str) -> None:
    """Raise DatasetError for names that are no column of the table."""
    unknown = sorted({str(name) for name in names} - set(table.column_names))
    if unknown:
        raise DatasetError(f"{file} has no column {', '.join(unknown)}; it has {', '.join(table.column_names)}")


def _as_mask(mask: Any) -> Mask:
    return np.asarray(mask.to_numpy(), np.bool_)
