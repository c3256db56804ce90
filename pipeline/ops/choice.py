"""`Choice`: the objects of a dataset that a part has, by conditions, splits, lists and draws by hashes."""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gaussianverse.atlas.reader.catalogue import Catalogue
from gaussianverse.atlas.reader.selecting import ALL, Filter
from gaussianverse.atlas.reader.table import Rows
from gaussianverse.pipeline.errors import UsageError

DEBUG = 20
"""Objects of a debug subset."""

_FILTER = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:(==|=|!=|<=|>=|<|>)|\s(not\s+in|in)\s)(.*)", re.DOTALL)
_FORM = (
    "expected COLUMN OPERATOR VALUE with == != < <= > >=, or COLUMN in VALUE,VALUE: "
    "'psnr>=30', 'category == Food', 'license not in CC-BY-NC-4.0,CC-BY-NC-SA-4.0'"
)


@dataclass(frozen=True)
class Choice:
    """Objects of a dataset: those that pass everything, and of these as many as are drawn.

    Attributes:
        filters: conditions as texts, see `parse_filter`; all must hold.
        split: "all", or a split, see `selecting.in_split`.
        uids: only these objects; None = any.
        per_category: at most this many of each category; None = all.
        count: at most this many; None = all.
        seed: seed of the draws.
    """

    filters: tuple[str, ...] = ()
    split: str = ALL
    uids: tuple[str, ...] | None = None
    per_category: int | None = None
    count: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, number in (("per-category", self.per_category), ("objects", self.count)):
            if number is not None and number < 1:
                raise UsageError(f"--{name} {number}: expected at least 1")

    def places(self, catalogue: Catalogue) -> Rows:
        """The places of the objects in the catalogue, ascending.

        Raises:
            UsageError: a filter has another form, or a value that is none of its column's type.
            DatasetError: an unknown column, split or uid (with its reason, if it was quarantined), or none passes.
        """
        filters = [parse_filter(text, catalogue) for text in self.filters]
        chosen = catalogue.select(filters, self.split, uids=self.uids)
        if self.per_category:
            category = catalogue.column("category")
            groups: dict[str, list[int]] = {}
            for place in chosen.tolist():
                groups.setdefault(category[place].as_py(), []).append(place)
            drawn = [self._drawn(catalogue, group, self.per_category) for _, group in sorted(groups.items())]
            chosen = np.concatenate(drawn)
        return self._drawn(catalogue, chosen.tolist(), self.count) if self.count else np.sort(chosen)

    def words(self) -> list[str]:
        """What was asked for, in a few words each."""
        said = [" ".join(text.split()) for text in self.filters]
        said += [f"split {self.split}"] if self.split != ALL else []
        said += [f"a list of {len(self.uids)} uids"] if self.uids is not None else []
        of = f"drawn with seed {self.seed}"
        said += [f"at most {self.per_category} of each category, {of}"] if self.per_category else []
        return said + ([f"at most {self.count} objects, {of}"] if self.count else [])

    def _drawn(self, catalogue: Catalogue, places: Sequence[int], count: int) -> Rows:
        """`count` of the places, by hashes of seed and uid: a dataset that grew gives most of the same objects."""
        words = [hashlib.sha256(f"{self.seed}/{uid}".encode()).digest() for uid in catalogue.uids(places)]
        ranked = sorted(range(len(places)), key=words.__getitem__)[:count]
        return np.sort(np.array([places[k] for k in ranked], np.int64))


def parse_filter(text: str, catalogue: Catalogue) -> Filter:
    """The condition of a text such as "psnr>=30" or "license in CC0-1.0,CC-BY-4.0".

    A value is of its column's type. In a list, values with commas stand in double quotes.

    Raises:
        UsageError: another form, or no value of the column's type.
        DatasetError: an unknown column.
    """
    match = _FILTER.fullmatch(text)
    if not match:
        raise UsageError(f"filter {text!r}: {_FORM}")
    name, compared, listed, rest = match.groups()
    catalogue.check_columns([name])
    kind = _kind_of(catalogue.column(name), text)
    operator = " ".join(listed.split()) if listed else {"=": "=="}.get(compared, compared)
    if not listed:
        return name, operator, _value(rest.strip(), kind, text)
    try:
        values = next(csv.reader([rest.strip()], skipinitialspace=True, strict=True), [])
    except csv.Error as error:
        raise UsageError(f"filter {text!r}: {error}; values with commas stand in double quotes") from error
    if not values or not all(value.strip() for value in values):
        raise UsageError(f"filter {text!r}: {_FORM}")
    return name, operator, [_value(value.strip(), kind, text) for value in values]


def _kind_of(column: Any, whole: str) -> type:
    if isinstance(column, np.ndarray):
        return int if column.dtype.kind in "iu" else float
    if pa.types.is_list(column.type):
        raise UsageError(f"filter {whole!r}: a column of lists, which conditions do not compare")
    return bool if pa.types.is_boolean(column.type) else str


def _value(text: str, kind: type, whole: str) -> Any:
    if kind is str:
        quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
        return text[1:-1] if quoted else text
    if kind is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise UsageError(f"filter {whole!r}: {text!r} is neither true nor false")
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"filter {whole!r}: {text!r} is no number, and the column is one of numbers") from error


def read_uids(path: Path) -> list[str]:
    """The uids of a text file, one on each line; blank lines are left out.

    Raises:
        UsageError: the file cannot be read, or holds no uid.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--uids {path}: cannot be read: {error}") from error
    uids = [line.strip() for line in lines if line.strip()]
    if not uids:
        raise UsageError(f"--uids {path}: no uids")
    return uids


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose objects."""
    group = parser.add_argument_group("objects", "those of a finished dataset that pass all of these")
    group.add_argument("--uids", dest="uids_file", type=Path, metavar="FILE", help="text file, one uid on each line")
    group.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="CONDITION",
        help="on a column of metadata.parquet, such as 'psnr>=30' or 'license in CC0-1.0,CC-BY-4.0'; again for more",
    )
    group.add_argument(
        "--split", default=ALL, help="train, val or test of the manifest; train or heldout if it has none"
    )
    group.add_argument("--per-category", type=int, metavar="N", help="draw at most N of each category")
    group.add_argument("--objects", type=int, metavar="N", help="draw at most N")
    group.add_argument("--debug", action="store_true", help=f"draw {DEBUG}, to try things with")
    group.add_argument("--seed", type=int, default=0, help="seed of the draws")


def choice_of(args: argparse.Namespace, uids: Sequence[str]) -> Choice:
    """The choice that the options, and uids on the command line, make; raises UsageError."""
    if args.debug and args.objects is not None:
        raise UsageError(f"--debug draws {DEBUG} objects: leave out --objects {args.objects}, or --debug")
    listed = [*uids, *(read_uids(args.uids_file) if args.uids_file else [])]
    return Choice(
        filters=tuple(args.filter),
        split=args.split,
        uids=tuple(dict.fromkeys(listed)) or None,
        per_category=args.per_category,
        count=DEBUG if args.debug else args.objects,
        seed=args.seed,
    )
