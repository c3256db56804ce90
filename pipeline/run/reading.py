"""Reads an object's views and, when that fails, tells the object's faults from those of the machine or the store.

What is missing is the object's fault only if something beside it is seen at that moment: a share that is not mounted
looks like objects without views. What cannot be read may become the object's fault only if others beside it can.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.os_errors import describe, is_absence, is_machines, mend_of
from gaussianverse.atlas.store import is_s3
from gaussianverse.atlas.store.errors import NotFound, StoreError
from gaussianverse.fitter.errors import DecodeError, FitError, MissingViews
from gaussianverse.fitter.sources.selection import Selection
from gaussianverse.fitter.views import Views
from gaussianverse.pipeline.errors import PipelineError
from gaussianverse.pipeline.run import inputs
from gaussianverse.pipeline.run.executor import Job

_SIBLINGS = 50


class Unreachable(PipelineError):
    """Views cannot be read, nor any beside them: the store or the machine fails."""


class Unread(PipelineError):
    """An object's views cannot be read, while others beside them can."""


@contextmanager
def local_views(
    job: Job,
    views: str,
    beside: Sequence[str],
    load: Callable[[Path], object] | None = None,
    selection: Selection | None = None,
) -> Iterator[Path]:
    """Yield an object's `views` as a local path; errors name them as the manifest does.

    Args:
        job: its store, and the base of relative addresses.
        views: address in the manifest.
        beside: addresses of other objects.
        load: reads an object's views, as proof that others can be read; None = a byte of them is proof enough.
        selection: the files that are read of a folder in a store; None = all.

    Raises:
        FitError, AtlasError, inputs.NoViews, inputs.InputTooLarge: the object's fault.
        Unread: see there.
        Unreachable, inputs.NoRoom: the machine's or the store's fault.
    """
    address = inputs.resolve(views, job.base)
    others = [inputs.resolve(other, job.base) for other in beside]
    place = address
    try:
        with inputs.local(address, job.store, selection, job.scratch) as path:
            place = str(path)
            yield path
    except (FitError, AtlasError) as error:
        if isinstance(error, MissingViews) or _is_gone(address):
            _check_presence(job, views, address, others, without_place(str(error), place, views))
            if not isinstance(error, MissingViews):
                raise MissingViews(without_place(f"{place}: no such file or folder", place, views)) from error
        raise type(error)(without_place(str(error), place, views)) from error
    except inputs.NoViews as error:
        _check_presence(job, views, address, others, str(error))
        raise inputs.NoViews(without_place(str(error), address, views)) from error
    except inputs.InputTooLarge as error:
        raise inputs.InputTooLarge(without_place(str(error), address, views)) from error
    except (OSError, StoreError, NotFound) as error:
        text = without_place(without_place(_text(error, place), place, views), address, views)
        # a key that is not there is not listed; one that is listed and cannot be read is the store's doing
        if is_absence(error):
            _check_presence(job, views, address, others, text)
            raise MissingViews(text) from error
        if isinstance(error, OSError) and not is_machines(error):
            raise
        if any(_can_be_read(other, job, load, selection) for other in _nearest(address, others)):
            raise Unread(f"{text}, while others beside it can be read; fetch or render it again") from error
        mend = mend_of(error) if isinstance(error, OSError) else "check the store"
        raise Unreachable(f"{_text(error, '')}; nothing beside it can be read: {mend}") from error


def _can_be_read(address: str, job: Job, load: Callable[[Path], object] | None, selection: Selection | None) -> bool:
    if not inputs.readable(address, job.store):
        return False
    try:
        with inputs.local(address, job.store, selection) as path:
            if load is not None:
                load(path)
    except (FitError, AtlasError, PipelineError, OSError, StoreError, NotFound):
        return False
    return True


def settled(load: Callable[[], Views]) -> Views:
    """Load an object's views, and again if some were missing or broken: a share may come and go between two files.

    Raises:
        OSError: ESTALE, other views are missing now.
        FitError: as `load` raises the second time.
    """
    try:
        views = load()
    except (MissingViews, DecodeError):
        return load()
    if views.skipped and load().skipped != views.skipped:
        raise OSError(errno.ESTALE, "views come and go")
    return views


def without_place(text: str, path: str, views: str) -> str:
    """Text of an error that calls `path` as the manifest does, or leaves it out if that is a place of a machine."""
    if views.startswith("/"):
        return text.replace(f"{path}: ", "").replace(f"{path}/", "").replace(path, "the views")
    return text.replace(path, views)


def _text(error: Exception, place: str) -> str:
    if not isinstance(error, OSError):
        return str(error)
    return f"{error.filename or place}: {describe(error)}"


def _is_gone(address: str) -> bool:
    """Whether there is nothing any more where views lie locally."""
    if is_s3(address):
        return False
    try:
        os.stat(address)
    except (OSError, ValueError):
        return True
    return False


def _check_presence(job: Job, views: str, address: str, others: Sequence[str], text: str) -> None:
    """Return if an object without (enough) views is missing from a place that is there.

    Raises:
        Unreachable: nothing beside it is seen either.
    """
    store = job.store
    if is_s3(address):
        seen = not others or any(inputs.readable(other, store) for other in others)
    else:
        seen = _is_present(Path(address), [other for other in others if not is_s3(other)], job)
    if not seen:
        parent = address.rstrip("/").rpartition("/")[0] or "/"
        raise Unreachable(
            f"{parent}: neither {views} nor anything beside it is there ({text}); mount the share, or correct the "
            "addresses in the manifest"
        )


def _is_present(path: Path, others: Iterable[str], job: Job) -> bool:
    """Whether the place is there that local views should lie in."""
    if inputs.readable(str(path), job.store):
        return True
    try:
        above = next(folder for folder in path.parents if os.path.isdir(folder))
        missing = above / path.relative_to(above).parts[0]
        if missing != path and os.path.lexists(missing):
            return False  # a link to a folder that is gone
        near = [other for other in others if Path(other).is_relative_to(above)]
        if near or above != path.parent:
            return any(inputs.readable(other, job.store) for other in near)
        # the only object of its folder: others like it may lie there
        with os.scandir(above) as entries:
            siblings = [Path(entry.path) for entry in itertools.islice(entries, _SIBLINGS)]
    except (OSError, StopIteration, ValueError):
        return False
    return any(s != path and s.suffix == path.suffix and inputs.readable(str(s), job.store) for s in siblings)


def _nearest(address: str, others: Iterable[str]) -> list[str]:
    """Those of `others` that share the most folders with `address`."""
    shared = {other: _shared(_folders(address), _folders(other)) for other in others}
    most = max(shared.values(), default=0)
    return [other for other, count in shared.items() if count == most]


def _shared(one: list[str], other: list[str]) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _folders(address: str) -> list[str]:
    return address.rstrip("/").split("/")[:-1]
