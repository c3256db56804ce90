"""Posed images of one object, the input of a fit."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gaussianverse.atlas.os_errors import exists
from gaussianverse.fitter.errors import BadInput, MissingViews
from gaussianverse.fitter.resample import shrink_depth, shrink_rgba
from gaussianverse.fitter.sources.gobjaverse import read_gobjaverse
from gaussianverse.fitter.sources.transforms import find_transforms, read_transforms
from gaussianverse.fitter.sources.view import View

FORMATS = ("auto", "gobjaverse", "transforms")

_ROTATION_TOLERANCE = 1e-3
_SAME_POSE = 1e-6
_LARGEST = 1e12  # largest entry of a camera: products of two stay finite in float32
OPAQUE = 128
_MAX_BYTES = 4 << 30  # limit of one object's decoded images


@dataclass(frozen=True)
class Views:
    """Posed images of one object.

    Attributes:
        images: uint8 [V, H, W, 4], RGBA with straight alpha.
        c2w: float64 [V, 4, 4], OpenCV camera-to-world (x right, y down, z forward).
        Ks: float64 [V, 3, 3], in pixels; the centre of the top-left pixel is at (0.5, 0.5).
        names: V names, for errors and reports.
        depths: float32 [V, H, W] along the optical axis, NaN or 0 where empty or unknown; or None.

    Raises:
        BadInput: an array has a wrong shape or dtype; a pose is not finite, or not a right-handed rotation with a
            translation (tolerance 1e-3); a focal length is not positive; there is skew; or an entry is beyond
            1e12. The message names the view.
    """

    images: NDArray[np.uint8]
    c2w: NDArray[np.float64]
    Ks: NDArray[np.float64]
    names: tuple[str, ...]
    depths: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        V = len(self.names)
        if self.images.ndim != 4 or self.images.shape[0] != V or self.images.shape[3] != 4:
            raise BadInput(f"images have shape {self.images.shape}, expected [{V}, H, W, 4]")
        H, W = self.images.shape[1:3]
        expected = {"images": (np.uint8, (V, H, W, 4)), "c2w": (np.float64, (V, 4, 4)), "Ks": (np.float64, (V, 3, 3))}
        if self.depths is not None:
            expected["depths"] = (np.float32, (V, H, W))
        for field, (dtype, shape) in expected.items():
            array = getattr(self, field)
            if array.dtype != dtype or array.shape != shape:
                raise BadInput(f"{field}: {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}")
        if V and not (H and W):
            raise BadInput(f"images have {W} x {H} pixels, expected at least 1 x 1")
        for name, c2w, K in zip(self.names, self.c2w, self.Ks, strict=True):
            _check_camera(name, c2w, K)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def height(self) -> int:
        """Image height in pixels."""
        return int(self.images.shape[1])

    @property
    def width(self) -> int:
        """Image width in pixels."""
        return int(self.images.shape[2])

    @property
    def viewmats(self) -> NDArray[np.float64]:
        """World-to-camera matrices, float64 [V, 4, 4]."""
        return np.linalg.inv(self.c2w).astype(np.float64, copy=False)

    def __getitem__(self, index: NDArray[np.intp]) -> "Views":
        """Views at the integer positions `index` [n], in that order."""
        return Views(
            self.images[index],
            self.c2w[index],
            self.Ks[index],
            tuple(self.names[i] for i in index),
            None if self.depths is None else self.depths[index],
        )


def _check_camera(name: str, c2w: NDArray[np.float64], K: NDArray[np.float64]) -> None:
    if not (np.isfinite(c2w).all() and np.isfinite(K).all()):
        raise BadInput(f"view {name}: its pose or intrinsics have NaN or infinity; render it again or remove it")
    if max(np.abs(c2w).max(), np.abs(K).max()) > _LARGEST:
        raise BadInput(
            f"view {name}: its pose or intrinsics have numbers beyond {_LARGEST:.0e}; use a larger unit of length"
        )
    R = c2w[:3, :3]
    error = float(np.abs(R.T @ R - np.eye(3)).max())
    if error > _ROTATION_TOLERANCE or np.linalg.det(R) < 0 or (c2w[3] != (0, 0, 0, 1)).any():
        raise BadInput(
            f"view {name}: its pose is not a right-handed rotation with a translation "
            f"(det {np.linalg.det(R):+.4f}, R^T R - I up to {error:.1e}, last row {c2w[3].tolist()}); "
            "remove scale and mirroring from the camera matrix"
        )
    if K[0, 0] <= 0 or K[1, 1] <= 0 or K[0, 1] != 0 or K[1, 0] != 0 or (K[2] != (0, 0, 1)).any():
        raise BadInput(
            f"view {name}: intrinsics are {K.tolist()}, expected focal lengths > 0, skew 0, last row 0 0 1"
        )


def drop_duplicate_poses(views: Views) -> Views:
    """Keep the first of all views whose poses are equal: axes within 1e-6, positions within 1e-6 of their spread.

    GObjaverse's rings end where they start (38 of 40 views are distinct); a held-out duplicate would be seen in
    training.
    """
    poses = views.c2w[:, :3].copy()
    farthest = float(np.abs(poses[..., 3]).max(initial=0))
    poses[..., 3] -= poses[..., 3].mean(0) if len(views) else 0.0
    spread = float(np.linalg.norm(poses[..., 3], axis=1).max(initial=0))
    # cameras at one place have no spread, only rounding
    poses[..., 3] /= max(spread, min(1.0, farthest)) or 1.0
    rows = poses.reshape(len(views), 12)
    # poses that are equal within the tolerance lie in the same cell along any line, or in the next one
    line = np.random.default_rng(0).uniform(-1, 1, 12)
    cells = np.floor(rows @ line / (_SAME_POSE * np.abs(line).sum())).astype(np.int64).tolist()
    kept: list[int] = []
    in_cell: dict[int, list[int]] = {}
    for i, cell in enumerate(cells):
        near = [j for c in (cell - 1, cell, cell + 1) for j in in_cell.get(c, ())]
        if not near or (np.abs(rows[near] - rows[i]).max(axis=1) > _SAME_POSE).all():
            kept.append(i)
            in_cell.setdefault(cell, []).append(i)
    return views[np.array(kept, np.intp)]


def silhouettes(views: Views) -> Iterator[NDArray[np.bool_]]:
    """Masks [H, W] of where alpha is at least half of 255, or half of a view's maximum (glass)."""
    for image in views.images:
        alpha = image[..., 3]
        yield alpha >= min(OPAQUE, max(1.0, 0.5 * float(alpha.max())))


