"""Manifests in Parquet as people have them, from pandas for example: any order, any further columns."""

import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.schema import LISTS, TEXTS
from gaussianverse.manifests.table import Entry

_BATCH = 4096
UNREADABLE = (OSError, pa.ArrowException, UnicodeDecodeError)
"""Errors of pyarrow about bytes that are no Parquet file, or a damaged one: names and texts are decoded late."""


def entries(data: bytes, name: str) -> Iterator[Entry]:
    """Yield the rows of a Parquet file, numbered from 1. A null is a value that is not there.

    Raises:
        ManifestError: it is no Parquet file, or a column has a type that a manifest cannot hold.
    """
    try:
        with pq.ParquetFile(io.BytesIO(data)) as file:
            names = columns_of(file.schema_arrow)
            number = 0
            for batch in file.iter_batches(_BATCH, columns=names, use_threads=False):
                for values in batch.to_pylist():
                    number += 1
                    yield number, entry(values)
    except UNREADABLE as error:
        raise ManifestError(f"{name}: cannot be read as Parquet: {' '.join(str(error).split())}") from error


def columns_of(schema: pa.Schema) -> list[str]:
    """Names of the columns that are read: not the index that pandas adds, nor that of a run form.

    Raises:
        ManifestError: a column has a type that a manifest cannot hold, or two have the same name.
    """
    faults, names = [], []
    for column in schema:
        if column.name.startswith("__index_level_") or column.name in ("index", "fault"):
            continue
        names.append(column.name)
        kind = column.type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        item = kind.value_type if is_list and column.name in LISTS else kind
        if not (
            pa.types.is_string(item)
            or pa.types.is_large_string(item)
            or pa.types.is_null(item)
            or (column.name not in (*TEXTS, *LISTS) and _is_scalar(item))
        ):
            faults.append(
                f"column {column.name!r} has the type {column.type}; a manifest holds texts, integers, numbers and "
                "truth values, and lists of texts as captions. Leave it out or change its type"
            )
    if len(names) != len(set(names)):
        faults.append("two columns have the same name; rename one")
    if faults:
        raise ManifestError(faults)
    return names


def _is_scalar(kind: pa.DataType) -> bool:
    return bool(pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind))


def entry(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a row that are there."""
    kept = {name: value for name, value in values.items() if value is not None}
    # NaN is how pandas writes that a number is not there
    return {name: value for name, value in kept.items() if not (isinstance(value, float) and value != value)}
