"""Readers of other projects' layouts, written from what their loaders do, and not from this project's writers.

Each takes the root of the data, and the fields that a loader hard-codes are hard-coded.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
Array = NDArray[np.floating]


@dataclass
class Seen:
    """A view as a loader sees it: OpenCV camera-to-world, K in pixels, maps where the layout has them."""

    rgb: Array  # 0 to 1, on white
    alpha: Array  # 0 to 1
    c2w: Array
    K: Array
    depth: Array | None = None
    normal: Array | None = None


def pinhole(fov: float, size: int) -> Array:
    focal = 0.5 * size / np.tan(fov / 2)
    return np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])


def rgba(path: Path) -> tuple[Array, Array]:
    with Image.open(path) as image:
        assert image.mode == "RGBA"
        pixels = np.asarray(image, np.float64) / 255
    return pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:], pixels[..., 3]


def gobjaverse(root: Path, uid: str) -> list[Seen]:
    import OpenEXR

    found = []
    for folder in sorted(path for path in (root / uid).iterdir() if path.is_dir()):
        camera = json.loads((folder / f"{folder.name}.json").read_text())
        c2w = np.eye(4)
        for column, key in enumerate(("x", "y", "z", "origin")):
            c2w[:3, column] = camera[key]
        rgb, alpha = rgba(folder / f"{folder.name}.png")
        channels = OpenEXR.File(str(folder / f"{folder.name}_nd.exr"), separate_channels=True).channels()
        red, green, blue, depth = (channels[c].pixels for c in "RGBA")
        normal = np.stack([-red, -blue, green], axis=-1)
        found.append(Seen(rgb, alpha, c2w, pinhole(camera["x_fov"], len(rgb)), depth, normal))
    return found


def transforms(root: Path, uid: str) -> list[Seen]:
    """As GaussianCube's loader for ShapeNet: one angle for all frames, file names with their suffix."""
    table = json.loads((root / uid / "transforms.json").read_text())
    found = []
    for frame in table["frames"]:
        rgb, alpha = rgba(root / uid / frame["file_path"])
        depth = np.load(root / uid / frame["depth_file_path"])
        K = pinhole(table["camera_angle_x"], len(rgb))
        found.append(Seen(rgb, alpha, np.array(frame["transform_matrix"]) @ FLIP, K, depth))
    return found


