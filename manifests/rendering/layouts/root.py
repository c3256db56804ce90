"""The folder that a loader is pointed at: objects are added to it whole or not at all, then listed."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaussianverse.manifests.errors import LayoutError, ManifestError
from gaussianverse.manifests.files import locked, parse_json, read_bytes, write_whole
from gaussianverse.manifests.rendering import rig
from gaussianverse.manifests.rendering.layouts.encode import json_text
from gaussianverse.manifests.rendering.layouts.layout import Facts, Layout
from gaussianverse.manifests.rendering.layouts.points import Points
from gaussianverse.manifests.rendering.layouts.posed import Subject, Views

_MARK = "layout.json"
_PARTIAL = ".views-to-"


@dataclass(frozen=True)
class Root:
    """The root of data in one layout; several processes may add objects to it.

    Attributes:
        layout: the layout.
        path: the folder.
        points: points of each object to write beside those that the layout always has.
    """

    layout: Layout
    path: Path
    points: tuple[Points, ...] = ()

    @property
    def needs_geometry(self) -> bool:
        """Whether depth and normals of the views are written, or points made of them."""
        layout = self.layout
        return layout.depth or layout.normals or layout.maps or any(p.of_pixels for p in layout.points + self.points)

    def has(self, subject: Subject) -> bool:
        """Whether the object is there already, from equal views.

        Raises:
            LayoutError: it is there from other views or with other texts.
        """
        folder = self.path / self.layout.place(subject)
        if not folder.exists():
            return False
        there = _entries(folder / rig.FILE)
        expected = json.loads(rig.dumps(subject.rig, _facts(subject)))
        other = sorted(key for key, value in expected.items() if key in _KEPT and there.get(key) != value)
        if not {one.name for one in self._points(subject)} <= set(there.get("points", ())):
            other.append("points")
        if self.layout.maps and subject.facts.get("depth", "none") != "none" and there.get("depth") == "none":
            other.append("depth")
        if other:
            raise LayoutError(
                f"{folder}: there already, with other {', '.join(other)}; remove it, or choose another DEST"
            )
        return True

    def _points(self, subject: Subject) -> set[Points]:
        """The layout's own points, without those of a mesh that is not known, and those that are asked for."""
        return {one for one in self.layout.points if one.of_pixels or subject.surface is not None} | {*self.points}

    def add(self, subject: Subject, views: Views) -> list[str]:
        """Write an object; no loader sees any of it if this fails. Returns warnings.

        Raises:
            LayoutError: the views cannot be written in this layout.
            OSError: the folder cannot be written.
        """
        warnings = list(self.layout.check(subject, views))
        self._check_shared(subject)
        files = {one.name: one.encode(subject, views) for one in self._points(subject)}
        place = self.path / self.layout.place(subject)
        with tempfile.TemporaryDirectory(dir=self.path, prefix=_PARTIAL) as temporary:
            folder = Path(temporary) / "object"
            folder.mkdir()
            facts = self.layout.write(folder, subject, views)
            for name, data in sorted(files.items()):
                aside = self.layout.points_path(subject, name)
                if aside is None:
                    (folder / f"{name}.ply").write_bytes(data)
                else:
                    _put(self.path / aside, data)
            head = {
                **_facts(subject),
                "layout": self.layout.name,
                "normals": "none",
                **facts,
                "points": sorted(files),
            }
            (folder / rig.FILE).write_text(rig.dumps(subject.rig, head))
            folder.chmod(0o755)
            place.parent.mkdir(parents=True, exist_ok=True)
            folder.replace(place)
        return warnings

    def _check_shared(self, subject: Subject) -> None:
        first = next(self.path.glob(self.layout.found), None) if self.layout.shared else None
        if first and _entries(first)["cameras"] != json.loads(rig.dumps(subject.rig, {}))["cameras"]:
            raise LayoutError(
                f"{subject.uid} has other cameras than {first.parent.name}, and {self.layout.reader} reads one set "
                "for all objects; render all of them with one preset and a fixed --radius"
            )

    def write_index(self) -> None:
        """Write the files that list all objects that are there."""
        found = [_entries(path) for path in self.path.glob(self.layout.found)]
        for name, data in self.layout.index(self.path, sorted(found, key=lambda facts: str(facts["uid"]))).items():
            _put(self.path / name, data)


def _put(path: Path, data: bytes) -> None:
    """Write a file whole, if it does not hold these bytes. The disk is not waited for: any run writes it again."""
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)


@contextmanager
def opened(layout: Layout, path: Path, points: tuple[Points, ...] = ()) -> Iterator[Root]:
    """Open a root, new or of the same layout, for one command at a time; its index is written at the end.

    Raises:
        LayoutError: the folder holds other things.
        OSError: the folder cannot be written.
    """
    mark = json_text({"layout": layout.name, "version": 1})
    try:
        strange = not (path / _MARK).exists() and path.exists() and any(path.iterdir())
    except NotADirectoryError as error:
        raise LayoutError(f"{path}: a file, expected a folder") from error
    if strange:
        raise LayoutError(f"{path}: not empty, and no data in layout {layout.name}; choose another folder")
    with locked(path / _MARK):
        if not (path / _MARK).exists():
            write_whole(path / _MARK, mark)
        elif read_bytes(path / _MARK) != mark:
            raise LayoutError(f"{path / _MARK}: names another layout than {layout.name}; choose another folder")
        for left in path.glob(f"{_PARTIAL}*"):
            shutil.rmtree(left)
        root = Root(layout, path, points)
        yield root
        root.write_index()


def _facts(subject: Subject) -> Facts:
    return {
        **subject.facts,
        "uid": subject.uid,
        "digest": subject.digest,
        "category": subject.category,
        "captions": list(subject.captions),
        "split": subject.split,
        "license": subject.license,
        "source_id": subject.source_id,
    }


_KEPT = frozenset({
    "uid", "digest", "category", "captions", "split", "license", "source_id", "views_sha256", "preset", "version",
    "seed", "cameras", "shading", "drawing", "units", "scale", "offset",
})  # fmt: skip


def _entries(path: Path) -> dict[str, Any]:
    damaged = f"{path}: damaged; remove its folder and run the command again"
    try:
        entries = parse_json(read_bytes(path))
    except ManifestError as error:
        raise LayoutError(damaged) from error
    if not isinstance(entries, dict) or not {"uid", "cameras"} <= entries.keys():
        raise LayoutError(damaged)
    return entries
