"""`ReferenceViews`: views of an object and their files in a shard, a PNG per view and one .npz of cameras."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from gaussianverse.atlas.arrays import npz, read_npz
from gaussianverse.atlas.dataset_format import MAIN_SUFFIX, VIEWS, view_suffixes
from gaussianverse.atlas.errors import AtlasError, DatasetError

CAMERAS = MAIN_SUFFIX[VIEWS]
_BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""Errors of Pillow on damaged files."""
_FIELDS = {"viewmats": (4, 4), "Ks": (3, 3)}


@dataclass(frozen=True)
class ReferenceViews:
    """K views of an object, in the world of its Gaussians.

    Attributes:
        images: RGBA with straight alpha, uint8 [K, size, size, 4].
        viewmats: world-to-camera, OpenCV (x right, y down, z forward), float32 [K, 4, 4].
        Ks: intrinsics in pixels; the centre of the top-left pixel is (0.5, 0.5). float32 [K, 3, 3].

    Raises:
        DatasetError: an array has another shape or type, or a camera is not finite.
    """

    images: npt.NDArray[np.uint8]
    viewmats: npt.NDArray[np.float32]
    Ks: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        shape = self.images.shape
        if self.images.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 4:
            raise DatasetError(f"images are {self.images.dtype} {shape}, expected uint8 [K, size, size, 4]")
        for name, tail in _FIELDS.items():
            array = getattr(self, name)
            if array.dtype != np.float32 or array.shape != (len(self.images), *tail):
                raise DatasetError(
                    f"{name} are {array.dtype} {array.shape}, expected float32 {(len(self.images), *tail)}"
                )
            if not np.isfinite(array).all():
                raise DatasetError(f"{name} hold NaN or infinity")

    def __len__(self) -> int:
        return len(self.images)

    def to_members(self) -> dict[str, bytes]:
        """The files by suffix; the same views always give the same bytes (with the same zlib)."""
        members = {}
        for name, image in zip(view_suffixes(len(self)), self.images, strict=True):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            members[name] = buffer.getvalue()
        return {CAMERAS: npz({name: getattr(self, name) for name in _FIELDS}), **members}

    @classmethod
    def from_members(
        cls, cameras: bytes | memoryview, images: Sequence[bytes | memoryview], chosen: Sequence[int] | None = None
    ) -> ReferenceViews:
        """Read the files of `to_members`, and decode no other images than those that are chosen.

        Args:
            cameras: the file of suffix `CAMERAS`.
            images: the PNGs in their order, at least one.
            chosen: numbers of the views, in the order in which they are wanted; None = all.

        Raises:
            DatasetError: a file is damaged, or the sizes differ.
        """
        names = view_suffixes(len(images))
        numbers = list(range(len(images)) if chosen is None else chosen)
        decoded = [_decoded(images[k], names[k]) for k in numbers]
        if len({image.shape for image in decoded}) != 1:
            raise DatasetError(f"views of {len({image.shape for image in decoded})} sizes, expected one")
        fields = read_cameras(cameras)
        for name, array in fields.items():
            if len(array) != len(images):
                raise DatasetError(f"{name} are {array.dtype} {array.shape}, expected those of {len(images)} views")
        return cls(np.stack(decoded), **{name: array[numbers] for name, array in fields.items()})


def read_cameras(data: bytes | memoryview) -> dict[str, npt.NDArray[np.float32]]:
    """viewmats and Ks from the file of suffix `CAMERAS`.

    Raises:
        DatasetError: it is damaged.
    """
    try:
        return read_npz(data, _FIELDS)
    except AtlasError as error:
        raise DatasetError(f"{CAMERAS} is damaged: {error}") from error


def images_sha256(members: Mapping[str, bytes | memoryview]) -> str:
    """Hex sha256 of the PNGs among an object's members, concatenated in the order of their names."""
    whole = hashlib.sha256()
    for name in sorted(members):
        if name.endswith(".png"):
            whole.update(members[name])
    return whole.hexdigest()


def _decoded(data: bytes | memoryview, name: str) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.mode != "RGBA":
                raise DatasetError(f"{name} is {image.mode}, expected RGBA")
            return np.asarray(image, np.uint8)
    except _BROKEN as error:
        raise DatasetError(f"{name} is damaged: {error}") from error
