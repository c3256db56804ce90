"""What a layout is, and what it demands of views."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gaussianverse.manifests.errors import LayoutError
from gaussianverse.manifests.rendering.layouts.points import Points
from gaussianverse.manifests.rendering.layouts.posed import Subject, Views

Facts = dict[str, Any]
"""Entries of the `rig.json` of an object."""

_SAME_DEGREES = 0.05


@dataclass(frozen=True)
class Wish:
    """A number that a loader takes for granted.

    Attributes:
        value: the number.
        option: the loader's option that changes it; "" if none does.
    """

    value: float
    option: str = ""


def by_uid(subject: Subject) -> str:
    """The folder of an object is its uid."""
    return subject.uid


def no_index(root: Path, found: Sequence[Facts]) -> Mapping[str, bytes]:
    """The objects are not listed."""
    return {}


def nothing_lacking(subject: Subject) -> Sequence[str]:
    """The loader finds all that it wants."""
    return ()


def no_place_for_points(subject: Subject, name: str) -> str | None:
    """The loader reads no points."""
    return None


@dataclass(frozen=True)
class Layout:
    """How one project's loader wants its data; other processes get it by pickle, so its functions have names.

    Attributes:
        name: its name on the command line.
        reader: the loader, for messages.
        format: name in manifests, if fits read the views of an object's folder; else "".
        place: folder of an object below the root of the data, '/'-separated.
        write: writes an object's files into an empty folder; returns facts for `rig.json`: the convention of the
            cameras, kinds of depth and normals, the background, and what else a reader of the folder has to know.
        found: pattern of the `rig.json` of finished objects below the root.
        index: files at the root that list the objects, by their names, from the root and the facts of its objects.
        shared: whether all objects of a root need the same cameras.
        depth: whether every view needs a depth.
        normals: whether every view needs normals.
        maps: whether depth and normals are written where they are known.
        fov: vertical angle of view that the loader takes for granted, in degrees.
        views: number of views that the loader counts on.
        exact: whether other numbers of views are refused.
        square: whether images have to be squares.
        centred: whether an angle of view has to say all of the intrinsics.
        lacking: sentences about what the loader wants of an object and will not find.
        points: points that the loader reads; those of a mesh that is not known are left out.
        points_path: where the loader looks for points, below the root, from the object and the name of the points;
            None where it has no such place, and they lie in the object's folder.
    """

    name: str
    reader: str
    place: Callable[[Subject], str]
    write: Callable[[Path, Subject, Views], Facts]
    found: str
    index: Callable[[Path, Sequence[Facts]], Mapping[str, bytes]] = no_index
    depth: bool = False
    normals: bool = False
    maps: bool = False
    format: str = ""
    fov: Wish | None = None
    views: Wish | None = None
    exact: bool = False
    square: bool = False
    centred: bool = True
    lacking: Callable[[Subject], Sequence[str]] = nothing_lacking
    shared: bool = False
    points: tuple[Points, ...] = ()
    points_path: Callable[[Subject, str], str | None] = no_place_for_points

    def check(self, subject: Subject, views: Views) -> Iterator[str]:
        """Refuse views that the layout cannot hold; yields warnings about those that its loader will misread.

        Raises:
            LayoutError: with the fault and its mend.
        """
        sizes = {(view.width, view.height) for view in views}
        if not views or len(sizes) > 1:
            raise LayoutError(f"{self.name}: views of {len(sizes)} sizes, expected one size; render them anew")
        width, height = sizes.pop()
        if self.square and width != height:
            raise LayoutError(f"{self.name}: images have {width} x {height} pixels, expected squares")
        self._check_maps(views)
        if self.centred and (odd := next((view for view in views if not view.centred), None)):
            raise LayoutError(
                f"{self.name}: view {odd.name} has a principal point off the middle, or pixels that are no squares, "
                "which this layout cannot say; use layout transforms"
            )
        yield from self._check_fov(views)
        yield from self._check_count(len(views))
        yield from self.lacking(subject)

    def _check_maps(self, views: Views) -> None:
        for kind, needed in (("depth", self.depth), ("normal", self.normals)):
            lacking = [view.name for view in views if getattr(view, kind) is None] if needed else []
            if lacking:
                raise LayoutError(
                    f"{self.name}: {len(lacking)} of {len(views)} views have no {kind}s, the first is {lacking[0]}; "
                    "render them anew: gaussianverse render writes them unless --no-geometry is given"
                )

    def _check_fov(self, views: Views) -> Iterator[str]:
        if self.fov is None:
            return
        angles = np.degrees([view.fov[1] for view in views])
        off = np.abs(angles - self.fov.value) > _SAME_DEGREES
        if not off.any():
            return
        found = float(angles[off.argmax()])
        fault = f"the angle of view is {found:.2f} degrees, and {self.reader} takes {self.fov.value:g} for granted"
        if not self.fov.option:
            raise LayoutError(f"{self.name}: {fault}; render with --fov {self.fov.value:g}")
        if np.ptp(angles) > _SAME_DEGREES:
            raise LayoutError(f"{self.name}: {fault} for all views; render with --fov {self.fov.value:g}")
        yield f"{fault}; set its {self.fov.option} to {found:.2f}, or every picture is misread without an error"

    def _check_count(self, n: int) -> Iterator[str]:
        if self.views is None or n == self.views.value or (n > self.views.value and not self.exact):
            return
        fault = f"{n} views, and {self.reader} reads {self.views.value:g}"
        if self.exact:
            raise LayoutError(f"{self.name}: {fault}; render with --preset {self.name}")
        yield f"{fault}; set its {self.views.option}" if self.views.option else fault


def folder_of(word: str) -> str:
    """A word as the name of a folder: other characters than letters, digits, & . - become _; "" becomes none."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "&.-") else "_" for c in word)
    return safe.lstrip(".") or "none"
