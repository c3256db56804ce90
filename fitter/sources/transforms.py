"""Reader of transforms.json renders: NeRF-synthetic (Blender), TRELLIS, instant-ngp, nerfstudio.

Matrices are OpenGL camera-to-world (x right, y up, z backward) in a z-up world. The focal length is
`camera_angle_x` (radians), or `fl_x, fl_y, cx, cy` for `w` x `h` pixels, for the whole file or per frame.
Distorted and fisheye lenses and separate masks (`mask_path`) are not supported and refused.
"""

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gaussianverse.atlas.canonical_json import json_object
from gaussianverse.atlas.os_errors import is_file, is_folder
from gaussianverse.fitter.cameras import check_not_swapped
from gaussianverse.fitter.config import InputsConfig
from gaussianverse.fitter.errors import BadInput, FitError, MissingViews
from gaussianverse.fitter.sources.files import (
    MAX_IMAGE_BYTES,
    MAX_JSON_BYTES,
    Archive,
    Folder,
    InputDigest,
    below,
    list_tar,
)
from gaussianverse.fitter.sources.image import decode_rgba
from gaussianverse.fitter.sources.numbers import focal_length, number, numbers
from gaussianverse.fitter.sources.unread import Unread, printable, unread
from gaussianverse.fitter.sources.view import View

WHOLE = "transforms.json"
TRAIN, TEST = "transforms_train.json", "transforms_test.json"
SPLITS = (TRAIN, "transforms_val.json", TEST)
_OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
_PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV")  # the last if its distortion is zero
_DISTORTION = re.compile(r"[kp][0-9]+")
_SKEW = re.compile(r"skew|b[12]")  # b1 and b2 are Metashape's
_OTHER_LENSES = re.compile(r"is_fisheye|latlong|equirectangular|ftheta_.*")  # instant-ngp's
_ANGLES = {"camera_angle_x", "camera_angle_y"}
_FOCAL = {"fl_x", "fl_y"} | _ANGLES
_SUFFIXES = ("", ".png", ".webp", ".PNG", ".WEBP")
_WANTED = re.compile(r".*\.(json|png|webp|jpe?g)|(.*/)?[^./]+", re.IGNORECASE)

_INPUTS = InputsConfig()
_Camera = dict[str, Any]


def find_transforms(path: Path) -> dict[str, str]:
    """Camera files in a folder, a .tar or a .tar.gz: their names there by `WHOLE` and those of `SPLITS`.

    Raises:
        BadInput: an archive holds several sets of them.
        FitError: as `list_tar` raises.
    """
    if is_folder(path):
        return {name: name for name in (WHOLE, *SPLITS) if is_file(path / name)}
    names = [PurePosixPath(name) for name in list_tar(path)]
    found = sorted({name for name in names if name.name in (WHOLE, *SPLITS)})
    levels = sorted({str(name.parent) for name in found})
    if len(levels) > 1:
        raise BadInput(f"{path}: several sets of views ({', '.join(levels)}); pack one of them")
    return {name.name: str(name) for name in found}


def read_transforms(
    path: Path, digest: InputDigest, *, inputs: InputsConfig = _INPUTS, with_test: bool = False
) -> Iterator[View | Unread]:
    """Yield the views of a folder, an archive or one camera file, also those that cannot be used.

    Of a folder or archive they are those of transforms.json or, if there is none, of the training split; the other
    splits are never fitted. `digest` takes the bytes of the files as they are read.

    Args:
        path: the folder, archive or file.
        digest: of the files.
        inputs: see `InputsConfig`.
        with_test: whether the views of transforms_test.json follow, marked as such.

    Raises:
        MissingViews: there is no camera file, or no test split or no image of it where one is asked for.
        BadInput: a camera file has no frames, or the test split itself is to be fitted and held out.
        DecodeError: an archive is broken.
    """
    if path.suffix == ".json" and not is_folder(path):
        if not is_file(path):
            raise MissingViews(f"{path}: no such file")
        source: Folder | Archive = Folder(path.parent, digest)
        if with_test and path.name == TEST:
            raise BadInput(f"{path}: this is the test split; give the folder, or set fit.heldout = 'every'")
        fitted: str | None = path.name
        test = TEST if is_file(path.parent / TEST) else None
    else:
        found = find_transforms(path)
        source = Folder(path, digest) if is_folder(path) else Archive(path, _WANTED, digest)
        fitted, test = found.get(WHOLE, found.get(TRAIN)), found.get(TEST)
    if fitted is None:
        raise MissingViews(f"{path}: no {WHOLE} and no {TRAIN}")
    yield from _read_file(source, fitted, inputs)
    if not with_test:
        return
    if test is None:
        raise MissingViews(f"{path}: no {TEST}, whose views fit.heldout = 'test' holds out; or set it to 'every'")
    usable, lacking = 0, list[Unread]()
    for view in _read_file(source, test, inputs):
        if isinstance(view, Unread):
            lacking.append(view)
            yield view
        else:
            usable += 1
            yield view._replace(test=True)
    if not usable:
        first = f"; the first: {lacking[0].summary}" if lacking else ""
        raise MissingViews(
            f"{test}: none of the images of its {len(lacking)} frames can be used, which fit.heldout = 'test' holds "
            f"out{first}; fetch them, or set it to 'every'"
        )


