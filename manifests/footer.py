"""Footers of Parquet files of very many row groups, taken apart and put together without parsing them whole.

Arrow takes about 13 kB of memory for each row group of a footer that it reads, and 25 kB for one that it writes: for
40,000 shards half a gigabyte, and a whole one. Here the entries of the row groups stay bytes, about 1 kB each, and
Arrow is handed the footer of the few groups that are read or written at a time.

A footer is the struct FileMetaData of parquet.thrift in Thrift's compact protocol: a field is a byte of its type and
the step from the field before it, then its value; integers are zigzag numbers in groups of 7 bits.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MAGIC = b"PAR1"
_END = 8  # the footer's length and the magic
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12)
_NUM_ROWS, _ROW_GROUPS = 3, 4  # fields of FileMetaData
_OFFSET = "offset"
_PLACES = {  # fields of RowGroup: of its columns the offset and those of the pages, its own offset
    1: {2: _OFFSET, 3: {9: _OFFSET, 10: _OFFSET, 11: _OFFSET}},
    5: _OFFSET,
}


class BadFooter(ValueError):
    """The bytes are no footer of a Parquet file."""


@dataclass(frozen=True)
class Footer:
    """A footer in pieces.

    Attributes:
        before: bytes before the number of rows.
        rows: number of rows.
        between: bytes between the number of rows and the list of row groups.
        entries: entries of the row groups.
        ends: where each entry begins in `entries`, and where the last one ends.
        after: bytes after the list.
    """

    before: bytes
    rows: int
    between: bytes
    entries: bytes
    ends: array[int]
    after: bytes

    def __len__(self) -> int:
        return len(self.ends) - 1


def length_of(end: bytes) -> int:
    """Length of a footer, from the last `_END` bytes of its file. Raises BadFooter."""
    if len(end) != _END or end[4:] != MAGIC:
        raise BadFooter("it does not end as a Parquet file does")
    return int.from_bytes(end[:4], "little")


def parse(data: bytes) -> Footer:
    """Take a footer apart. Raises BadFooter."""
    number, rows, entries = -1, (0, 0), (0, 0)
    ends = array("q", [0])
    field = at = 0
    try:
        while data[at]:
            field, kind, at = _field(data, at, field)
            if field == _NUM_ROWS:
                number, stop = _number(data, at)
                rows = (at, stop)
            if field == _ROW_GROUPS:
                start, (count, first) = at, _list_of(data, at)
                at = first
                for _ in range(count):
                    at = _after(data, at, _STRUCT)
                    ends.append(at - first)
                entries = (start, first)
                break
            at = _after(data, at, kind)
    except (IndexError, RecursionError) as error:
        raise BadFooter("its footer is damaged") from error
    if number < 0 or not entries[1]:
        raise BadFooter("its footer has no rows or no row groups")
    start, first = entries
    return Footer(data[: rows[0]], number >> 1, data[rows[1] : start], data[first:at], ends, data[at:])


def joined(like: Footer, rows: int, entries: Iterable[bytes], count: int) -> Iterator[bytes]:
    """Yield the end of a Parquet file in pieces: a footer of these row groups, its length, the magic.

    Args:
        like: a footer of the same columns.
        rows: number of rows of all groups.
        entries: their entries, `count` of them together.
        count: number of groups.
    """
    size = bytes([count << 4 | _STRUCT]) if count < 15 else bytes([15 << 4 | _STRUCT]) + _varint(count)
    length = 0
    for piece in (like.before, _varint(rows << 1), like.between, size, *entries, like.after):
        length += len(piece)
        yield piece
    yield length.to_bytes(4, "little") + MAGIC


def moved(entry: bytes, by: int) -> bytes:
    """The entry of a row group whose bytes lie `by` bytes further on."""
    found: list[int] = []
    _find(entry, 0, _PLACES, found)
    pieces, done = list[bytes](), 0
    for start in found:
        number, stop = _number(entry, start)
        if number:  # 0: it is not known
            pieces += entry[done:start], _varint(number + (by << 1))
            done = stop
    return b"".join((*pieces, entry[done:]))


def _find(data: bytes, at: int, wanted: Mapping[int, Any], found: list[int]) -> int:
    """Append the places of the wanted fields of a struct, and of structs in it; returns where it ends."""
    field = 0
    while data[at]:
        field, kind, at = _field(data, at, field)
        inner = wanted.get(field)
        if inner == _OFFSET:
            found.append(at)
        if not isinstance(inner, Mapping):
            at = _after(data, at, kind)
        elif kind == _STRUCT:
            at = _find(data, at, inner, found)
        else:
            count, at = _list_of(data, at)
            for _ in range(count):
                at = _find(data, at, inner, found)
    return at + 1


def _field(data: bytes, at: int, last: int) -> tuple[int, int, int]:
    """Number, type and place of the value of the field that begins here, after the field `last`."""
    head = data[at]
    if head > 15:
        return last + (head >> 4), head & 15, at + 1
    number, at = _number(data, at + 1)
    return number >> 1, head & 15, at


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number in groups of 7 bits, as it is, and where it ends."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7


def _list_of(data: bytes, at: int) -> tuple[int, int]:
    """Number of the structs of a list, and where the first one begins."""
    head = data[at]
    if head & 15 != _STRUCT:
        raise BadFooter("its footer has a list of another type")
    return (head >> 4, at + 1) if head >> 4 < 15 else _number(data, at + 1)


def _after(data: bytes, at: int, kind: int) -> int:
    """Where a value ends."""
    if kind in (_I64, _I32, _I16):
        while data[at] > 127:
            at += 1
        return at + 1
    if kind == _STRUCT:
        while head := data[at]:
            at += 1
            if head < 16:
                at = _after(data, at, _I16)
            kind = head & 15
            if kind in (_I64, _I32, _I16):  # most fields; a call would take as long again
                while data[at] > 127:
                    at += 1
                at += 1
            else:
                at = _after(data, at, kind)
        return at + 1
    if kind == _BINARY:
        size, at = _number(data, at)
        return at + size
    if kind in (_TRUE, _FALSE):
        return at
    if kind in (_LIST, _SET):
        head = data[at]
        count, at = (head >> 4, at + 1) if head >> 4 < 15 else _number(data, at + 1)
        if head & 15 in (_TRUE, _FALSE):
            return at + count
        for _ in range(count):
            at = _after(data, at, head & 15)
        return at
    if kind == _BYTE:
        return at + 1
    if kind == _DOUBLE:
        return at + 8
    raise BadFooter(f"its footer has a value of the unknown type {kind}")


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)
