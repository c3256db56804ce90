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
_SRN_FOV = np.radians(51.989)


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
        condition: the view of `orbit21` that a model is given.
    """

    fov: float | None = None
    radius: float | Literal["fit"] | None = None
    extent: float | None = None
    size: int | None = None
    seed: int = 0
    vary_elevation: bool = False
    condition: Literal["first", "last"] = "first"


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


def gsv3d(random: np.random.Generator, options: Options) -> Plan:
    """GSV3D's 84 training views (its section 4.1): azimuths all round, one elevation from -5 to 30 degrees an object.

    The 16 inputs are at regular intervals, floor(84 k / 16). Field of view, radius and size are not stated; ours are
    those of `gobjaverse`.
    """
    inputs = tuple(84 * k // 16 for k in range(16))
    return Plan(_ring(84, random.uniform(-5, 30)), GOBJAVERSE_FOV, Fit(1.5), inputs)


def orbit21(random: np.random.Generator, options: Options) -> Plan:
    """The 21 views of SV3D, on which GSV3D is evaluated (its section 4.1), at one elevation from -5 to 30 degrees.

    GSV3D's condition is the first view. With `condition="last"` the orbit ends at it, as in SV3D
    (generative-models, scripts/sampling/simple_video_sample.py). 576 px is SV3D's size; field of view and radius are
    no inputs of it, and ours are those of `gobjaverse`.
    """
    toward = _ring(21, random.uniform(-5, 30))
    condition = 0
    if options.condition == "last":
        toward, condition = np.roll(toward, -1, axis=0), 20
    return Plan(toward, GOBJAVERSE_FOV, Fit(1.5), (condition,), size=576)


def gen3d(random: np.random.Generator, options: Options) -> Plan:
    """Gen-3Diffusion's 132 views (assets/cam_poses_objnew): `lgm`'s 100, then 32 at elevation 0, 11.25 degrees apart.

    Its four orthogonal input views are 108, 116, 124 and 100. 512 px is its output size; it scales inputs to 256.
    """
    toward = np.concatenate([_spiral(), _ring(32, 0.0, start=-90.0)])
    return Plan(toward, np.radians(49.1), 1.5, (108, 116, 124, 100))


def lgm(random: np.random.Generator, options: Options) -> Plan:
    """LGM's 100 views at radius 1.5 and 49.1 degrees (core/options.py), on the spiral that Gen-3Diffusion ships.

    LGM publishes no poses; Gen-3Diffusion trains on LGM's list of objects. LGM draws its inputs from views 36 to 72
    (core/provider_objaverse.py), which are those near the horizon.
    """
    return Plan(_spiral(), np.radians(49.1), 1.5, tuple(range(36, 73)))


def trellis(random: np.random.Generator, options: Options) -> Plan:
    """TRELLIS' 150 views of 512 px at radius 2 and 40 degrees (dataset_toolkits/render.py), longest side 1."""
    return Plan(_hammersley(150, random), np.radians(40.0), 2.0, extent=1.0)


def trellis_cond(random: np.random.Generator, options: Options) -> Plan:
    """TRELLIS' 24 condition views of 1,024 px (dataset_toolkits/render_cond.py), longest side 1.

    Fields of view lie between 10 and 70 degrees, with 1 / radius^2 drawn uniformly; the sphere around the unit cube
    touches every frame. With `fov` all views have that one, and the radius that belongs to it.
    """
    reach = np.sqrt(3) / 2
    toward = _hammersley(24, random)
    low, high = ((np.sin(np.radians(fov / 2)) / reach) ** 2 for fov in (10.0, 70.0))
    radius = 1 / np.sqrt(random.uniform(low, high, 24))
    if options.fov is not None:
        radius = np.full(24, reach / np.sin(np.radians(options.fov / 2)))
    return Plan(toward, 2 * np.arcsin(reach / radius), radius, tuple(range(24)), size=1024, extent=1.0)


def zero123(random: np.random.Generator, options: Options) -> Plan:
    """Zero123's 12 views (objaverse-rendering/scripts/blender_script.py): random directions, radius 1.5 to 2.2.

    The lens is 35 mm on 32 mm, which is 49.13 degrees; the longest side is 1. Directions are points of a cube, scaled
    to the sphere.
    """
    cube = random.uniform(-1, 1, (12, 3))
    toward = cube / np.linalg.norm(cube, axis=1, keepdims=True)
    return Plan(toward, 2 * np.arctan(32 / 2 / 35), random.uniform(1.5, 2.2, 12), extent=1.0)


