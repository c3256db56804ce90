"""Posed images of one object, the input of a fit."""

import functools
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaussianverse.atlas.os_errors import exists, is_file, is_folder
from gaussianverse.fitter.alpha import RimColors, straight
from gaussianverse.fitter.cameras import check_camera, check_lens, distinct_poses
from gaussianverse.fitter.config import InputsConfig
from gaussianverse.fitter.errors import BadInput, FitError, MissingViews
from gaussianverse.fitter.resample import shrink_depth, shrink_rgba
from gaussianverse.fitter.sources.chunks import Chunks
from gaussianverse.fitter.sources.files import InputDigest
from gaussianverse.fitter.sources.gobjaverse import read_gobjaverse
from gaussianverse.fitter.sources.transforms import find_transforms, read_transforms
from gaussianverse.fitter.sources.unread import Unread, check_enough, of_one_size, relative, summaries, unread
from gaussianverse.fitter.sources.view import View
from gaussianverse.fitter.surface import SurfaceAgreement

log = logging.getLogger(__name__)

_INPUTS = InputsConfig()
FORMATS = ("auto", "gobjaverse", "transforms")

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
        skipped: sentences about the object's views that are not among these, as "00003: no PNG".
        input_sha256: over the files that they were read from, in order; "" if they come from no files.
        test: bool [V], True for views of the data's own test split; None if none are.
        normals: float32 [V, H, W, 3] in the world, NaN where empty or unknown; or None.
        normal_agreement: see `SurfaceAgreement.normals`, of those views that were compared while they were read.
        mask_agreement: see `SurfaceAgreement.masks`, of the same.

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
    skipped: tuple[str, ...] = ()
    input_sha256: str = ""
    test: NDArray[np.bool_] | None = None
    normals: NDArray[np.float32] | None = None
    normal_agreement: float = -1.0
    mask_agreement: float = -1.0

    def __post_init__(self) -> None:
        V = len(self.names)
        if self.images.ndim != 4 or self.images.shape[0] != V or self.images.shape[3] != 4:
            raise BadInput(f"images have shape {self.images.shape}, expected [{V}, H, W, 4]")
        H, W = self.images.shape[1:3]
        expected: dict[str, tuple[Any, tuple[int, ...]]] = {
            "images": (np.uint8, (V, H, W, 4)),
            "c2w": (np.float64, (V, 4, 4)),
            "Ks": (np.float64, (V, 3, 3)),
        }
        if self.depths is not None:
            expected["depths"] = (np.float32, (V, H, W))
        if self.test is not None:
            expected["test"] = (np.bool_, (V,))
        if self.normals is not None:
            expected["normals"] = (np.float32, (V, H, W, 3))
        for field, (dtype, shape) in expected.items():
            array = getattr(self, field)
            if array.dtype != dtype or array.shape != shape:
                raise BadInput(f"{field}: {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}")
        if V and not (H and W):
            raise BadInput(f"images have {W} x {H} pixels, expected at least 1 x 1")
        for name, c2w, K in zip(self.names, self.c2w, self.Ks, strict=True):
            try:
                check_camera(c2w, K)
            except BadInput as error:
                raise BadInput(f"view {name}: {error}") from error

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
        """Views at the integer positions `index` [n], in that order; itself, without a copy, if these are all."""
        if np.array_equal(index, np.arange(len(self))):
            return self
        return replace(
            self,
            images=self.images[index],
            c2w=self.c2w[index],
            Ks=self.Ks[index],
            names=tuple(self.names[i] for i in index),
            depths=None if self.depths is None else self.depths[index],
            test=None if self.test is None else self.test[index],
            normals=None if self.normals is None else self.normals[index],
        )


def drop_duplicate_poses(views: Views) -> Views:
    """Keep the first of all views whose poses are equal: axes within 1e-6, positions within 1e-6 of their spread.

    GObjaverse's rings end where they start (38 of 40 views are distinct); a held-out duplicate would be seen in
    training.
    """
    return views[distinct_poses(views.c2w)]


def silhouettes(views: Views) -> Iterator[NDArray[np.bool_]]:
    """Masks [H, W] of where alpha is at least half of 255, or half of a view's maximum (glass)."""
    return map(silhouette, views.images)


