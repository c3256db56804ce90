"""`Plan`: the changes that make the next version of a dataset, from the rows that count and what is given.

A plan is a function of its inputs: the same command plans the same again, and so goes on where it was killed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gaussianverse.manifests.columns import Columns, constant
from gaussianverse.manifests.schema import ARROW, FIELDS, LISTS, SPLATS, SPLATS_BGR, Scalar, arrow_schema
from gaussianverse.manifests.table import kind_of
from gaussianverse.pipeline.dataset.live_rows import LiveRows
from gaussianverse.pipeline.errors import PipelineError

UNCHANGED, ADDED, REFITTED, CORRECTED = range(4)
CHANGES = ("unchanged", "added", "refitted", "corrected")
"""Names of the four."""
_MADE_OF = ("views", "format")
"""Columns by which an object is another: the rest are facts about it."""
_NAMED = 5
_SLICE = 1 << 16
"""Rows that are compared at a time."""

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Refit:
    """Fits that are made again.

    Attributes:
        fit_digest: digest of the settings of the fits; rows of the new manifest with another are fitted again.
        code_digest: digest of the code, likewise; "" = of any code.
        as_splats: digests of the configurations that read Gaussians alike; rows of Gaussians with another are read
            again.
    """

    fit_digest: str
    code_digest: str = ""
    as_splats: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Difference:
    """A change of one object, and the columns that differ, each with its values before and after."""

    uid: str
    change: str
    columns: dict[str, tuple[Any, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The changes of a version; see `plan_of`.

    Attributes:
        live: the rows that count in the parent.
        new: rows of the new manifest; None if none was given.
        kinds: {column of the author: its kind} of the version.
        place: of each new row, the row of `live` of the same object; -1 = there is none.
        change: of each new row, one of `UNCHANGED`, `ADDED`, `REFITTED`, `CORRECTED`.
        retried: of each new row, whether its object was quarantined and is tried again.
        again: rows of `live` that are made again as they are.
        carried: rows of `live` beside the new ones that get another set of columns.
        removed: rows of `live` that are taken out.
        masks: {column: whether it differs in a new row}, of columns that differ anywhere.
        defaults: {column of the author: value of the rows that are carried}.
    """

    live: LiveRows
    new: Columns | None
    kinds: dict[str, str]
    place: Places
    change: NDArray[np.int8]
    retried: NDArray[np.bool_]
    again: Places
    carried: Places
    removed: Places
    masks: dict[str, NDArray[np.bool_]]
    defaults: Mapping[str, Scalar]

    @property
    def counts(self) -> dict[str, int]:
        """Number of objects by what becomes of them."""
        added, refitted, corrected = (int((self.change == k).sum()) for k in (ADDED, REFITTED, CORRECTED))
        found = {
            "added": added,
            "refitted": refitted + len(self.again),
            "corrected": corrected + len(self.carried),
            "removed": len(self.removed),
        }
        return {**found, "unchanged": len(self.live) - sum(list(found.values())[1:])}

    @property
    def columns(self) -> dict[str, int]:
        """{column: number of objects in which it differs}."""
        there = {name for name, _ in self.live.extras}
        found = {name: int(mask.sum()) for name, mask in self.masks.items()}
        for name in (*(n for n in self.kinds if n not in there), *(n for n in there if n not in self.kinds)):
            found[name] = found.get(name, 0) + len(self.carried)
        return {name: count for name, count in sorted(found.items()) if count}

    @property
    def leaving(self) -> tuple[Places, Places, Places]:
        """Rows of `live` that stop to count: removed, made again, and corrected."""
        made, facts = (self.place[self.change == k] for k in (REFITTED, CORRECTED))
        return self.removed, np.concatenate([made, self.again]), np.concatenate([facts, self.carried])

    def differences(self, most: int) -> list[Difference]:
        """The first changes, with the values of the columns that differ."""
        found: list[Difference] = []
        if self.new is not None:
            uids = self.new.column("uid")
            rows = np.flatnonzero(self.change != UNCHANGED)[:most]
            found = [Difference(uids[int(row)].as_py(), CHANGES[self.change[row]]) for row in rows]
            for name, mask in self.masks.items():
                if mask[rows].any():
                    before, after = self._before(name, self.place[rows]), self._after(name, rows)
                    for k in np.flatnonzero(mask[rows]):
                        found[k].columns[name] = (before[k], after[k])
        for places, change in ((self.again, "refitted"), (self.carried, "corrected"), (self.removed, "removed")):
            found += [Difference(self.live.uid[int(k)].as_py(), change) for k in places[: most - len(found)]]
        return found[:most]

    def _before(self, name: str, places: Places) -> list[Any]:
        if not self.live.has(name):
            return [None] * len(places)
        column = self.live.column(name)
        return [column[int(k)].as_py() if k >= 0 else None for k in places]

    def _after(self, name: str, rows: Places) -> list[Any]:
        if self.new is None or not (name in FIELDS or name in self.kinds):
            return [None] * len(rows)
        column = self.new.column(name)
        return [column[int(k)].as_py() for k in rows]

    def rows(self, first_index: int) -> pa.Table:
        """The rows of the new shards in run form, sorted by uid and counted from `first_index`."""
        schema, order = arrow_schema(self.kinds), self._order()
        columns = [
            pa.chunked_array([np.arange(first_index, first_index + len(order))])
            if name == "index"
            else self._column(name).take(order).cast(schema.field(name).type)
            for name in schema.names
        ]
        return pa.Table.from_arrays(columns, schema=schema)

    def origins(self) -> pa.Table:
        """Rows of origins.parquet, in the order of `rows`."""
        chosen = self.change != UNCHANGED
        place, change = self.place[chosen], self.change[chosen]
        from_place = np.where((change == CORRECTED) & ~self.retried[chosen], place, -1)
        places = np.concatenate([from_place, np.full(len(self.again), -1), self.carried]).astype(np.int64)
        changes = [CHANGES[k] for k in change] + ["refitted"] * len(self.again) + ["corrected"] * len(self.carried)
        shards = np.where(places >= 0, self.live.shard[places], -1) if len(self.live) else places
        order = self._order()
        uids = self._column("uid").take(order)
        kept = pa.array(changes, pa.string()).take(order)
        return pa.table([uids, kept, pa.array(shards).take(order)], schema=ORIGINS)

    def _column(self, name: str) -> pa.ChunkedArray:
        """A column of the rows of the new shards, before they are sorted."""
        parts: list[pa.ChunkedArray] = []
        kind = ARROW[self.kinds[name]] if name in self.kinds else None
        if self.new is not None:
            chosen = pa.array(self.change != UNCHANGED)
            column = constant("", "text", len(self.new)) if name == "fault" else self.new.column(name)
            parts.append(column.filter(chosen))
        if len(self.again) or len(self.carried):
            places = np.concatenate([self.again, self.carried])
            if self.live.has(name):
                parts.append(self.live.column(name).take(pa.array(places)))
            else:
                parts.append(constant(self.defaults[name], self.kinds[name], len(places)))
        kind = kind or (pa.list_(pa.string()) if name in LISTS else pa.string())
        chunks = [chunk.cast(kind) for part in parts for chunk in part.chunks]
        return pa.chunked_array(chunks, type=kind)

    def _order(self) -> pa.Array:
        return pc.sort_indices(self._column("uid"))


