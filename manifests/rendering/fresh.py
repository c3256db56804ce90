"""Views of a mesh, drawn straight into another project's layout."""

from pathlib import Path

import numpy as np

from gaussianverse.manifests.rendering.drawing import Renderer
from gaussianverse.manifests.rendering.layouts.posed import PosedView, Subject, Surface
from gaussianverse.manifests.rendering.layouts.root import Root
from gaussianverse.manifests.rendering.meshes import Mesh
from gaussianverse.manifests.rendering.rig import Rig
from gaussianverse.manifests.rendering.views import RenderConfig, Rendered, mesh_digest, pose
from gaussianverse.manifests.schema import Row


def render_into(root: Root, mesh_path: Path, row: Row, config: RenderConfig) -> Rendered:
    """Render a mesh into a root of data, unless it has just that render.

    Args:
        root: the root, opened.
        mesh_path: a mesh that `load_mesh` reads.
        row: uid and texts of the object.
        config: rig, size and shading.

    Raises:
        RenderError: the mesh cannot be read or drawn, or a setting is out of range.
        LayoutError: the layout cannot hold these views, or has the object from another render.
        OSError: the root cannot be written.
    """
    digest = mesh_digest(mesh_path)
    posed = pose(mesh_path, digest, config)
    subject = Subject(
        row.uid, digest, posed.rig, row.category, row.captions, row.split, row.license, row.source_id, row.extras,
        posed.facts, _surface(posed.mesh),
    )  # fmt: skip
    if root.has(subject):
        return Rendered(posed.rig, drawn=False)
    geometry = config.geometry and root.needs_geometry
    list(root.layout.check(subject, _blank(posed.rig, geometry)))  # refuse before drawing
    views = []
    with Renderer(posed.mesh, shading=config.shading) as renderer:
        for k, camera in enumerate(posed.rig.cameras):
            drawn = renderer.geometry(camera) if geometry else None
            views.append(
                PosedView(
                    f"{k:05d}",
                    renderer.color(camera),
                    camera,
                    None if drawn is None else drawn[..., 3],
                    None if drawn is None else drawn[..., :3],
                )
            )
    warnings = root.add(subject, views)
    return Rendered(posed.rig, (*posed.warnings, *warnings), posed.mesh.left_out)


def _blank(rig: Rig, geometry: bool) -> list[PosedView]:
    """The views as far as they are known before they are drawn."""
    image, depth, normal = (
        np.zeros((1, 1, 4), np.uint8),
        np.zeros((1, 1), np.float32),
        np.zeros((1, 1, 3), np.float32),
    )
    maps = (depth, normal) if geometry else (None, None)
    return [PosedView(f"{k:05d}", image, camera, *maps) for k, camera in enumerate(rig.cameras)]


def _surface(mesh: Mesh) -> Surface:
    starts = np.cumsum([0, *(len(part.vertices) for part in mesh.parts)])
    faces = [part.faces.astype(np.int64) + start for part, start in zip(mesh.parts, starts[:-1], strict=True)]
    vertices = np.concatenate([part.vertices for part in mesh.parts]).astype(np.float32)
    return Surface(vertices, np.concatenate(faces))
