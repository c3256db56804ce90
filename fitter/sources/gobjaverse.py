"""Reader of GObjaverse renders: `VVVVV/VVVVV.{json,png,_nd.exr}` in a folder, a .tar or a .tar.gz.

Images may be WebP, as `VVVVV.webp` or under any of the names, or have no suffix.

The per-view JSON has `x`, `y`, `z`, `origin`, the columns of an OpenCV camera-to-world matrix in a z-up world, and
`x_fov`, `y_fov` in radians. Its other entries (bbox, scale, offset) are ignored.
"""

import errno
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaussianverse.atlas.canonical_json import json_object
from gaussianverse.atlas.os_errors import is_file, is_folder
from gaussianverse.fitter.cameras import check_not_swapped
from gaussianverse.fitter.config import InputsConfig
from gaussianverse.fitter.errors import BadInput, FitError, MissingViews
from gaussianverse.fitter.sources.exr import read_geometry
from gaussianverse.fitter.sources.files import MAX_IMAGE_BYTES, MAX_JSON_BYTES, Archive, Folder, InputDigest
from gaussianverse.fitter.sources.image import decode_rgba
from gaussianverse.fitter.sources.numbers import focal_length, number, numbers
from gaussianverse.fitter.sources.unread import Unread, unread
from gaussianverse.fitter.sources.view import View

log = logging.getLogger(__name__)

_JSON, _IMAGES, _DEPTH = ".json", (".png", ".webp", ""), "_nd.exr"
_MEMBER = re.compile(r"(?:(?P<level>.*)/)?(?P<view>[0-9]{1,9})/(?P=view)(?P<kind>\.json|\.png|\.webp||_nd\.exr)")
_MEMBER_NO_DEPTH = re.compile(r".*[0-9](\.json|\.png|\.webp|)")  # skips the large depth maps
_LAYOUT = "VVVVV/VVVVV.json with VVVVV/VVVVV.png, optionally below one campos_* folder"

_INPUTS = InputsConfig()
_Read = Callable[..., bytes]


def read_gobjaverse(
    path: Path,
    digest: InputDigest,
    *,
    with_depth: bool = False,
    with_normals: bool = False,
    compared: int = 0,
    inputs: InputsConfig = _INPUTS,
) -> Iterator[View | Unread]:
    """Yield the views of one object in the order of their numbers, also those that cannot be used.

    With `with_depth`, a view without `_nd.exr` has depth None; with `with_normals` too, the normals come beside it.
    `compared` views, evenly spaced among those with an `_nd.exr`, have their geometry; where depth is not asked for,
    one that cannot be decoded costs only that. `digest` takes the bytes of the files as they are read, but not of
    those that are only compared: what is fitted does not depend on them.

    Raises:
        MissingViews: there are no views.
        BadInput: there are several sets of views, or two views have the same number.
        DecodeError: an archive is broken.
    """
    level, kinds, read = (
        _list_folder(path, digest) if is_folder(path) else _list_tar(path, digest, with_depth or compared > 0)
    )
    ordered = sorted(kinds, key=int)
    compare = _spaced([view for view in ordered if _DEPTH in kinds[view]], compared)
    for view in ordered:
        suffix = next((suffix for suffix in _IMAGES if suffix in kinds[view]), None)
        if suffix is None or _JSON not in kinds[view]:
            lacking = ["JSON"] * (_JSON not in kinds[view]) + ["PNG"] * (suffix is None)
            yield Unread(view, f"view {view}", " and ".join(f"no {kind}" for kind in lacking))
            continue
        try:
            stem = f"{level}{view}/{view}"
            one = _read_view(view, stem, suffix, read, inputs)
            if _DEPTH in kinds[view] and (with_depth or view in compare):
                geometry = _geometry(one, stem, read, needed=with_depth)
                one = _with_geometry(one, geometry, with_depth, with_normals, view in compare)
            found: View | Unread = one
        except FitError as error:
            found = unread(view, f"view {view}", error, path)
        yield found


def files_read(names: Iterable[str], *, with_depth: bool, compared: int) -> list[str]:
    """Those of the files of a folder, '/'-separated and relative to it, that `read_gobjaverse` would read.

    Where it would refuse them as several sets of views, these are all that belong to views.
    """
    views: dict[str, dict[str, set[str]]] = {}
    known: list[tuple[str, str, str, str]] = []
    for name in names:
        match = _MEMBER.fullmatch(name)
        level = "" if match is None or match["level"] is None else match["level"]
        if match is None or (level and ("/" in level or not level.startswith("campos_"))):
            continue
        known.append((name, level, match["view"], match["kind"]))
        views.setdefault(level, {}).setdefault(match["view"], set()).add(match["kind"])
    if len(views) != 1:
        return [name for name, *_ in known]
    (kinds,) = views.values()
    deep = sorted((view for view in kinds if _DEPTH in kinds[view]), key=int)
    drawn = set(deep) if with_depth else _spaced(deep, compared)
    wanted = {(view, _JSON) for view in kinds} | {(view, _DEPTH) for view in drawn}
    wanted |= {(view, next(s for s in _IMAGES if s in kinds[view])) for view in kinds if kinds[view] & {*_IMAGES}}
    return [name for name, _, view, kind in known if (view, kind) in wanted]


