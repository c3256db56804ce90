"""Views that cannot be used: which and why, in sentences that name no place of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gaussianverse.fitter.errors import BadInput, FitError, MissingViews
from gaussianverse.fitter.sources.view import View

_LISTED = 40  # views that a summary names; a quarter of 160
_NAME, _CAUSE = 120, 300  # characters


class Unread(NamedTuple):
    """A view that cannot be used.

    Attributes:
        name: its name in the source, or its number.
        where: the view in the words of its format, for errors: "view 00012", "transforms.json: frame 3 (r_3)".
        cause: why, a closed sentence: the fault, then perhaps a semicolon and the mend.
        error: type of the error that it raised; None if its files are absent, which is common and no fault.
    """

    name: str
    where: str
    cause: str
    error: type[FitError] | None = None

    @property
    def summary(self) -> str:
        """Name and fault, without the mend."""
        return f"{self.name}: {self.cause.split(';')[0]}"


def unread(name: str, where: str, error: FitError, root: Path) -> Unread:
    """Make an `Unread` of the error of one view in `root`."""
    return Unread(name, where, printable(relative(str(error), root).removeprefix(f"{where}: "), _CAUSE), type(error))


def relative(text: str, root: Path) -> str:
    """Text of an error in which files are named relative to `root`, the views' folder or archive."""
    places = [str(root.absolute()), *([str(root)] if len(root.parts) > 1 else [])]
    for place in places:
        text = text.replace(f"{place}/", "").replace(f"{place}: ", "").replace(place, root.name)
    return text.removeprefix(f"{root}: ")


def printable(text: str, limit: int = _NAME) -> str:
    """Text from an untrusted file, short and on one line."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[: limit + 1])
    return plain if len(plain) <= limit else f"{plain[:limit]}.."


def summaries(found: Sequence[Unread]) -> tuple[str, ...]:
    """One sentence per view, for the row of its object; the last counts those beyond a limit."""
    named = tuple(one.summary for one in found[:_LISTED])
    return named if len(found) <= _LISTED else (*named, f"and {len(found) - _LISTED} more")


def check_enough(found: Sequence[Unread], usable: int, max_bad_views: float, min_views: int) -> None:
    """Decide whether the usable views will do without those that were found wanting.

    Args:
        found: views that cannot be used.
        usable: number of the others.
        max_bad_views: largest share of broken views among those whose files exist.
        min_views: least number of usable views.

    Raises:
        FitError: too many are broken; of the type that the first of them raised.
        MissingViews: fewer than `min_views` are usable.
    """
    bad = [one for one in found if one.error is not None]
    if len(bad) > max_bad_views * (len(bad) + usable) + 1e-9:
        first, others = bad[0], [one.summary for one in bad[1:3]]
        if len(bad) > 3:
            others.append(f"and {len(bad) - 3} more")
        counted = f"{len(bad)} of {len(bad) + usable} views cannot be used (fit.max_bad_views is {max_bad_views:g})"
        assert first.error is not None
        raise first.error("; ".join([f"{counted}: {first.where}: {first.cause}", *others]))
    if usable < min_views:
        lacking = f" ({'; '.join(summaries(found)[:3])})" if found else ""
        raise MissingViews(
            f"{usable} complete views, expected at least {min_views}{lacking}; render or fetch the missing ones"
        )


def of_one_size(views: list[View], given: list[tuple[int, ...]]) -> tuple[list[View], list[Unread]]:
    """Keep the views of the most common size, of two the first; the others are odd. `given`: sizes in the files."""
    sizes = [view.image.shape[:2] for view in views]
    if len(set(sizes)) < 2:
        return views, []
    common = max(dict.fromkeys(sizes), key=sizes.count)
    first = sizes.index(common)
    as_most = f"view {views[first].name} {given[first][1]} x {given[first][0]}"
    odd = []
    for view, size, (h, w) in zip(views, sizes, given, strict=True):
        if size != common:
            cause = f"has {w} x {h} pixels, {as_most}; all views of an object must have the same size"
            odd.append(Unread(view.name, f"view {view.name}", cause, BadInput))
    return [view for view, size in zip(views, sizes, strict=True) if size == common], odd
