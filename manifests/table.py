"""The one checker of manifests: entries of any authoring form become rows, and faults with their lines."""

import json
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.schema import KINDS, Row, Scalar, faults_of, row_from

_UNKNOWN: dict[str, Scalar] = {"text": "", "integer": -1, "number": -1.0, "truth": False}


class Line(NamedTuple):
    """A row and the number of its line, from 1."""

    number: int
    row: Row


class Fault(NamedTuple):
    """A fault of one line; line 0 means the whole file."""

    number: int
    message: str


Entry = tuple[int, Mapping[str, Any] | ManifestError]
"""Number of a line, and its values by their keys, or the error in reading them."""


@dataclass(frozen=True)
class Rules:
    """Rules of one manifest beside those that hold for all.

    Attributes:
        defaults: {column of the author: value where a row lacks it}.
        sources: prefixes that `views` must lie under; empty trusts the author.
        base: folder or s3 prefix that relative `views` are relative to; needed with `sources`.
    """

    defaults: Mapping[str, Scalar] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    base: str = ""


NO_RULES = Rules()


@dataclass(frozen=True)
class Checked:
    """A manifest that was read.

    Attributes:
        lines: rows whose keys and types are right; their values may have faults.
        faults: all faults.
        extras: {column of the author: one of `KINDS`}.
    """

    lines: list[Line]
    faults: list[Fault]
    extras: dict[str, str]

    @property
    def hopeless(self) -> bool:
        """Whether the whole file has a fault, or no row is without one."""
        bad = {fault.number for fault in self.faults}
        return 0 in bad or bad >= {line.number for line in self.lines}

    def rows(self) -> list[Row]:
        """The rows to build, one per line: those with a fault stand as rows that have nothing but their fault."""
        bad: dict[int, list[str]] = {}
        for fault in self.faults:
            bad.setdefault(fault.number, []).append(fault.message)
        good = [line.row for line in self.lines if line.number not in bad]
        named = {line.number: line.row.uid for line in self.lines}
        return [*good, *stand_ins(bad, named, {row.uid for row in good}, self.extras).values()]


def stand_ins(
    faults: Mapping[int, list[str]], named: Mapping[int, str], taken: set[str], kinds: Mapping[str, str]
) -> dict[int, Row]:
    """The rows that stand for those with faults, by their lines.

    Args:
        faults: the faults of each row, by its line.
        named: uids of rows by their lines.
        taken: uids of other rows; those of the new ones are added.
        kinds: {column of the author: its kind}.
    """
    extras = {name: _UNKNOWN[kind] for name, kind in kinds.items()}
    rows = {}
    for number, messages in sorted(faults.items()):
        uid = named.get(number, "")
        if uid in taken or faults_of(Row(uid=uid, views="none")):
            uid = f"bad-line-{number}"
        while uid in taken:
            uid += "_"
        taken.add(uid)
        fault = _closed(f"line {number}: {'; '.join(messages)}")
        rows[number] = Row(uid=uid, views="", extras=extras, fault=fault)
    return rows


def checked(entries: Iterable[Entry], rules: Rules = NO_RULES) -> Checked:
    """Check the entries of a manifest: keys, types, values, uids that occur twice, columns of the author."""
    lines: list[Line] = []
    faults: list[Fault] = []
    first: dict[str, tuple[int, str]] = {}
    for number, entry in entries:
        row, messages = judged(entry, rules)
        faults += [Fault(number, message) for message in messages]
        if row is None:
            continue
        lines.append(Line(number, row))
        if text := duplicate_of(number, row.uid, first):
            faults.append(Fault(number, text))
    if not lines and not faults:
        faults.append(Fault(0, "the manifest is empty; it needs one object a line"))
    kinds = kinds_of(line.row for line in lines)
    faults += faults_of_extras(lines, kinds)
    return Checked([Line(n, with_kinds(row, kinds)) for n, row in lines], faults, kinds)


def judged(entry: Mapping[str, Any] | ManifestError, rules: Rules) -> tuple[Row | None, list[str]]:
    """The row of an entry, None if its keys or types are wrong, and the faults that it has by itself."""
    try:
        if isinstance(entry, ManifestError):
            raise entry
        row = row_from(entry)
    except ManifestError as error:
        return None, list(error.faults)
    row = replace(row, extras={**rules.defaults, **row.extras})
    return row, [*faults_of(row), *_foreign(row, rules)]