def _read_file(source: Folder | Archive, file: str, inputs: InputsConfig) -> Iterator[View | Unread]:
    shared = json_object(source.read(file, MAX_JSON_BYTES), BadInput, file)
    frames = shared.get("frames")
    if not isinstance(frames, list):
        raise BadInput(f"{file}: no list 'frames'")
    for index, frame in enumerate(frames):
        where = f"{file}: frame {index}"
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            yield Unread(f"frame {index}", where, "no 'file_path'", BadInput)
            continue
        given = printable(frame["file_path"])
        try:
            found: View | Unread = _read_frame(source, file, shared, frame, f"{where} ({given})", inputs)
        except FitError as error:
            found = unread(given, f"{where} ({given})", error, source.root)
        yield found


def _read_frame(
    source: Folder | Archive, file: str, shared: _Camera, frame: _Camera, where: str, inputs: InputsConfig
) -> View | Unread:
    level = PurePosixPath(file).parent
    image_name = _image_name(source, level, frame["file_path"])
    if image_name is None:
        return Unread(printable(frame["file_path"]), where, "no such image")
    camera = shared | frame
    _check_lens(camera, where)
    if camera.get("mask_path"):
        raise BadInput(f"{where}: 'mask_path' is not read; put the mask into the image as alpha")
    image = decode_rgba(source.read(image_name, MAX_IMAGE_BYTES), where, inputs.orientation)
    height, width = image.shape[:2]
    name = printable(str(PurePosixPath(image_name).relative_to(level).with_suffix("")))
    if inputs.sizes == "refuse":
        _check_sizes(camera, width, height, where)
    K = _intrinsics(frame, camera, width, height, where)
    if inputs.sizes == "refuse" and camera.keys() >= _ANGLES and "fl_x" not in camera and "fl_y" not in camera:
        check_not_swapped(K, width, height, where)
    return View(name, image, _camera_to_world(camera, where), K)


class _Found(Protocol):
    """Where images are looked for."""

    def find(self, name: str) -> object:
        """Whether the file is there; raises BadInput for what is no name of a file."""