def trellis(root: Path) -> list[Seen]:
    found = []
    with (root / "metadata.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            assert row["rendered"] == "True"
            folder = root / "renders" / row["sha256"]
            table = json.loads((folder / "transforms.json").read_text())
            assert table["aabb"] == [[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]]
            for frame in table["frames"]:
                rgb, alpha = rgba(folder / frame["file_path"])
                K = pinhole(frame["camera_angle_x"], len(rgb))
                found.append(Seen(rgb, alpha, np.array(frame["transform_matrix"]) @ FLIP, K))
    return found


def lgm(root: Path) -> list[Seen]:
    found = []
    for uid in (root / "objects.txt").read_text().split():
        for k in range(100):
            rgb, alpha = rgba(root / uid / "rgb" / f"{k:03d}.png")
            c2w = np.array((root / uid / "pose" / f"{k:03d}.txt").read_text().split(), np.float64).reshape(4, 4)
            found.append(Seen(rgb, alpha, c2w, pinhole(np.radians(49.1), len(rgb))))
    return found


def gen3d(root: Path) -> list[Seen]:
    found = []
    (images,) = root.glob("ImagedreamLGM_*_132view")
    for subject in sorted(images.iterdir()):
        for k in range(132):
            rgb, alpha = rgba(subject / f"rgb_132_{k}.png")
            c2w = np.loadtxt(root / "cam_poses_objnew" / f"132_{k}_RT.txt").reshape(4, 4) @ FLIP
            K = np.loadtxt(root / "cam_poses_objnew" / f"132_{k}_K.txt").reshape(3, 3)
            K[:2] *= len(rgb) / 1024
            found.append(Seen(rgb, alpha, c2w, K))
            if k >= 100:
                again, cover = rgba(subject / f"rgb_132_{k}.webp")
                np.testing.assert_array_equal(again, rgb)
                np.testing.assert_array_equal(cover, alpha)
    return found


def srn(root: Path, category: str, split: str) -> list[Seen]:
    found = []
    for marker in sorted((root / f"srn_{category}" / f"{category}_{split}").glob("*/intrinsics.txt")):
        images = sorted((marker.parent / "rgb").glob("*"))
        cameras = sorted((marker.parent / "pose").glob("*"))
        assert len(images) == len(cameras)
        for path, pose in zip(images, cameras, strict=True):
            with Image.open(path) as image:
                assert image.mode == "RGB"
                rgb = np.asarray(image, np.float64) / 255
            alpha = (np.abs(1 - rgb).max(-1) > 0.02).astype(np.float64)
            c2w = np.array(pose.read_text().split(), np.float64).reshape(4, 4)
            found.append(Seen(rgb, alpha, c2w, pinhole(np.radians(51.98948897809546), len(rgb))))
    return found


def zero123(root: Path, fov: float) -> list[Seen]:
    found = []
    for uid in json.loads((root / "valid_paths.json").read_text()):
        for k in range(12):
            rgb, alpha = rgba(root / uid / f"{k:03d}.png")
            w2c = np.vstack([np.load(root / uid / f"{k:03d}.npy"), [0, 0, 0, 1]])
            found.append(Seen(rgb, alpha, np.linalg.inv(w2c) @ FLIP, pinhole(np.radians(fov), len(rgb))))
    return found


def instantmesh(root: Path) -> list[Seen]:
    found = []
    for uid in json.loads((root / "valid_paths.json").read_text())["good_objs"]:
        folder = root / "rendering_random_32views" / uid
        cameras = np.load(folder / "cameras.npz")["cam_poses"]
        for k in range(32):
            rgb, alpha = rgba(folder / f"{k:03d}.png")
            with Image.open(folder / f"{k:03d}_normal.png") as image:
                pixels = np.asarray(image, np.float64) / 255
            with Image.open(folder / f"{k:03d}_depth.png") as image:
                assert image.mode == "L"
                depth = np.asarray(image, np.float64) / 255 * 6.0
            normal = np.where(pixels[..., 3:] > 0, pixels[..., :3] * 2 - 1, 0)
            c2w = np.linalg.inv(np.vstack([cameras[k], [0, 0, 0, 1]])) @ FLIP
            found.append(Seen(rgb, alpha, c2w, pinhole(np.radians(50), len(rgb)), depth, normal))
    return found


def _side_by_side(path: Path, count: int = 16) -> Array:
    with Image.open(path) as image:
        strip = np.asarray(image, np.float64)
    height, width = strip.shape[:2]
    return np.moveaxis(strip.reshape(height, count, width // count, *strip.shape[2:]), 1, 0)


def ganything(root: Path) -> dict[str, list[Seen]]:
    """Views of each chunk."""
    found: dict[str, list[Seen]] = {}
    for category, chunks in json.loads((root / "dataset.json").read_text()).items():
        for name in chunks:
            assert name.startswith(f"{category}/")
            chunk = root / name
            images, alphas = _side_by_side(chunk / "raw_img.jpg") / 255, _side_by_side(chunk / "alpha.jpg") / 255
            normals = _side_by_side(chunk / "normal.png") / 127.5 - 1
            with np.load(chunk / "depth.npz") as archive:
                depths = archive["depth"]
            cameras = np.load(chunk / "c.npy")
            boxes = np.load(chunk / "bbox.npy")
            assert cameras.shape == (16, 25)
            assert boxes.shape == (16, 4)
            size = images.shape[1]
            for rgb, alpha, nrm, depth, c, box in zip(images, alphas, normals, depths, cameras, boxes, strict=True):
                K = c[16:].reshape(3, 3).astype(np.float64)
                np.testing.assert_allclose(K[2, 2], 1 / size, rtol=1e-6)
                K[:2] *= size
                K[2, 2] = 1
                rows, columns = (np.flatnonzero((alpha > 0.5).any(axis=axis)) * 256 / size for axis in (1, 0))
                np.testing.assert_allclose(box, [rows[0], columns[0], rows[-1], columns[-1]], atol=512 / size)
                normal = np.stack([-nrm[..., 0], -nrm[..., 2], nrm[..., 1]], axis=-1)
                c2w = c[:16].reshape(4, 4).astype(np.float64)
                found.setdefault(name, []).append(Seen(rgb, alpha, c2w, K, depth, normal))
    return found


def ply_points(path: Path) -> Array:
    """Vertices of a PLY, by trimesh, as GaussianAnything reads them."""
    import trimesh

    return np.asarray(trimesh.load(str(path)).vertices)
