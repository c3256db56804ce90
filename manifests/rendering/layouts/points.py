"""Points of an object: farthest-point samples of its pixels, samples of its surface, its voxels."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gaussianverse.manifests.errors import LayoutError
from gaussianverse.manifests.rendering.layouts.encode import ply
from gaussianverse.manifests.rendering.layouts.posed import Subject, Surface, Views
from gaussianverse.manifests.rendering.layouts.voxels import occupied

Kind = Literal["fps", "surface", "voxels"]

_MOST, _MOST_VOXELS = 1 << 20, 1024
_INSIDE = 0.45  # GaussianAnything samples points within this cube
_ROUNDED = 1e-4  # the ends of an object of extent 0.9 are inside
_CUT = 0.01  # largest share of the pixels that may lie out of it
_LEAF = 7  # 2 ** 7 points in a leaf of the sampler's tree; the choice of points does not depend on it
_INSTALL = "pip install 'gaussianverse[render]'"


@dataclass(frozen=True)
class Points:
    """A kind of points and how many.

    Attributes:
        kind: "fps", the farthest points among the pixels of all views; "surface", samples of the mesh by area;
            "voxels", the centres of those that the mesh touches.
        count: number of points; of voxels, those a side.
    """

    kind: Kind
    count: int

    @property
    def name(self) -> str:
        """Name of the file, without suffix."""
        return f"{self.kind}-{self.count}"

    @property
    def of_pixels(self) -> bool:
        """Whether they are made of the depth of views, and not of the mesh."""
        return self.kind == "fps"

    def encode(self, subject: Subject, views: Views) -> bytes:
        """The points as PLY.

        Raises:
            LayoutError: the views have no depth or too few pixels, or the mesh is not known or too large.
        """
        if self.of_pixels:
            return ply(farthest(views, self.count))
        if subject.surface is None:
            raise LayoutError(
                f"{self.name}: only a fresh render knows the mesh: gaussianverse render MESH DEST --layout NAME"
            )
        return ply((on_surface if self.kind == "surface" else occupied)(subject.surface, self.count))


def add_points(parser: argparse.ArgumentParser) -> None:
    """Add `--points` and `--voxels`."""
    parser.add_argument(
        "--points", action="append", default=[], metavar="KIND:COUNT",
        help="write points too: fps:N, the N farthest among all pixels, or surface:N, by area on the mesh",
    )  # fmt: skip
    parser.add_argument("--voxels", type=int, metavar="N", help="write voxels of the mesh too, N a side")


def points_of(args: argparse.Namespace) -> tuple[Points, ...]:
    """The points that the options name.

    Raises:
        LayoutError: they have another form.
    """
    found = [parse(text) for text in args.points]
    if args.voxels is not None:
        if not 1 <= args.voxels <= _MOST_VOXELS:
            raise LayoutError(f"--voxels {args.voxels}: expected 1 to {_MOST_VOXELS} a side")
        found.append(Points("voxels", args.voxels))
    return tuple(found)


def parse(text: str) -> Points:
    """Parse KIND:COUNT.

    Raises:
        LayoutError: it has another form.
    """
    name, _, count = text.partition(":")
    kind: Kind | None = "fps" if name == "fps" else "surface" if name == "surface" else None
    if kind is None or not count.isascii() or not count.isdigit() or not 0 < int(count[:9]) <= _MOST:
        raise LayoutError(f"points {text!r}: expected fps:N or surface:N with N from 1 to {_MOST}")
    return Points(kind, int(count))


def farthest(views: Views, count: int) -> NDArray[np.float32]:
    """Sample the positions of all pixels that the object covers: each point is the farthest from those before it.

    Only positions within +-0.45 count, as for GaussianAnything.

    Raises:
        LayoutError: a view has no depth, there are too few pixels, the object is larger than that cube, or fpsample
            is not installed.
    """
    try:
        import fpsample
    except ImportError as error:
        raise LayoutError(f"farthest points need fpsample: {_INSTALL}") from error
    found = np.concatenate([view.points() for view in views])
    inside = (np.abs(found) < _INSIDE + _ROUNDED).all(axis=1)
    if (share := 1 - inside.mean() if len(found) else 0.0) > _CUT:
        raise LayoutError(
            f"fps:{count}: {share:.0%} of the pixels lie out of the cube +-{_INSIDE:g} from which points are taken; "
            "render with --extent 0.9"
        )
    found = found[inside]
    if len(found) < count:
        raise LayoutError(
            f"fps:{count}: all views together have {len(found)} pixels with depth on the object; render larger ones"
        )
    chosen = fpsample.bucket_fps_kdline_sampling(found, count, h=_LEAF, start_idx=0)
    sample: NDArray[np.float32] = found[chosen.astype(np.intp)]
    return sample


def on_surface(surface: Surface, count: int) -> NDArray[np.float32]:
    """Sample a mesh uniformly by area; the same mesh gives the same points.

    Raises:
        LayoutError: the mesh has no area, or trimesh is not installed.
    """
    try:
        import trimesh
    except ImportError as error:
        raise LayoutError(f"points of a mesh need trimesh: {_INSTALL}") from error
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    if not mesh.area > 0:
        raise LayoutError(f"surface:{count}: the mesh has no area")
    sample: NDArray[np.float32] = trimesh.sample.sample_surface(mesh, count, seed=0)[0].astype(np.float32)
    return sample