def duplicate_of(number: int, uid: str, first: dict[str, tuple[int, str]]) -> str:
    """The fault of a row whose uid an earlier one has, or one that differs in case only; "" if there is none.

    Args:
        number: its line.
        uid: its uid.
        first: line and uid of the first row of each uid in small letters, to which this one is added.
    """
    there, other = first.setdefault(uid.lower(), (number, uid))
    if there == number:
        return ""
    if other == uid:
        return f"duplicate uid {uid!r}, first on line {there}"
    return f"uid {uid!r} and {other!r} on line {there} differ in case only; some file systems hold one of both"


def kinds_of(rows: Iterable[Row]) -> dict[str, str]:
    """{column of the author: its kind} of the columns that more than half of the rows have.

    The kind is that of most values, and "number" where integers and numbers are mixed: a slip of the pen in one row
    is that row's fault, and not that of all others.
    """
    count, found = 0, dict[str, Counter[str]]()
    for count, row in enumerate(rows, start=1):  # noqa: B007
        for name, value in row.extras.items():
            found.setdefault(name, Counter())[kind_of(value)] += 1
    return kinds_from(found, count)


def kinds_from(found: Mapping[str, Counter[str]], count: int) -> dict[str, str]:
    """`kinds_of` of `count` rows, from how many have a value of each kind in each column of the author."""
    kinds = {}
    for name, counts in sorted(found.items()):
        if 2 * counts.total() > count:
            numbers = {"integer", "number"} <= {kind for kind, rows in counts.items() if rows}
            most = counts.most_common(1)[0][0]
            kinds[name] = "number" if numbers and most == "integer" else most
    return kinds


def kind_of(value: Scalar) -> str:
    """The kind of a value, one of `KINDS`."""
    return next(name for name, kind in KINDS.items() if type(value) is kind)


def with_kinds(row: Row, kinds: Mapping[str, str]) -> Row:
    """The row with its extras in order, integers as numbers in columns of numbers."""
    extras = {
        name: float(row.extras[name]) if kind == "number" and type(row.extras[name]) is int else row.extras[name]
        for name, kind in kinds.items()
        if name in row.extras
    }
    return replace(row, extras=extras)


def faults_of_extras(lines: Iterable[Line], kinds: Mapping[str, str]) -> Iterator[Fault]:
    """The faults of the columns of the author that rows have, by the kinds of the whole manifest."""
    for number, row in lines:
        for name in sorted(set(row.extras) - set(kinds)):
            yield Fault(
                number,
                f"unknown key {name!r}, which most rows do not have; if it is your own column, give it to all rows, "
                f"or --default {name}=VALUE",
            )
        for name, kind in kinds.items():
            if name not in row.extras:
                yield Fault(number, f"no {name!r}, which other rows have; give it, or --default {name}=VALUE for all")
            elif (found := kind_of(row.extras[name])) != kind and (found, kind) != ("integer", "number"):
                yield Fault(number, f"{name!r} is {found}, {kind} in other rows; a column has one type")


def _foreign(row: Row, rules: Rules) -> list[str]:
    if not rules.sources or any(_below(row.views, source, rules.base) for source in rules.sources):
        return []
    return [f"views {row.views[:200]!r} lie under none of the sources {', '.join(rules.sources)}"]


def _below(views: str, source: str, base: str) -> bool:
    """Whether `views` is the prefix `source` or lies below it, part by part of the path."""
    address, prefix = (_plain(where, base) for where in (views, source))
    return address == prefix or address.startswith(prefix.rstrip("/") + "/")


def _plain(where: str, base: str) -> str:
    if "://" not in where and not where.startswith("/"):
        where = f"{base.rstrip('/')}/{where}"
    scheme, slashes, path = where.rpartition("://")
    return scheme + slashes + posixpath.normpath(path)


def parse_default(text: str) -> tuple[str, Scalar]:
    """The column and the value of NAME=VALUE; the value is JSON, or else a text.

    Raises:
        ManifestError: it has another form.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ManifestError(f"--default {text!r}: expected NAME=VALUE")
    try:
        parsed: Any = json.loads(value)
    except ValueError:
        parsed = value
    entries: dict[str, Any] = {"uid": "a", "views": "v", name: parsed}
    row = row_from(entries)
    if name not in row.extras or faults_of(row):
        raise ManifestError(f"--default {text!r}: {'; '.join(faults_of(row)) or 'not a column of your own'}")
    return name, row.extras[name]


def _closed(text: str) -> str:
    """One printable line of at most 400 characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= 400 else line[:397] + "..."