def zero123plus(random: np.random.Generator, options: Options) -> Plan:
    """The condition view of Zero123++ and its six targets, as InstantMesh fine-tunes it, at 30 degrees and 320 px.

    Targets are at azimuths 30, 90, .. 330 from the condition and elevations 20 and -10 in turn (InstantMesh,
    src/utils/camera_util.py, which has radius 4 around an object of length 2). Neither states where the condition
    view is: ours has any azimuth and an elevation from -5 to 30 degrees.
    """
    start = random.uniform(0, 360)
    azimuth = start + np.array([0.0, 30, 90, 150, 210, 270, 330])
    elevation = np.array([random.uniform(-5, 30), 20, -10, 20, -10, 20, -10])
    return Plan(directions(np.radians(azimuth), np.radians(elevation)), np.radians(30.0), Fit(4.0), (0,), 320, 2.0)


def instantmesh(random: np.random.Generator, options: Options) -> Plan:
    """InstantMesh's 32 random views at 50 degrees (src/data/objaverse.py) around an object of length 2.

    Its loader takes the poses from the file and draws inputs among all views, so the radius is free: ours keeps the
    object in frame, and is at least the 2.5 of its validation cameras.
    """
    height, azimuth = random.uniform(-1, 1, 32), random.uniform(0, 2 * np.pi, 32)
    return Plan(directions(azimuth, np.arcsin(height)), np.radians(50.0), Fit(2.5), tuple(range(32)), extent=2.0)


def srn(random: np.random.Generator, options: Options) -> Plan:
    """The 50 training views of Scene Representation Networks' cars: 128 px, 51.989 degrees, random on the sphere.

    The radius of 1.3 is that of cars around an object whose bounding box has a diagonal of 1 (Splatter Image draws
    depth from 0.8 to 1.8); chairs have 2.
    """
    height, azimuth = random.uniform(-1, 1, 50), random.uniform(0, 2 * np.pi, 50)
    return Plan(directions(azimuth, np.arcsin(height)), _SRN_FOV, 1.3, size=128, extent=1.0, measure="diagonal")


def srn_test(random: np.random.Generator, options: Options) -> Plan:
    """The 251 test views that belong to `srn`, on a spiral from the horizon to the pole; the input is view 64.

    With two inputs Splatter Image (scene/srn.py) takes views 64 and 128.
    """
    toward = directions(np.linspace(20, 40, 251), np.linspace(0, np.pi / 2, 251))
    return Plan(toward, _SRN_FOV, 1.3, (64,), size=128, extent=1.0, measure="diagonal")


def _ring(count: int, elevation: float, *, start: float = 0.0) -> NDArray[np.float64]:
    """Unit vectors [count, 3] at one elevation, azimuths at equal steps from `start`; in degrees."""
    azimuth = start + 360 / count * np.arange(count)
    return directions(np.radians(azimuth), np.full(count, np.radians(elevation)))


def _spiral() -> NDArray[np.float64]:
    """Gen-3Diffusion's first 100 unit vectors: seven and a half turns, from 60 degrees below to 58.8 above."""
    view = np.arange(100)
    return directions(np.radians(-90 + 300 / 11 * view), np.radians(-60 + 1.2 * view))


def _hammersley(count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """TRELLIS' unit vectors [count, 3] (dataset_toolkits/utils.py): a Hammersley set with a random offset.

    A quarter of its heights is spread over the lower half of the sphere, three quarters over the upper one.
    """
    inverse = [sum(int(bit) / 2 ** (k + 1) for k, bit in enumerate(f"{n:b}"[::-1])) for n in range(count)]
    u, v = np.arange(count) / count + random.uniform() / count, np.array(inverse) + random.uniform()
    u = np.where(u < 0.25, 2 * u, 2 / 3 * u + 1 / 3)
    return directions(2 * np.pi * v, np.arccos(1 - 2 * u) - np.pi / 2)


PRESETS: dict[str, Callable[[np.random.Generator, Options], Plan]] = {
    "gobjaverse": gobjaverse,
    "gsv3d": gsv3d,
    "orbit21": orbit21,
    "gen3d": gen3d,
    "lgm": lgm,
    "trellis": trellis,
    "trellis-cond": trellis_cond,
    "zero123": zero123,
    "zero123plus": zero123plus,
    "instantmesh": instantmesh,
    "srn": srn,
    "srn-test": srn_test,
}


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
    if options.condition != "first" and preset != "orbit21":
        raise RenderError(f"--condition is for the preset orbit21, not for {preset}")
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
