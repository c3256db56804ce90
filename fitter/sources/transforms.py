"""transforms.json renders: NeRF-synthetic (Blender), TRELLIS, instant-ngp, nerfstudio.

Matrices are OpenGL camera-to-world (x right, y up, z backward) in a z-up world; the focal length comes as
`camera_angle_x` (radians, for the whole file or per frame) or as `fl_x, fl_y, cx, cy` at `w` x `h` pixels.
"""

import logging
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitter.errors import BadInput, MissingViews
from fitter.sources.files import MAX_IMAGE_BYTES, MAX_JSON_BYTES, Folder, parse_json
from fitter.sources.image import decode_rgba
from fitter.sources.view import View

log = logging.getLogger(__name__)

SPLITS = ("transforms_train.json", "transforms_val.json", "transforms_test.json")
_OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


def find_transforms(path: Path) -> list[Path]:
    """The camera files of a folder: transforms.json alone, else those of the splits that exist."""
    if (path / "transforms.json").is_file():
        return [path / "transforms.json"]
    return [path / name for name in SPLITS if (path / name).is_file()]


def read_transforms(path: Path) -> Iterator[View]:
    """Views of a folder (all its splits), or of one camera file; frames without their image are skipped.

    Raises:
        MissingViews: no camera file.
        BadInput: a camera file that says something wrong, or an image without alpha.
        DecodeError: a broken image.
    """
    files = find_transforms(path) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise MissingViews(f"{path}: no transforms.json and no {SPLITS[0]}")
    for file in files:
        yield from _read_file(file)


def _read_file(file: Path) -> Iterator[View]:
    folder = Folder(file.parent)
    shared = parse_json(folder.read(file.name, MAX_JSON_BYTES), str(file))
    frames = shared.get("frames")
    if not isinstance(frames, list):
        raise BadInput(f"{file}: no list 'frames'")
    for index, frame in enumerate(frames):
        where = f"{file}: frame {index}"
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise BadInput(f"{where}: no 'file_path'")
        where = f"{where} ({frame['file_path']})"
        image_name = _image_name(folder, frame["file_path"])
        if image_name is None:
            log.warning("%s: skipped: no such image", where)
            continue
        image = decode_rgba(folder.read(image_name, MAX_IMAGE_BYTES), where)
        camera = {**shared, **frame}
        name = str(PurePosixPath(image_name).with_suffix(""))
        height, width = image.shape[:2]
        yield View(name, image, _camera_to_world(camera, where), _intrinsics(camera, width, height, where))


def _image_name(folder: Folder, file_path: str) -> str | None:
    """`file_path` as it stands, or with the extension that Blender's exporters leave out."""
    return next((name for name in (file_path, f"{file_path}.png") if folder.find(name)), None)


def _camera_to_world(camera: dict[str, Any], where: str) -> NDArray[np.float64]:
    try:
        matrix = np.asarray(camera["transform_matrix"], np.float64)
    except KeyError as error:
        raise BadInput(f"{where}: no 'transform_matrix'") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"{where}: 'transform_matrix' is not numeric: {error}") from error
    if matrix.shape not in ((4, 4), (3, 4)):
        raise BadInput(f"{where}: 'transform_matrix' has shape {list(matrix.shape)}, expected [4, 4]")
    c2w = np.eye(4)
    c2w[: matrix.shape[0]] = matrix
    return c2w @ _OPENGL_TO_OPENCV


def _intrinsics(camera: dict[str, Any], width: int, height: int, where: str) -> NDArray[np.float64]:
    if any(_number(camera, key, 0.0, where) for key in _DISTORTION):
        raise BadInput(f"{where}: the lens is distorted (k1, k2, p1, ..); undistort the images first")
    sx, sy = width / _number(camera, "w", width, where), height / _number(camera, "h", height, where)
    if "fl_x" in camera:
        fx = _number(camera, "fl_x", 0.0, where) * sx
        fy = _number(camera, "fl_y", fx / sx, where) * sy
    elif "camera_angle_x" in camera:
        fx = width / 2 / np.tan(_angle(camera, "camera_angle_x", where) / 2)
        fy = (
            height / 2 / np.tan(_angle(camera, "camera_angle_y", where) / 2)
            if "camera_angle_y" in camera
            else fx
        )
    else:
        raise BadInput(f"{where}: no focal length: neither 'fl_x' nor 'camera_angle_x'")
    cx = _number(camera, "cx", width / 2 / sx, where) * sx
    cy = _number(camera, "cy", height / 2 / sy, where) * sy
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def _number(camera: dict[str, Any], key: str, default: float, where: str) -> float:
    value = camera.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise BadInput(f"{where}: {key!r} is {value!r}, expected a finite number")
    if key in ("w", "h") and value <= 0:
        raise BadInput(f"{where}: {key!r} is {value}, expected pixels > 0")
    return float(value)


def _angle(camera: dict[str, Any], key: str, where: str) -> float:
    value = _number(camera, key, 0.0, where)
    if not 0 < value < np.pi:
        raise BadInput(f"{where}: {key!r} is {value}, expected radians in (0, pi)")
    return value