def split_heldout(views: Views, every: int) -> tuple[Views, Views]:
    """Split the distinct views into training and held-out views; every `every`-th is held out, 0 holds out none.

    The first view is always a training view, so training is empty only if `views` is.

    Raises:
        ValueError: `every` is 1 or negative.
    """
    if every < 0 or every == 1:
        raise ValueError(f"every is {every}, expected 0 (hold out none) or at least 2")
    distinct = drop_duplicate_poses(views)
    index = np.arange(len(distinct))
    heldout = (index + 1) % every == 0 if every else np.zeros(len(distinct), bool)
    return distinct[index[~heldout]], distinct[index[heldout]]


def resize(views: Views, size: int) -> Views:
    """Shrink views to a longer side of `size` pixels; smaller ones stay as they are.

    Colour is averaged by area, premultiplied; depth is sampled; Ks are scaled.
    """
    shrunk = [_shrink(view, size) for view in _each(views)]
    return _stack(shrunk) if shrunk else views


def load_views(
    path: str | os.PathLike[str],
    format: str = "auto",
    *,
    size: int | None = None,
    min_views: int = 1,
    with_depth: bool = False,
) -> Views:
    """Load the views of one object from disk.

    Args:
        path: "gobjaverse": a folder with or without its campos_* level, a .tar or a .tar.gz;
            "transforms": a folder, a .tar or a .tar.gz with transforms.json or transforms_train.json, or such
            a file.
        format: "gobjaverse", "transforms", or "auto" to detect which.
        size: longer side, in pixels, to which views are shrunk while reading; None keeps the size.
        min_views: least number of complete views; incomplete ones are skipped.
        with_depth: whether to read GObjaverse's `_nd.exr`. `depths` is None if no view has one, and NaN for
            single views without one.

    Raises:
        MissingViews: `path` does not exist, or has fewer than `min_views` complete views.
        BadInput: cameras or sizes are wrong, an image has no alpha, or a limit is exceeded.
        DecodeError: an image, EXR or archive is broken.
        OSError: the machine's, see `atlas.os_errors`: it says nothing about the object.
    """
    if format not in FORMATS:
        raise BadInput(f"{path}: unknown format {format!r}; expected one of {', '.join(FORMATS)}")
    root = Path(path)
    if not exists(root):
        raise MissingViews(f"{root}: no such file or folder")
    if format == "auto":
        format = "transforms" if root.suffix == ".json" or find_transforms(root) else "gobjaverse"
    found: Iterator[View]
    if format == "transforms":
        found = read_transforms(root)
    else:
        found = read_gobjaverse(root, with_depth=with_depth)
    views: list[View] = []
    for view in found:
        views.append(view if size is None else _shrink(view, size))
        if len(views) * views[0].image.nbytes > _MAX_BYTES:
            raise BadInput(f"{root}: its images take more than {_MAX_BYTES >> 30} GiB; lower size")
    if len(views) < max(min_views, 1):
        raise MissingViews(
            f"{root}: {len(views)} complete views, expected at least {max(min_views, 1)}; render or fetch the "
            "missing ones"
        )
    try:
        return _stack(views)
    except BadInput as error:
        raise BadInput(f"{root}: {error}") from error


def _each(views: Views) -> Iterator[View]:
    for i, name in enumerate(views.names):
        depth = None if views.depths is None else views.depths[i]
        yield View(name, views.images[i], views.c2w[i], views.Ks[i], depth)


def _shrink(view: View, size: int) -> View:
    if size < 1:
        raise ValueError(f"size is {size}, expected pixels > 0")
    H, W = view.image.shape[:2]
    if max(H, W) <= size:
        return view
    h, w = max(1, round(H * size / max(H, W))), max(1, round(W * size / max(H, W)))
    K = np.diag([w / W, h / H, 1.0]) @ view.K
    depth = None if view.depth is None else shrink_depth(view.depth, h, w)
    return view._replace(image=shrink_rgba(view.image, h, w), K=K, depth=depth)


def _stack(views: list[View]) -> Views:
    """Stack records of one size into `Views`."""
    H, W = views[0].image.shape[:2]
    for view in views:
        if view.image.shape[:2] != (H, W):
            h, w = view.image.shape[:2]
            raise BadInput(
                f"view {view.name} has {w} x {h} pixels, view {views[0].name} {W} x {H}; "
                "all views of an object must have the same size"
            )
    depths = None
    if any(view.depth is not None for view in views):
        unknown = np.full((H, W), np.nan, np.float32)
        depths = np.stack([unknown if view.depth is None else view.depth for view in views])
    return Views(
        np.stack([view.image for view in views]),
        np.stack([view.c2w for view in views]),
        np.stack([view.K for view in views]),
        tuple(view.name for view in views),
        depths,
    )
