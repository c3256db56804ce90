"""Match of the objects of a manifest with the rows of a file, by keys."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.keys import FORMS, SOURCE, UID, Names, canonical

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Match:
    """The rows of a file that belong to each object.

    Attributes:
        keys: the file's different keys, texts [K].
        rows: numbers of the file's rows, ordered by key.
        starts: [K + 1], where in `rows` those of each key begin.
        key_of: for each object, the number of its key; -1 if the file does not name it.
    """

    keys: pa.Array
    rows: Ints
    starts: Ints
    key_of: Ints

    @property
    def matched(self) -> int:
        """Number of objects that the file names."""
        return int((self.key_of >= 0).sum())

    @property
    def strange(self) -> list[str]:
        """The file's keys that name no object."""
        used = np.zeros(len(self.keys), np.bool_)
        used[self.key_of[self.key_of >= 0]] = True
        found: list[str] = self.keys.filter(pa.array(~used)).to_pylist()
        return found

    def single(self, start: int, stop: int) -> Ints:
        """For each of the objects `start` to `stop` the row that names it, the first of several; -1 if none does."""
        keys = self.key_of[start:stop]
        rows: Ints = np.where(keys >= 0, self.rows[self.starts[np.maximum(keys, 0)]], -1)
        return rows

    def of(self, start: int, stop: int) -> tuple[Ints, Ints]:
        """The rows of the objects `start` to `stop`, one object after the other, and how many each has."""
        keys = self.key_of[start:stop]
        counts = np.where(keys >= 0, self.starts[keys + 1] - self.starts[keys], 0)
        before = np.repeat(np.cumsum(counts) - counts, counts)
        within = np.arange(len(before)) - before
        return self.rows[np.repeat(self.starts[keys], counts) + within], counts


def match(names: Names, keys: pa.ChunkedArray, path: Path, left: str = "", *, several: bool = False) -> Match:
    """Match objects with the rows of a file.

    Args:
        names: the objects' names, see `keys.names_of`; further columns by their own names.
        keys: the file's key column.
        path: of the file, for errors.
        left: which of the objects' names the keys are; "" asks for all in turn: uid, source_id, and those of `FORMS`.
        several: whether several rows may have one key.

    Raises:
        ManifestError: a row has no key, a key is not unique, or two keys name one object.
    """
    if not (pa.types.is_string(keys.type) or pa.types.is_integer(keys.type)):
        raise ManifestError(
            f"{path}: the keys have the type {keys.type}, expected texts or integers; --on names them"
        )
    if keys.null_count:
        row = pc.index(pc.is_null(keys), True).as_py() + 1
        raise ManifestError(f"{path}: row {row} has no key")
    raw = keys.cast(pa.string()).combine_chunks()
    encoded = pc.dictionary_encode(canonical(raw) if left in ("", *FORMS) else raw)
    codes = np.asarray(encoded.indices).astype(np.int64)
    rows = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[rows], np.arange(len(encoded.dictionary) + 1)).astype(np.int64)
    if not several and (twice := np.flatnonzero(np.diff(starts) > 1)).size:
        first = rows[starts[twice[0]] :][:2]
        raise ManifestError(
            f"{path}: the key {raw[int(first[0])].as_py()!r} is not unique: rows {first[0] + 1} and {first[1] + 1}"
            + (f", and {len(twice) - 1} more keys" if len(twice) > 1 else "")
            + "; only captions may come in several rows"
        )
    key_of = np.full(len(names[UID]), -1, np.int64)
    for name in [left] if left else [UID, SOURCE, *FORMS]:
        known = raw if name not in FORMS else encoded.dictionary
        at = pc.index_in(names[name], known, skip_nulls=True).fill_null(-1)
        found = np.asarray(at).astype(np.int64)
        if name not in FORMS and len(codes):
            found = np.where(found >= 0, codes[found], -1)
        contrary = (found >= 0) & (key_of >= 0) & (found != key_of)
        if contrary.any():
            k = int(np.flatnonzero(contrary)[0])
            one, other = (encoded.dictionary[int(at[k])].as_py() for at in (key_of, found))
            raise ManifestError(f"{path}: {one!r} and {other!r} both name the object {names[UID][k].as_py()!r}")
        key_of = np.where(key_of >= 0, key_of, found)
    return Match(encoded.dictionary, rows, starts, key_of)
