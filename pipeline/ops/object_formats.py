"""Writers of objects in other projects' formats, one file or folder an object, for `export`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gaussianverse.atlas.arrays import npy
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.interchange.fixed_count import fixed_count
from gaussianverse.atlas.interchange.gaussiancube import BOUND, CubeMoments, to_cube
from gaussianverse.atlas.interchange.ply import write_ply
from gaussianverse.atlas.interchange.spz import to_spz
from gaussianverse.atlas.interchange.torch_file import to_pt
from gaussianverse.manifests.files import write_whole
from gaussianverse.manifests.rendering.layouts.layout import folder_of
from gaussianverse.manifests.schema import SPLITS
from gaussianverse.pipeline.dataset.schemas import FRAME
from gaussianverse.pipeline.errors import UsageError

PLY, SPZ, SCENESPLAT = "ply", "spz", "scenesplat"
GAUSSIANCUBE, GAUSSIANCUBE_NPY = "gaussiancube", "gaussiancube-npy"
CUBES = (GAUSSIANCUBE, GAUSSIANCUBE_NPY)
_SMALLEST, _LARGEST = 1e-4, 1.0  # scales that SceneSplat clips to

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Options:
    """Choices within a format; each is of some formats only.

    Attributes:
        count: ply: Gaussians per object; 0 = all.
        sh_degree: ply: degree of the spherical harmonics whose columns are there, all zero above degree 0.
        by_category: ply: whether objects lie in folders of their categories.
        bound: cubes: half the grid's extent.
        padding: cubes: what empty voxels hold, see `gaussiancube.PADDINGS`.
    """

    count: int = 0
    sh_degree: int = 0
    by_category: bool = False
    bound: float = BOUND
    padding: str = "centre"

    def check(self, format: str) -> None:
        """Refuse choices that the format does not have.

        Raises:
            UsageError: with the choice and its formats.
        """
        if self.count and (format != PLY or self.count < 0):
            raise UsageError(f"count {self.count}, format {format}: expected a positive count, and format {PLY}")
        for name, chosen, formats in (
            ("--sh-degree", self.sh_degree, (PLY,)),
            ("--by-category", self.by_category, (PLY,)),
            ("--bound", self.bound != BOUND, CUBES),
            ("--padding", self.padding != "centre", CUBES),
        ):
            if chosen and format not in formats:
                raise UsageError(f"{name}, format {format}: expected format {' or '.join(formats)}")


def place(facts: Mapping[str, Any]) -> tuple[tuple[float, ...], float]:
    """`center` and `unit` of an object: world = center + unit * published. Old outputs keep the world."""
    *center, unit = (float(facts.get(name, default)) for name, default in zip(FRAME, (0, 0, 0, 1), strict=True))
    return (tuple(center), unit) if unit > 0 else ((0.0, 0.0, 0.0), 1.0)


class Writer:
    """Writes objects into a folder; `finish` adds what is known only after the last."""

    def __init__(self, dest: Path, options: Options) -> None:
        self.dest, self.options = dest, options

    def write(self, row: Row, gaussians: Gaussians, facts: Row) -> Path:
        """Write an object; returns its file or folder, which is complete."""
        raise NotImplementedError

    def finish(self) -> Iterator[Path]:
        """Write the files about all objects; yields their paths."""
        yield from ()


class Ply(Writer):
    """UID.ply, where the object is in its own world."""

    def write(self, row: Row, gaussians: Gaussians, facts: Row) -> Path:
        """Write a file of 3DGS."""
        center, unit = place(facts)
        chosen = fixed_count(gaussians, self.options.count) if self.options.count else gaussians
        n_rest = 3 * ((self.options.sh_degree + 1) ** 2 - 1)
        folder = self.dest / folder_of(str(row["category"])) if self.options.by_category else self.dest
        return _written(folder / f"{row['uid']}.ply", write_ply(chosen, sh_rest=n_rest, center=center, unit=unit))


class Spz(Writer):
    """UID.spz, 16 bytes per Gaussian."""

    def write(self, row: Row, gaussians: Gaussians, facts: Row) -> Path:
        """Write a file of viewers in browsers."""
        return _written(self.dest / f"{row['uid']}.spz", to_spz(gaussians))


class SceneSplat(Writer):
    """SPLIT/UID/{coord,color,opacity,scale,quat}.npy, where the object is in its own world."""

    def write(self, row: Row, gaussians: Gaussians, facts: Row) -> Path:
        """Write the arrays of an object; coord, without which its loader reads nothing, is the last."""
        center, unit = place(facts)
        folder = self.dest / _split(row) / str(row["uid"])
        arrays = {
            "color": np.rint(255 * np.clip(gaussians.colors, 0, 1)).astype(np.uint8),
            "opacity": gaussians.opacities,
            "scale": np.clip(unit * gaussians.scales, _SMALLEST, _LARGEST).astype(np.float32),
            "quat": gaussians.quats,
            "coord": (np.asarray(center) + unit * gaussians.means.astype(np.float64)).astype(np.float32),
        }
        for name, array in arrays.items():
            _written(folder / f"{name}.npy", npy(array))
        return folder


class CubeNpy(Writer):
    """UID.npy, float32 [32, 32, 32, 14], which `gaussianverse import` reads."""

    def write(self, row: Row, gaussians: Gaussians, facts: Row) -> Path:
        """Write a cube."""
        cube = to_cube(gaussians, self.options.bound, self.options.padding)
        return _written(self.dest / f"{row['uid']}.npy", npy(cube))


class Cube(Writer):
    """volume_act/UID.pt, their mean and deviation, lists of uids, captions: what GaussianCube's loader opens."""

    def __init__(self, dest: Path, options: Options) -> None:
        super().__init__(dest, options)
        self._moments = CubeMoments()
        self._lists: dict[str, list[str]] = {"train": []}
        self._captions: dict[str, str] = {}
        # those of another export would fit other cubes, also if this one is killed
        for name in ("mean_volume_act.pt", "std_volume_act.pt", "captions.json", *(f"{s}.txt" for s in SPLITS)):
            (dest / name).unlink(missing_ok=True)

    def write(self, row: Row, gaussians: Gaussians, facts: Row) -> Path:
        """Write a cube."""
        uid = str(row["uid"])
        cube = to_cube(gaussians, self.options.bound, self.options.padding)
        self._moments.add(cube)
        self._lists.setdefault(_split(row), []).append(uid)
        self._captions[uid] = str(row["caption"])
        return _written(self.dest / "volume_act" / f"{uid}.pt", to_pt(cube))

    def finish(self) -> Iterator[Path]:
        """Write mean, deviation, lists and captions."""
        yield _written(self.dest / "mean_volume_act.pt", to_pt(self._moments.mean()))
        yield _written(self.dest / "std_volume_act.pt", to_pt(self._moments.std()))
        yield _written(self.dest / "captions.json", json.dumps(self._captions, indent=1).encode())
        for split, uids in sorted(self._lists.items()):
            yield _written(self.dest / f"{split}.txt", "".join(f"{uid}\n" for uid in uids).encode())


WRITERS: dict[str, Callable[[Path, Options], Writer]] = {
    PLY: Ply, SPZ: Spz, SCENESPLAT: SceneSplat, GAUSSIANCUBE: Cube, GAUSSIANCUBE_NPY: CubeNpy,
}  # fmt: skip


def _split(row: Row) -> str:
    """The split as part of a file's name, train if there is none."""
    return folder_of(str(row.get("split", "")) or "train")


def _written(path: Path, data: bytes) -> Path:
    write_whole(path, data)
    return path