def _spaced(views: Sequence[str], count: int) -> set[str]:
    """At most `count` of the views, evenly spaced, from the first."""
    return {views[len(views) * i // count] for i in range(count)} if views else set()


def _read_view(view: str, stem: str, suffix: str, read: _Read, inputs: InputsConfig) -> View:
    where = f"view {view}"
    camera = json_object(read(f"{stem}.json", MAX_JSON_BYTES), BadInput, where)
    image = decode_rgba(read(f"{stem}{suffix}", MAX_IMAGE_BYTES), where, inputs.orientation)
    height, width = image.shape[:2]
    K = _intrinsics(camera, width, height, where)
    if inputs.sizes == "refuse":
        check_not_swapped(K, width, height, where)
    return View(view, image, _camera_to_world(camera, where), K)


def _geometry(view: View, stem: str, read: _Read, *, needed: bool) -> NDArray[np.float32] | None:
    """Normals and depth of a view; None if they cannot be decoded and nothing needs them."""
    where = f"view {view.name}"
    try:
        geometry = read_geometry(read(f"{stem}{_DEPTH}", MAX_IMAGE_BYTES, counted=needed), where)
        (height, width), expected = geometry.shape[:2], view.image.shape[:2]
        if (height, width) != expected:
            raise BadInput(
                f"{where}: depth has {width} x {height} pixels, expected {expected[1]} x {expected[0]} as the image"
            )
    except FitError as error:
        if needed:
            raise
        log.warning("%s; its depth and normals are not compared", error)
        return None
    return geometry


def _with_geometry(
    view: View, geometry: NDArray[np.float32] | None, with_depth: bool, with_normals: bool, compare: bool
) -> View:
    """The view with what is wanted of its geometry, in copies where the rest shall be freed."""
    if geometry is None:
        return view
    if with_depth:
        view = view._replace(depth=geometry[..., 3].copy(), normal=geometry[..., :3].copy() if with_normals else None)
    return view._replace(geometry=geometry) if compare else view


def _list_folder(root: Path, digest: InputDigest) -> tuple[str, dict[str, set[str]], _Read]:
    """The folder of the views ("" or "campos_512_v4/"), {view: kinds of file}, and a function that reads them."""
    bases = [root, *sorted(d for d in root.iterdir() if d.name.startswith("campos_") and is_folder(d))]
    names = [
        f"{base.relative_to(root) / entry.name / entry.name}{kind}"
        for base in bases
        for entry in base.iterdir()
        if entry.name.isascii() and entry.name.isdigit()
        for kind in _kinds_in(entry)
    ]
    return *_group(root, names), Folder(root, digest).read


def _kinds_in(folder: Path) -> list[str]:
    """The kinds of file that the folder of a view has; none if it is no folder, or a link that leads nowhere.

    Raises:
        OSError: the machine's; ESTALE if the folder, which was listed a moment ago, is gone, as on a share that is.
    """
    kinds = [kind for kind in (_JSON, _IMAGES[0], _DEPTH) if is_file(folder / f"{folder.name}{kind}")]
    if _IMAGES[0] not in kinds:
        kinds += [kind for kind in _IMAGES[1:] if is_file(folder / f"{folder.name}{kind}")]
    if not os.path.lexists(folder):
        raise OSError(errno.ESTALE, "vanished while it was read", str(folder))
    return kinds


def _list_tar(path: Path, digest: InputDigest, with_depth: bool) -> tuple[str, dict[str, set[str]], _Read]:
    archive = Archive(path, _MEMBER if with_depth else _MEMBER_NO_DEPTH, digest)
    return *_group(path, [name for name in archive.members if _MEMBER.fullmatch(name)]), archive.read


def _group(path: Path, names: list[str]) -> tuple[str, dict[str, set[str]]]:
    levels: dict[str, dict[str, set[str]]] = {}
    for name in names:
        match = _MEMBER.fullmatch(name)
        assert match is not None, name
        level = "" if match["level"] is None else match["level"] + "/"
        levels.setdefault(level, {}).setdefault(match["view"], set()).add(match["kind"])
    if not levels:
        raise MissingViews(f"{path}: no views; expected {_LAYOUT}")
    if len(levels) > 1:
        raise BadInput(f"{path}: several sets of views ({', '.join(sorted(levels))}); give the path of one")
    level, kinds = levels.popitem()
    first: dict[int, str] = {}
    for view in kinds:
        if first.setdefault(int(view), view) != view:
            raise BadInput(f"{path}: views {first[int(view)]} and {view} have the same number; remove one")
    return level, kinds


def _entry(camera: dict[str, Any], key: str, where: str) -> Any:
    if key not in camera:
        raise BadInput(f"{where}: the JSON has no {key!r}; expected x, y, z, origin, x_fov, y_fov")
    return camera[key]


def _camera_to_world(camera: dict[str, Any], where: str) -> NDArray[np.float64]:
    c2w = np.eye(4)
    columns = ("x", "y", "z", "origin")
    c2w[:3] = np.stack([numbers(_entry(camera, key, where), (3,), where, key) for key in columns], axis=1)
    return c2w


def _intrinsics(camera: dict[str, Any], width: int, height: int, where: str) -> NDArray[np.float64]:
    fov_x, fov_y = (number(_entry(camera, key, where), where, key) for key in ("x_fov", "y_fov"))
    for key, fov in (("x_fov", fov_x), ("y_fov", fov_y)):
        if not 0 < fov < np.pi:
            raise BadInput(f"{where}: {key} is {fov}, expected radians in (0, pi)")
    fx, fy = focal_length(fov_x, width), focal_length(fov_y, height)
    return np.array([[fx, 0, width / 2], [0, fy, height / 2], [0, 0, 1]])
