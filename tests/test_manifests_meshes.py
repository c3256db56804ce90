"""Meshes: axes, normalisation, colours of every origin, what is left out."""

from pathlib import Path

import numpy as np
import pytest
from glb import LINES, POINTS, Glb, box

from manifests.errors import RenderError
from manifests.meshes import Mesh, load_mesh

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "meshes"
pytest.importorskip("trimesh", reason="needs the extra 'render'")


def load(tmp_path: Path, glb: Glb) -> Mesh:
    (tmp_path / "m.glb").write_bytes(bytes(glb))
    return load_mesh(tmp_path / "m.glb")


def test_normalised_centred_and_z_up(tmp_path: Path) -> None:
    """A glTF box 10 wide (x), 40 tall (y), 20 deep (z) becomes 10 x 20 x 40 times 0.9 / 40."""
    mesh = load(tmp_path, Glb().add(*box((7, -3, 100), (10, 40, 20))))
    low, high = mesh.points.min(0), mesh.points.max(0)
    np.testing.assert_allclose(high, np.array([10, 20, 40]) * 0.9 / 80, rtol=1e-5)
    np.testing.assert_allclose(low, -high, rtol=1e-5)
    assert mesh.scale == pytest.approx(0.9 / 40)
    np.testing.assert_allclose(mesh.offset, -0.9 / 40 * np.array([7, -100, -3]), rtol=1e-6)


def test_gltf_up_is_z_and_gltf_front_is_minus_y(tmp_path: Path) -> None:
    glb = Glb().add(*box()).add(*box((0, 2, 0), (0.1, 0.1, 0.1))).add(*box((0, 0, 1), (0.1, 0.1, 0.1)))
    mesh = load(tmp_path, glb)
    centers = [(part.vertices.min(0) + part.vertices.max(0)) / 2 for part in mesh.parts]
    up = [(c - centers[0]) / mesh.scale for c in centers[1:]]
    np.testing.assert_allclose(sorted(map(tuple, np.round(up, 4) + 0.0)), [(0, -1, 0), (0, 0, 2)], atol=1e-4)


def test_node_matrices_move_parts_and_mirrored_ones_stay_outward(tmp_path: Path) -> None:
    mirror = np.diag([-2.0, 1, 1, 1])
    mesh = load(tmp_path, Glb().add(*box(), matrix=mirror))
    (part,) = mesh.parts
    a, b, c = part.vertices[part.faces].transpose(1, 0, 2)
    geometric = np.cross(b - a, c - a)
    assert (np.einsum("fi,fi->f", geometric, (a + b + c)) > 0).all()
    assert (np.einsum("fi,fi->f", geometric, part.normals[part.faces[:, 0]]) > 0).all()
    np.testing.assert_allclose(np.linalg.norm(part.normals, axis=1), 1, rtol=1e-5)


def test_colours_multiply(tmp_path: Path) -> None:
    """glTF: colour = factor x texture x vertex colour, the factor and vertex colour being linear."""
    half = np.full((24, 4), 128, np.uint8)
    texture = np.full((2, 2, 3), 200)
    glb = Glb().add(*box(), factor=(0.5, 1, 1, 1), colors=half, uv=np.zeros((24, 2)), texture=texture)
    (part,) = load(tmp_path, glb).parts
    np.testing.assert_allclose(part.colors[0], [0.25, 0.5, 0.5, 0.5], atol=0.005)
    assert part.texture is not None
    assert (part.texture == [200, 200, 200, 255]).all()
    assert part.cutoff == 0


@pytest.mark.parametrize(
    "colors",
    [np.tile(np.float32([0.2, 0.4, 0.6, 1]), (24, 1)), np.tile(np.uint8([51, 102, 153, 255]), (24, 1))],
)
@pytest.mark.parametrize("material", [{}, {"factor": (1, 1, 1, 1)}])
def test_vertex_colours_alone_of_either_type(
    colors: np.ndarray, material: dict[str, object], tmp_path: Path
) -> None:
    (part,) = load(tmp_path, Glb().add(*box(), colors=colors, **material)).parts  # type: ignore[arg-type]
    np.testing.assert_allclose(part.colors, np.tile([0.2, 0.4, 0.6, 1], (24, 1)), atol=0.003)


def test_no_material_is_white(tmp_path: Path) -> None:
    (part,) = load(tmp_path, Glb().add(*box())).parts
    assert (part.colors == 1).all()


@pytest.mark.parametrize(
    ("material", "cutoff"),
    [
        ({"alphaMode": "OPAQUE"}, 0.0),
        ({"alphaMode": "MASK"}, 0.5),
        ({"alphaMode": "MASK", "alphaCutoff": 0.2}, 0.2),
        ({"alphaMode": "BLEND"}, None),
    ],
)
def test_alpha_modes(material: dict[str, object], cutoff: float | None, tmp_path: Path) -> None:
    (part,) = load(tmp_path, Glb().add(*box(), factor=(1, 1, 1, 0.5), **material)).parts  # type: ignore[arg-type]
    assert part.cutoff == cutoff


def test_lines_and_points_are_left_out(tmp_path: Path) -> None:
    far = [(50, 0, 0), (60, 0, 0)]
    mesh = load(tmp_path, Glb().add(far, [0, 1], mode=LINES).add(*box()).add(far, [0, 1], mode=POINTS))
    assert len(mesh.parts) == 1
    assert mesh.scale == pytest.approx(0.9)


def test_vertices_that_no_triangle_uses_do_not_count(tmp_path: Path) -> None:
    vertices, faces = box()
    assert load(tmp_path, Glb().add(np.r_[vertices, [[99, 99, 99]]], faces)).scale == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("glb", "message"),
    [
        (Glb().add([(0, 0, 0), (1, 0, 0)], [0, 1], mode=LINES), "no triangles"),
        (Glb(), "no triangles|cannot be read"),
        (Glb().add([(1, 1, 1)] * 3, [0, 1, 2]), "one point"),
        (Glb().add([(0, 0, 0), (1, 0, 0), (0, np.nan, 0)], [0, 1, 2]), "NaN"),
    ],
)
def test_nothing_to_draw_is_an_error(glb: Glb, message: str, tmp_path: Path) -> None:
    with pytest.raises(RenderError, match=message):
        load(tmp_path, glb)


@pytest.mark.parametrize("data", [b"", b"not a mesh", bytes(Glb().add(*box()))[:200]])
def test_broken_files(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.glb").write_bytes(data)
    with pytest.raises(RenderError, match=r"m\.glb: (cannot be read|no triangles)"):
        load_mesh(tmp_path / "m.glb")
    with pytest.raises(RenderError, match="no such file"):
        load_mesh(tmp_path / "absent.glb")


@pytest.mark.skipif(not DATA.is_dir(), reason="shared sample data is absent")
@pytest.mark.parametrize("path", sorted(DATA.rglob("*.glb")), ids=lambda path: path.stem[:12])
def test_real_files_load_normalised(path: Path) -> None:
    mesh = load_mesh(path)
    extent = mesh.points.max(0) - mesh.points.min(0)
    assert extent.max() == pytest.approx(0.9, rel=1e-5)
    assert all(part.faces.max() < len(part.vertices) for part in mesh.parts)