ORIGINS = pa.schema([("uid", pa.string()), ("change", pa.string()), ("shard", pa.int64())])
"""Schema of origins.parquet: what became of the object, and the shard that its sample is taken over from, -1 if it is
made of its views."""


def plan_of(
    live: LiveRows,
    new: Columns | None,
    *,
    remove: Sequence[str] = (),
    again: Places | None = None,
    refit: Refit | None = None,
    defaults: Mapping[str, Scalar] | None = None,
) -> Plan:
    """Compare a new manifest with the rows that count.

    Args:
        live: rows that count.
        new: rows to add, and rows that replace those of the same objects; others stay.
        remove: objects to take out.
        again: rows of `live` that are made again as they are.
        refit: makes those fits of new rows again that have other digests.
        defaults: {column of the author: value of the rows that lack it}.

    Raises:
        PipelineError: an object to remove is not there, or is among the new rows; uids differ in case only; columns
            of the author do not fit together; or no row would be left.
    """
    defaults = defaults or {}
    count = 0 if new is None else len(new)
    none = np.zeros(0, np.int64)
    place = none if new is None else live.positions(new.column("uid"))
    removed = _removed(live, place, remove)
    others = np.ones(len(live), np.bool_)
    others[place[place >= 0]] = False
    others[removed] = False
    kinds = _kinds(live, new, int(others.sum()), defaults)
    there = {name: kind for name, kind in live.extras}
    apart = {name for name in {*there, *kinds} if there.get(name) != kinds.get(name)}
    masks = {} if new is None else dict(_differing(live, new, place, kinds))
    change = np.where(place < 0, ADDED, UNCHANGED).astype(np.int8)
    facts = np.zeros(count, np.bool_)
    for name, mask in masks.items():
        if name not in (*_MADE_OF, *apart):
            facts |= mask
    change[(facts | bool(apart)) & (place >= 0)] = CORRECTED
    for name in _MADE_OF:
        if name in masks:
            change[masks[name]] = REFITTED
    if refit is not None and new is not None:
        change[_other_fits(live, place, refit)] = REFITTED
    if new is not None:
        _check_case(live, new, place, removed)
    retried = np.zeros(count, np.bool_)
    if (change == CORRECTED).any():
        retried = (change == CORRECTED) & facts & live.quarantined[place]
    carried = np.flatnonzero(others) if apart else none
    again = none if again is None else again
    if not (len(live) - len(removed) + int((place < 0).sum())):
        raise PipelineError("nothing would be left: a version needs at least one object; delete the output instead")
    made = (change == ADDED).any() or (change == REFITTED).any() or retried.any() or len(again)
    if len(removed) and not made and np.delete(live.quarantined, removed).all():
        raise PipelineError(
            "no sample would be left: all objects that stay are quarantined; keep one, or delete the output instead"
        )
    return Plan(live, new, kinds, place, change, retried, again, carried, removed, masks, defaults)


