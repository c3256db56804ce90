"""Presets of camera rigs: how the field's trainers saw their meshes.

A preset is a function of a random generator; it returns a `Plan`. Numbers that a source does not state are said to be
ours in its docstring.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gaussianverse.manifests.errors import RenderError
from gaussianverse.manifests.rendering.meshes import EXTENT, Measure
from gaussianverse.manifests.rendering.rig import Camera, Rig, cropped, directions, fitting_radius, intrinsics, poses

MAX_SIZE = 4096  # pixels a side
GOBJAVERSE_FOV = 0.6911503  # radians: 39.6 degrees, as its JSON files write it


@dataclass(frozen=True)
class Fit:
    """The smallest distance that keeps the whole object in every frame, and at least `least`."""

    least: float = 0.0


@dataclass(frozen=True, eq=False)
class Plan:
    """A rig before it meets an object.

    Attributes:
        toward: unit vectors [V, 3] from the origin to the cameras.
        fov: field of view in radians, of all views or of each [V].
        radius: distance of all cameras, of each [V], or a rule.
        inputs: as in `Rig`.
        size: pixels a side.
        extent: length of the object.
        measure: the side or diagonal of the object's bounding box whose length that is.
        version: as in `Rig`.
    """

    toward: NDArray[np.float64]
    fov: NDArray[np.float64] | float
    radius: NDArray[np.float64] | float | Fit
    inputs: tuple[int, ...] = ()
    size: int = 512
    extent: float = EXTENT
    measure: Measure = "longest side"
    version: int = 1


@dataclass(frozen=True)
class Options:
    """Choices of a preset's user; None leaves the preset's own.

    Attributes:
        fov: field of view in degrees.
        radius: distance of all cameras, or "fit", the smallest that keeps the whole object in every frame.
        extent: length of the object's longest side.
        size: pixels a side.
        seed: of what the preset draws for an object.
        vary_elevation: draw the elevation of `gobjaverse`'s upper ring per object.
    """

    fov: float | None = None
    radius: float | Literal["fit"] | None = None
    extent: float | None = None
    size: int | None = None
    seed: int = 0
    vary_elevation: bool = False


def gobjaverse(random: np.random.Generator, options: Options) -> Plan:
    """GObjaverse's 40 views, 38 of them distinct.

    Views 0-23 circle the object from above, 24 repeats 0, 25 looks down, 26 looks up, 27-38 circle it near the
    horizon, 39 repeats 27. The elevations of the rings are 25 and -3 degrees; the real ones vary by object, from 5 to
    30 and from -5 to 5, and with `vary_elevation` the upper one is drawn so.
    """
    above = np.radians(random.uniform(5, 30) if options.vary_elevation else 25.0)
    upper = [(np.radians(15.0 * i), above) for i in range(25)]
    poles = [(0.0, np.pi / 2), (0.0, -np.pi / 2)]
    lower = [(np.radians(30.0 * i), np.radians(-3.0)) for i in range(13)]
    upper[24], lower[12] = upper[0], lower[0]  # exactly equal, without rounding errors
    azimuth, elevation = np.array(upper + poles + lower).T
    return Plan(directions(azimuth, elevation), GOBJAVERSE_FOV, Fit(1.5))


PRESETS: dict[str, Callable[[np.random.Generator, Options], Plan]] = {"gobjaverse": gobjaverse}


def plan(preset: str, options: Options, key: str) -> Plan:
    """The plan of a preset for one object, with the user's choices.

    Args:
        preset: a name in `PRESETS`.
        options: the user's choices.
        key: names the object; draws are a function of it, the preset and the seed.

    Raises:
        RenderError: the preset is unknown, or a choice is out of range.
    """
    if preset not in PRESETS:
        raise RenderError(f"unknown preset {preset!r}; there are {', '.join(PRESETS)}")
    if options.vary_elevation and preset != "gobjaverse":
        raise RenderError(f"--vary-elevation is for the preset gobjaverse, not for {preset}")
    digest = hashlib.sha256(f"{preset}/{options.seed}/{key}".encode()).digest()
    found = PRESETS[preset](np.random.default_rng(list(digest)), options)
    if options.fov is not None:
        if not 1 <= options.fov <= 150:
            raise RenderError(f"--fov {options.fov:g}: expected 1 to 150 degrees")
        found = replace(found, fov=np.radians(options.fov))
    if options.radius is not None:
        if options.radius != "fit" and not 0.1 <= options.radius <= 1000:
            raise RenderError(f"--radius {options.radius:g}: expected 0.1 to 1000, or fit")
        found = replace(found, radius=Fit() if options.radius == "fit" else options.radius)
    if options.extent is not None:
        if not 0.01 <= options.extent <= 100:
            raise RenderError(f"--extent {options.extent:g}: expected 0.01 to 100")
        found = replace(found, extent=options.extent, measure="longest side")
    if options.size is not None:
        if not 1 <= options.size <= MAX_SIZE:
            raise RenderError(f"--size {options.size}: expected 1 to {MAX_SIZE} pixels")
        found = replace(found, size=options.size)
    return found


def build(preset: str, plan: Plan, seed: int, points: NDArray[np.floating]) -> Rig:
    """The rig of a plan around an object with vertices `points` [N, 3]."""
    fov = np.broadcast_to(plan.fov, len(plan.toward))
    radius = plan.radius
    if isinstance(radius, Fit):
        radius = fitting_radius(points, plan.toward, fov, least=radius.least)
    cameras = tuple(
        Camera(c2w, intrinsics(float(angle), plan.size, plan.size), plan.size, plan.size)
        for c2w, angle in zip(poses(plan.toward, radius), fov, strict=True)
    )
    return Rig(preset, plan.version, seed, cameras, plan.inputs)


def crop_warning(rig: Rig, plan: Plan, points: NDArray[np.floating]) -> str | None:
    """What to say of a rig that crops the object, with the radius that would not; None if it does not."""
    views = cropped(points, rig.cameras)
    if not views:
        return None
    enough = fitting_radius(points, plan.toward, np.broadcast_to(plan.fov, len(plan.toward)))
    return (
        f"the object leaves the frame in {len(views)} of {len(rig.cameras)} views; "
        f"--radius {np.ceil(100 * enough) / 100:.2f} keeps it in all, as does --radius fit"
    )
