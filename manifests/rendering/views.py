"""Views of a mesh in GObjaverse's layout, with `rig.json` beside them."""

import hashlib
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gaussianverse import foreign
from gaussianverse.manifests.errors import RenderError
from gaussianverse.manifests.rendering import presets
from gaussianverse.manifests.rendering.drawing import DRAWING, Renderer, Shading
from gaussianverse.manifests.rendering.layouts.encode import png
from gaussianverse.manifests.rendering.layouts.gobjaverse import camera_json, nd_exr
from gaussianverse.manifests.rendering.meshes import Mesh, load_mesh
from gaussianverse.manifests.rendering.rig import FILE, Camera, Rig, dumps, read


@dataclass(frozen=True)
class RenderConfig:
    """How meshes are rendered.

    Attributes:
        preset: name of the camera rig, one of `presets.PRESETS`.
        options: choices within the preset.
        shading: "diffuse", a soft light fixed in the world, or "albedo", base colour alone.
        geometry: whether to write `_nd.exr`, normals and z-depth.
    """

    preset: str = "gobjaverse"
    options: presets.Options = field(default_factory=presets.Options)
    shading: Shading = "diffuse"
    geometry: bool = True

    def plan(self, key: str) -> presets.Plan:
        """The plan of the rig for the object with a key; raises RenderError for settings that are out of range."""
        return presets.plan(self.preset, self.options, key)

    def facts(self, plan: presets.Plan, mesh_sha256: str) -> dict[str, Any]:
        """Entries of `rig.json` that two renders have in common exactly if they are of the same mesh and settings."""
        chosen = asdict(self.options)
        chosen.pop("seed")
        return {
            "units": f"{plan.measure} of the object = {plan.extent:g}",
            "depth": "z" if self.geometry else "none",
            "normals": "world" if self.geometry else "none",
            "background": "transparent, straight alpha",
            "shading": self.shading,
            "drawing": DRAWING,
            "options": {key: value for key, value in chosen.items() if value != _OPTIONS[key]},
            "mesh_sha256": mesh_sha256,
        }


@dataclass(frozen=True)
class Rendered:
    """Finished views of a mesh.

    Attributes:
        rig: their cameras.
        warnings: that the rig crops the object, for instance.
        left_out: names of what the mesh has and is not drawn; empty where the views were found.
        drawn: whether they were drawn now, and not found.
    """

    rig: Rig
    warnings: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    drawn: bool = True


_DEFAULT = RenderConfig()
_OPTIONS = asdict(presets.Options())


def render_mesh(
    mesh_path: Path, out_dir: Path, config: RenderConfig = _DEFAULT, work: Path | None = None
) -> Rendered:
    """Render a mesh to the views of a rig, `VVVVV/VVVVV.{json,png,_nd.exr}` as in GObjaverse, and `rig.json`.

    The mesh is turned z-up, centred, and scaled to a longest side of 0.9 or what its preset says.

    Args:
        mesh_path: a mesh that `load_mesh` reads.
        out_dir: a folder that is empty or does not exist.
        config: rig, size and shading.
        work: folder for unfinished views, on the same disk; by default that of `out_dir`.

    Raises:
        RenderError: the mesh cannot be read or drawn, a setting is out of range, or `out_dir` is not empty.
    """
    if _occupied(out_dir):
        raise RenderError(f"{out_dir}: not empty; choose another folder or remove it")
    return _render(mesh_path, mesh_digest(mesh_path), out_dir, config, work or out_dir.parent)


def render_or_find(mesh_path: Path, out_dir: Path, config: RenderConfig, work: Path) -> Rendered:
    """Render a mesh as `render_mesh` does, unless `out_dir` has just that render.

    Raises:
        RenderError: as in `render_mesh`, or `out_dir` holds something else.
    """
    digest = mesh_digest(mesh_path)
    if not _occupied(out_dir):
        return _render(mesh_path, digest, out_dir, config, work)
    plan = config.plan(digest)
    rig, found = read(out_dir)
    there = {"preset": rig.preset, "version": rig.version, "seed": rig.seed, **found}
    wanted = {"preset": config.preset, "version": plan.version, "seed": config.options.seed}
    wanted |= config.facts(plan, digest)
    other = [f"{key} {there.get(key)!r}, not {value!r}" for key, value in wanted.items() if there.get(key) != value]
    if other:
        raise RenderError(f"{out_dir}: holds another render ({'; '.join(other)}); choose another folder or remove it")
    return Rendered(rig, drawn=False)


def _occupied(folder: Path) -> bool:
    return folder.exists() and any(folder.iterdir())


@dataclass(frozen=True)
class Posed:
    """A mesh among the cameras of its rig.

    Attributes:
        mesh: the mesh, in the world of the cameras.
        rig: the cameras.
        facts: entries of `rig.json` but the rig's own.
        where: those of them that say where the mesh went: bbox, scale, offset.
        warnings: says that the rig crops the object, if it does.
    """

    mesh: Mesh
    rig: Rig
    facts: dict[str, Any]
    where: dict[str, Any]
    warnings: tuple[str, ...]


def pose(mesh_path: Path, digest: str, config: RenderConfig) -> Posed:
    """Read a mesh and place the cameras of a rig around it.

    Raises:
        RenderError: the mesh cannot be read, or a setting is out of range.
    """
    plan = config.plan(digest)
    mesh = load_mesh(mesh_path, extent=plan.extent, measure=plan.measure)
    points = mesh.points
    rig = presets.build(config.preset, plan, config.options.seed, points)
    box = [points.min(0).tolist(), points.max(0).tolist()]
    where = {"bbox": box, "scale": mesh.scale, "offset": mesh.offset.tolist()}
    facts = {**config.facts(plan, digest), "left_out": list(mesh.left_out), **where}
    cropped = presets.crop_warning(rig, plan, points)
    return Posed(mesh, rig, facts, where, (cropped,) if cropped else ())


def _render(mesh_path: Path, digest: str, out_dir: Path, config: RenderConfig, work: Path) -> Rendered:
    posed = pose(mesh_path, digest, config)
    work.mkdir(parents=True, exist_ok=True)
    with (
        Renderer(posed.mesh, shading=config.shading) as renderer,
        tempfile.TemporaryDirectory(dir=work, prefix=".render-") as temporary,
    ):
        finished = Path(temporary) / "views"  # moved when complete: readers accept an object with fewer views
        for view, camera in enumerate(posed.rig.cameras):
            _write_view(finished / f"{view:05d}", camera, renderer, posed.where, config.geometry)
        (finished / FILE).write_text(dumps(posed.rig, posed.facts))
        finished.replace(out_dir)
    return Rendered(posed.rig, posed.warnings, posed.mesh.left_out)


def _write_view(folder: Path, camera: Camera, renderer: Renderer, where: dict[str, Any], geometry: bool) -> None:
    folder.mkdir(parents=True)
    (folder / f"{folder.name}.json").write_text(camera_json(camera, where))
    (folder / f"{folder.name}.png").write_bytes(png(renderer.color(camera)))
    if geometry:
        drawn = renderer.geometry(camera)
        (folder / f"{folder.name}_nd.exr").write_bytes(nd_exr(drawn[..., :3], drawn[..., 3]))


def mesh_digest(path: Path) -> str:
    """SHA-256 of a mesh file; draws of presets and `rig.json` name the mesh by it.

    Raises:
        RenderError: the file does not exist.
    """
    if not path.is_file():
        raise RenderError(f"{path}: no such file")
    return hashlib.sha256(foreign.read_bytes(path)).hexdigest()