def _removed(live: LiveRows, place: Places, remove: Sequence[str]) -> Places:
    if not remove:
        return np.zeros(0, np.int64)
    uids = pa.chunked_array([pa.array(list(dict.fromkeys(remove)), pa.string())])
    places = live.positions(uids)
    if (places < 0).any():
        raise PipelineError(_listed(uids.filter(pa.array(places < 0)), "to remove that this version does not have"))
    if (both := np.isin(places, place)).any():
        raise PipelineError(_listed(uids.filter(pa.array(both)), "both to remove and in the manifest"))
    return np.sort(places)


def _listed(uids: pa.ChunkedArray, what: str) -> str:
    named = ", ".join(map(repr, uids[:_NAMED].to_pylist()))
    return f"{len(uids)} object{'s' if len(uids) > 1 else ''} {what}: {named}{', ..' if len(uids) > _NAMED else ''}"


def _kinds(live: LiveRows, new: Columns | None, others: int, defaults: Mapping[str, Scalar]) -> dict[str, str]:
    """Columns of the author in the version: one schema for all of its rows.

    Args:
        live: rows that count.
        new: the new rows.
        others: number of rows that count, are not removed and not among the new ones.
        defaults: values of rows that lack a column.
    """
    there = dict(live.extras)
    given = {**there, **{n: kind_of(v) for n, v in defaults.items() if n not in there}} if new is None else new.kinds
    kinds = {
        name: "number" if (kind, there.get(name)) == ("integer", "number") else kind for name, kind in given.items()
    }
    for name in sorted({*there, *kinds}):
        if there.get(name) == kinds.get(name) or not others:
            continue
        if name not in kinds:
            raise PipelineError(
                f"column {name!r} of the dataset is not in the manifest, which lacks {others} of its objects: give "
                f"the column, or --default {name}=VALUE; a manifest of all objects may leave it out"
            )
        if name in there:
            raise PipelineError(
                f"column {name!r} is {kinds[name]} in the manifest, {there[name]} in the dataset, and the manifest "
                f"lacks {others} of its objects; a column has one type"
            )
        if name not in defaults:
            raise PipelineError(
                f"column {name!r} is new, and the manifest lacks {others} objects of the dataset: give all of them, "
                f"or --default {name}=VALUE"
            )
        if (found := kind_of(defaults[name])) != kinds[name] and (found, kinds[name]) != ("integer", "number"):
            raise PipelineError(
                f"--default {name} is {found}, column {name!r} of the manifest is {kinds[name]}; a column has one "
                "type"
            )
    return dict(sorted(kinds.items()))