class _Names:
    """Names of files that are not here."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)

    def find(self, name: str) -> bool:
        return str(below(name, "")) in self._names


def images_among(names: Iterable[str], file: str, data: bytes) -> list[str]:
    """Those of the files of a folder that a camera file `file`, which has the bytes `data`, names as images."""
    there, level = _Names(names), PurePosixPath(file).parent
    found = dict[str, None]()
    for given in _given(file, data):
        try:
            name = _image_name(there, level, given)
        except FitError:
            continue
        if name is not None:
            found[str(PurePosixPath(name))] = None
    return list(found)


def images_named(file: str, data: bytes) -> list[str] | None:
    """The images that a camera file names; None where only the names in its folder could tell."""
    level, found = PurePosixPath(file).parent, dict[str, None]()
    for given in _given(file, data):
        if "\\" in given or not given.endswith(_SUFFIXES[1:]):
            return None
        try:
            found[str(below(str(level / given), ""))] = None
        except FitError:
            return None
    return list(found) or None


def _given(file: str, data: bytes) -> Iterator[str]:
    """The paths of images in a camera file, as they stand there; none of one that is to be refused."""
    try:
        frames = json_object(data, BadInput, file).get("frames")
    except FitError:
        return
    for frame in frames if isinstance(frames, list) else ():
        if isinstance(frame, dict) and isinstance(frame.get("file_path"), str):
            yield frame["file_path"]


def _image_name(source: _Found, level: PurePosixPath, file_path: str) -> str | None:
    """Name of an existing image: `file_path`, or with the suffix that Blender's exporters leave out.

    Exporters on Windows separate folders by backslashes.
    """
    for path in dict.fromkeys((file_path, file_path.replace("\\", "/"))):
        for suffix in _SUFFIXES:
            name = f"{level / path}{suffix}"
            if source.find(name):
                return name
    return None


def _check_lens(camera: _Camera, where: str) -> None:
    model = camera.get("camera_model", _PINHOLES[0])
    if model not in _PINHOLES:
        raise BadInput(
            f"{where}: camera_model is {model!r}, expected one of {', '.join(_PINHOLES)}; undistort the images first"
        )
    for key, value in camera.items():
        if _OTHER_LENSES.fullmatch(key) and value:
            raise BadInput(f"{where}: {key!r} is not a pinhole camera; undistort the images first")
        if _SKEW.fullmatch(key) and number(value, where, key):
            raise BadInput(f"{where}: the pixels are skewed ({key} = {value}); undistort the images first")
        if _DISTORTION.fullmatch(key) and number(value, where, key):
            raise BadInput(f"{where}: the lens is distorted ({key} = {value}); undistort the images first")
    params = camera.get("distortion_params") or []
    if not isinstance(params, list) or any(number(value, where, "distortion_params") for value in params):
        raise BadInput(f"{where}: the lens is distorted (distortion_params); undistort the images first")


def _camera_to_world(camera: _Camera, where: str) -> NDArray[np.float64]:
    if "transform_matrix" not in camera:
        raise BadInput(f"{where}: no 'transform_matrix'")
    matrix = camera["transform_matrix"]
    c2w = np.eye(4)
    rows = 3 if isinstance(matrix, list) and len(matrix) == 3 else 4
    c2w[:rows] = numbers(matrix, (rows, 4), where, "transform_matrix")
    return c2w @ _OPENGL_TO_OPENCV


def _intrinsics(frame: _Camera, camera: _Camera, width: int, height: int, where: str) -> NDArray[np.float64]:
    """Intrinsics K from `camera`, the file's entries updated by the frame's; focal lengths come from one of both."""
    sx, sy = width / _pixels(camera, "w", width, where), height / _pixels(camera, "h", height, where)
    if not max(sx, sy) < math.inf:
        raise BadInput(f"{where}: 'w' or 'h' is nearly 0, expected pixels")
    given = next((level for level in (frame, camera) if not _FOCAL.isdisjoint(level)), None)
    if given is None:
        raise BadInput(f"{where}: no focal length; expected one of {', '.join(sorted(_FOCAL))}")
    if "fl_x" in given or "fl_y" in given:  # only one of them means square pixels at w x h
        fx = sx * number(camera.get("fl_x", camera.get("fl_y")), where, "fl_x")
        fy = sy * number(camera.get("fl_y", camera.get("fl_x")), where, "fl_y")
    else:
        spans = {"camera_angle_x": width, "camera_angle_y": height}
        focal = [focal_length(_angle(camera, key, where), span) for key, span in spans.items() if key in camera]
        fx, fy = focal[0], focal[-1]
    cx = number(camera["cx"], where, "cx") * sx if "cx" in camera else width / 2
    cy = number(camera["cy"], where, "cy") * sy if "cy" in camera else height / 2
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def _check_sizes(camera: _Camera, width: int, height: int, where: str) -> None:
    """Require the ratio of `w` and `h`, for which the camera is given, to be the image's but for rounded pixels."""
    if not {"w", "h"} <= camera.keys():
        return
    w, h = _pixels(camera, "w", width, where), _pixels(camera, "h", height, where)
    if abs(width * h - height * w) > w + h:
        swapped = ", swapped" if abs(width * w - height * h) <= w + h else ""
        raise BadInput(
            f"{where}: the camera is given for {w:g} x {h:g} pixels{swapped}, and the image has {width} x {height}; "
            "correct 'w' and 'h', or set fit.inputs.sizes = 'keep' if the image was squeezed"
        )


def _pixels(camera: _Camera, key: str, default: int, where: str) -> float:
    value = number(camera.get(key, default), where, key)
    if value <= 0:
        raise BadInput(f"{where}: {key!r} is {value}, expected pixels > 0")
    return value


def _angle(camera: _Camera, key: str, where: str) -> float:
    value = number(camera[key], where, key)
    if not 0 < value < np.pi:
        raise BadInput(f"{where}: {key!r} is {value}, expected radians in (0, pi)")
    return value
