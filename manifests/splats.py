"""Rows from a folder of 3D Gaussians, such as published GaussianVerse objects."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.schema import SPLATS, SPLATS_BGR, Row, faults_of

POINT_CLOUDS = ("point_cloud.ply", "point_cloud.npy")
"""A folder that holds one of these is an object."""


def build(
    root: Path,
    *,
    captions: Mapping[str, str] | None = None,
    caption_source: str = "",
    license: str = "",
    swap_red_blue: bool = False,
) -> list[Row]:
    """Rows for the folders below `root` that hold a point cloud and for its own .ply files, sorted by path.

    The uid is the path with "_" between its parts; `views` is relative to `root`.

    Args:
        root: the folder.
        captions: by path ("1923/9611649", as in GaussianVerse) or by uid; captions of other objects are
            ignored, since GaussianVerse has one file for all its objects.
        caption_source: source of all captions.
        license: licence of all rows.
        swap_red_blue: whether to exchange red and blue, which published fits need.

    Raises:
        ManifestError: there are no objects, or their paths cannot be uids.
    """
    known = captions or {}
    rows, faults = [], []
    for path in _objects(root):
        name = path.removesuffix(".ply")
        uid = name.replace("/", "_")
        caption = known.get(name, known.get(uid, ""))
        row = Row(
            uid=uid,
            views=path,
            format=SPLATS_BGR if swap_red_blue else SPLATS,
            license=license,
            caption=caption,
            caption_source=caption_source if caption else "",
            source_id=name,
        )
        rows.append(row)
        faults += [f"{root / path}: {fault}; rename it" for fault in faults_of(row)]
    if not rows:
        faults.append(f"{root}: no objects; expected folders with {' or '.join(POINT_CLOUDS)}, or .ply files")
    if faults:
        raise ManifestError(faults)
    return rows


def _objects(root: Path) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise ManifestError(f"{error.filename}: cannot be read: {error.strerror}") from error

    for folder, below, files in os.walk(root, onerror=refuse, followlinks=True):
        below.sort()
        relative = Path(folder).relative_to(root).as_posix()
        if relative == ".":
            yield from sorted(file for file in files if file.endswith(".ply") and file not in POINT_CLOUDS)
        if set(POINT_CLOUDS) & set(files):
            below.clear()
            yield relative