def _differing(
    live: LiveRows, new: Columns, place: Places, kinds: Mapping[str, str]
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield each column that differs in a row of both, and in which of the new rows."""
    both = place >= 0
    there = dict(live.extras)
    for name in (*FIELDS[1:], *sorted({*there, *kinds})):
        mask = np.zeros(len(place), np.bool_)
        if name not in FIELDS and (name not in there or name not in kinds or there[name] != kinds[name]):
            mask[both] = True
        else:
            before, after = live.column(name), new.column(name)
            for start in range(0, len(place), _SLICE):
                own = slice(start, start + _SLICE)
                chosen = both[own]
                old, fresh = before.take(pa.array(place[own][chosen])), after[own].filter(pa.array(chosen))
                mask[own][chosen] = _unequal(old, fresh, name, kinds)
            del before, after
        pa.default_memory_pool().release_unused()  # of a column of long texts most is not needed for the next
        if mask.any():
            yield name, mask


def _unequal(
    before: pa.ChunkedArray, after: pa.ChunkedArray, name: str, kinds: Mapping[str, str]
) -> NDArray[np.bool_]:
    if name in LISTS:
        lengths = [pc.list_value_length(column) for column in (before, after)]
        # no text of a manifest has this character
        texts = [pc.binary_join(column, "\x1f") for column in (before, after)]
        return _truths(pc.or_(pc.not_equal(*lengths), pc.not_equal(*texts)))
    if name in kinds:
        after = after.cast(ARROW[kinds[name]])
    return _truths(pc.not_equal(before, after))


def _truths(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(column.combine_chunks().to_numpy(zero_copy_only=False), np.bool_)


def _other_fits(live: LiveRows, place: Places, refit: Refit) -> NDArray[np.bool_]:
    other = _truths(pc.not_equal(live.known("fit_digest"), refit.fit_digest))
    read = pc.is_in(live.column("format"), value_set=pa.array([SPLATS, SPLATS_BGR]))
    alike = pc.is_in(live.known("config_digest"), value_set=pa.array(sorted(refit.as_splats), pa.string()))
    other |= _truths(read) & ~_truths(alike)
    if refit.code_digest:
        other |= _truths(pc.not_equal(live.known("code_digest"), refit.code_digest))
    return (place >= 0) & other[place]


def _check_case(live: LiveRows, new: Columns, place: Places, removed: Places) -> None:
    added = new.column("uid").filter(pa.array(place < 0))
    if not len(added):
        return
    lower = pc.ascii_lower(added)
    found = pc.index_in(lower, value_set=pc.ascii_lower(live.uid).combine_chunks())
    clashes = np.flatnonzero(_truths(pc.is_valid(found)))
    for row in clashes:
        other = int(found[int(row)].as_py())
        if other not in removed:
            raise PipelineError(
                f"uid {added[int(row)].as_py()!r} and {live.uid[other].as_py()!r} of the dataset differ in case "
                "only; some file systems hold one of both"
            )


def quarantined(live: LiveRows, reasons: frozenset[str]) -> Places:
    """Rows of objects that are quarantined for one of these reasons; empty = for any."""
    lost = live.quarantined
    if reasons:
        lost = lost & _truths(pc.is_in(live.known("reason"), value_set=pa.array(sorted(reasons), pa.string())))
    return np.flatnonzero(lost)