def silhouette(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Mask [H, W] of one image [H, W, 4], as `silhouettes`."""
    alpha = image[..., 3]
    mask: NDArray[np.bool_] = alpha >= min(OPAQUE, max(1.0, 0.5 * float(alpha.max())))
    return mask


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


def split_test(views: Views) -> tuple[Views, Views]:
    """Split the distinct views into those that are fitted and those of the data's own test split.

    A pose that both have is a training view's.
    """
    test = np.zeros(len(views), bool) if views.test is None else views.test
    ordered = views[np.argsort(test, kind="stable")]  # training views first, since the first of equal poses is kept
    distinct = drop_duplicate_poses(ordered)
    heldout = np.zeros(len(distinct), bool) if distinct.test is None else distinct.test
    return distinct[np.flatnonzero(~heldout)], distinct[np.flatnonzero(heldout)]


def resize(views: Views, size: int) -> Views:
    """Shrink views to a longer side of `size` pixels; smaller ones stay as they are.

    Colour is averaged by area, premultiplied; depth is sampled; Ks are scaled.
    """
    if not len(views) or max(views.height, views.width) <= size:
        return views
    chunks = Chunks()
    shrunk = [view._replace(image=chunks.keep(view.image)) for view in (_shrink(one, size) for one in _each(views))]
    return replace(
        _stack(shrunk),
        skipped=views.skipped,
        input_sha256=views.input_sha256,
        normal_agreement=views.normal_agreement,
        mask_agreement=views.mask_agreement,
    )


def load_views(
    path: str | os.PathLike[str],
    format: str = "auto",
    *,
    size: int | None = None,
    min_views: int = 1,
    with_depth: bool = False,
    max_bad_views: float = 0.25,
    inputs: InputsConfig = _INPUTS,
    with_test: bool = False,
    with_normals: bool = False,
    compared_views: int = 0,
) -> Views:
    """Load the views of one object from disk.

    Args:
        path: "gobjaverse": a folder with or without its campos_* level, a .tar or a .tar.gz;
            "transforms": a folder, a .tar or a .tar.gz with transforms.json or transforms_train.json, or such
            a file. Other splits than the training one are left out.
        format: "gobjaverse", "transforms", or "auto" to detect which.
        size: longer side, in pixels, to which views are shrunk while reading; None keeps the size.
        min_views: least number of complete views; incomplete ones are left out and named in `skipped`.
        with_depth: whether to read GObjaverse's `_nd.exr`. `depths` is None if no view has one, and NaN for
            single views without one.
        with_normals: whether, `with_depth`, to read the normals beside the depth.
        max_bad_views: largest share of the views whose files are there and cannot be used: the image is broken, the
            camera is wrong, or the size differs from the others'. They are left out as if they were missing.
        with_test: whether the views of transforms_test.json are read as well, and marked in `Views.test`.
        inputs: what is done with premultiplied colours, EXIF orientations, and sizes that disagree.
        compared_views: number of views, evenly spaced among those with an `_nd.exr`, whose depth, normals and mask
            are compared at the size that they have, for `normal_agreement` and `mask_agreement`.

    Raises:
        MissingViews: `path` does not exist, has fewer than `min_views` complete views, or no test split `with_test`.
        BadInput: too many cameras or sizes are wrong or images have no alpha, or a limit is exceeded.
        DecodeError: too many images or EXRs are broken, or an archive is.
        OSError: the machine's, see `atlas.os_errors`: it says nothing about the object.

    Errors begin with `path`, and name everything else relative to it.
    """
    root = Path(path)
    try:
        found = _find(root, format)
        read = functools.partial(
            _load, root, found, size, max(min_views, 1), with_depth, max_bad_views, inputs, with_test, with_normals,
            compared_views,
        )  # fmt: skip
        views, premultiplied = read()
        if not premultiplied:
            return views
        if inputs.premultiplied == "refuse":
            raise BadInput(
                "colours are premultiplied by alpha: towards transparent pixels they get dark; save straight alpha, "
                "or set fit.inputs.premultiplied to 'mend' or 'keep'"
            )
        log.warning("%s: colours are premultiplied by alpha, and divided by it", root)
        return read(premultiplied=True)[0]
    except FitError as error:
        raise type(error)(f"{root}: {relative(str(error), root)}") from error


def _find(root: Path, format: str) -> str:
    """The format of the views at `root`: "gobjaverse" or "transforms"."""
    if format not in FORMATS:
        raise BadInput(f"unknown format {format!r}; expected one of {', '.join(FORMATS)}")
    if not exists(root):
        raise MissingViews("no such file or folder; check the address of the views")
    if not is_folder(root) and not is_file(root):
        raise BadInput("the views are neither a folder nor a regular file")
    if format != "auto":
        return format
    return "transforms" if root.suffix == ".json" or find_transforms(root) else "gobjaverse"


def _load(
    root: Path,
    format: str,
    size: int | None,
    min_views: int,
    with_depth: bool,
    max_bad_views: float,
    inputs: InputsConfig,
    with_test: bool,
    with_normals: bool,
    compared_views: int,
    *,
    premultiplied: bool = False,
) -> tuple[Views, bool]:
    """Read the views, dividing colours by alpha if they are `premultiplied`; also whether they seem to be."""
    rims, digest, surface = RimColors(), InputDigest(), SurfaceAgreement()
    found: Iterator[View | Unread]
    if format == "transforms":
        found = read_transforms(root, digest, inputs=inputs, with_test=with_test)
    elif with_test:
        raise BadInput("renders in GObjaverse's layout have no test split; set fit.heldout = 'every'")
    else:
        found = read_gobjaverse(
            root, digest, with_depth=with_depth, with_normals=with_normals, compared=compared_views, inputs=inputs
        )
    views, given, without, nbytes = list[View](), list[tuple[int, ...]](), list[Unread](), 0
    chunks = Chunks()
    for one in found:
        if isinstance(one, Unread):
            without.append(one)
            continue
        try:
            check_camera(one.c2w, one.K)
            check_lens(one.K, one.image.shape[1], one.image.shape[0])
        except BadInput as error:
            without.append(unread(one.name, f"view {one.name}", error, root))
            continue
        if premultiplied:
            one = one._replace(image=straight(one.image))
        elif inputs.premultiplied != "keep":
            rims.add(one.image)
        given.append(one.image.shape[:2])
        if one.geometry is not None:
            surface.add(silhouette(one.image), one.geometry[..., 3], one.geometry[..., :3], one.c2w, one.K)
            one = one._replace(geometry=None)
        one = one if size is None else _shrink(one, size)
        views.append(one._replace(image=chunks.keep(one.image)))
        nbytes += one.image.nbytes
        if nbytes > _MAX_BYTES:
            raise BadInput(f"the images take more than {_MAX_BYTES >> 30} GiB; lower size")
    views, odd = of_one_size(views, given)
    without += odd
    check_enough(without, len(views), max_bad_views, min_views)
    for lost in () if premultiplied else without:  # once
        log.warning("%s: %s skipped: %s", root, lost.where, lost.cause)
    stacked = replace(
        _stack(views),
        skipped=summaries(without),
        input_sha256=digest.hexdigest(),
        normal_agreement=surface.normals,
        mask_agreement=surface.masks,
    )
    return stacked, rims.premultiplied


def _each(views: Views) -> Iterator[View]:
    for i, name in enumerate(views.names):
        depth = None if views.depths is None else views.depths[i]
        test = views.test is not None and bool(views.test[i])
        normal = None if views.normals is None else views.normals[i]
        yield View(name, views.images[i], views.c2w[i], views.Ks[i], depth, test, normal)


def _shrink(view: View, size: int) -> View:
    if size < 1:
        raise ValueError(f"size is {size}, expected pixels > 0")
    H, W = view.image.shape[:2]
    if max(H, W) <= size:
        return view
    h, w = max(1, round(H * size / max(H, W))), max(1, round(W * size / max(H, W)))
    K = np.diag([w / W, h / H, 1.0]) @ view.K
    depth = None if view.depth is None else shrink_depth(view.depth, h, w)
    normal = None if view.normal is None else shrink_depth(view.normal, h, w)
    return view._replace(image=shrink_rgba(view.image, h, w), K=K, depth=depth, normal=normal)


def _stack(views: list[View]) -> Views:
    """Stack records of one size into `Views`; the list's images become those of the stack."""
    H, W = views[0].image.shape[:2]
    test = np.array([view.test for view in views])
    images = np.empty((len(views), H, W, 4), np.uint8)
    for k, view in enumerate(views):
        images[k] = view.image
        views[k] = view._replace(image=images[k])
    return Views(
        images,
        np.stack([view.c2w for view in views]),
        np.stack([view.K for view in views]),
        tuple(view.name for view in views),
        _stacked([view.depth for view in views], (H, W)),
        test=test if test.any() else None,
        normals=_stacked([view.normal for view in views], (H, W, 3)),
    )


def _stacked(maps: list[NDArray[np.float32] | None], shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """Maps of all views, NaN for a view that has none; None if no view has one."""
    if all(one is None for one in maps):
        return None
    unknown = np.full(shape, np.nan, np.float32)
    return np.stack([unknown if one is None else one for one in maps])
