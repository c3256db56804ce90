"""OBJ with MTL, PLY and STL: axes, colours, normals, and files that they name."""

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from glb import png

from gaussianverse.manifests.errors import RenderError
from gaussianverse.manifests.rendering.meshes import Mesh, load_mesh

pytest.importorskip("trimesh", reason="needs the extra 'meshes'")

OBJ = """mtllib m.mtl
v 0 0 0
v 2 0 0
v 2 1 0
v 0 1 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl plain
f 1/1 2/2 3/3
usemtl image
f 1/1 3/3 4/4
"""
MTL = """newmtl plain
Kd 0.25 0.5 1
d 0.5
Ke 0 0.125 0
newmtl image
Kd 0.1 0.1 0.1
map_Kd t.png
"""


def write(folder: Path, obj: str = OBJ, mtl: str | None = MTL, texture: bytes | None = b"") -> Path:
    (folder / "m.obj").write_text(obj)
    if mtl is not None:
        (folder / "m.mtl").write_text(mtl)
    if texture is not None:
        (folder / "t.png").write_bytes(texture or png(np.full((2, 2, 3), (10, 20, 30))))
    return folder / "m.obj"


def test_obj_is_turned_and_has_its_materials(tmp_path: Path) -> None:
    mesh = load_mesh(write(tmp_path))
    size = mesh.points.max(0) - mesh.points.min(0)
    np.testing.assert_allclose(size, [0.9, 0, 0.45], atol=1e-6)  # y is up
    (plain,) = (part for part in mesh.parts if part.base is None)
    (image,) = (part for part in mesh.parts if part.base is not None)
    np.testing.assert_allclose(plain.colors, np.tile([0.25, 0.5, 1, 0.5], (3, 1)), atol=0.003)
    assert plain.cutoff is None
    assert plain.emissive == (0, 0.125, 0)
    np.testing.assert_allclose(image.colors, 1)  # the texture takes the place of Kd, as in Blender
    assert image.base is not None
    assert (image.base.image == [10, 20, 30, 255]).all()
    np.testing.assert_allclose(image.base.uv, [(0, 0), (1, 1), (0, 1)])  # lower left
    assert image.cutoff == 0
    assert (image.normals == 0).all()  # flat: the file has none
    with_normals = OBJ.replace("usemtl plain", "vn 0 0 1\nusemtl plain", 1).replace(
        "f 1/1 2/2 3/3", "f 1/1/1 2/2/1 3/3/1"
    )
    named = load_mesh(write(tmp_path, with_normals.replace("f 1/1 3/3 4/4", "f 1/1/1 3/3/1 4/4/1")))
    np.testing.assert_allclose(named.parts[0].normals, np.tile([0, -1, 0], (3, 1)), atol=1e-6)


@pytest.mark.parametrize(
    ("mtl", "texture", "message"),
    [
        (None, b"", r"'m\.mtl', which colours it, cannot be read \(No such file"),
        (MTL, None, r"'t\.png', which colours it, cannot be read \(No such file"),
        (MTL, b"nonsense", r"'t\.png' cannot be decoded"),
        (MTL.replace("t.png", "../t.png"), b"", r"'\.\./t\.png' is not beside the file"),
        (MTL.replace("t.png", "/etc/passwd"), b"", "'/etc/passwd' is not beside the file"),
    ],
)
def test_files_that_are_named_and_missing(
    mtl: str | None, texture: bytes | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(RenderError, match=rf"m\.obj: {message}"):
        load_mesh(write(tmp_path, OBJ, mtl, texture))


def test_what_mtl_has_and_is_not_drawn_is_noted(tmp_path: Path) -> None:
    mesh = load_mesh(write(tmp_path, mtl=MTL + "map_Bump t.png\n"))
    assert mesh.left_out == ("map_bump",)


CORNERS = [(0, 0, 0), (4, 0, 0), (0, 2, 0), (0, 0, 1)]
TETRAHEDRON = [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]


def ply(colors: bool) -> str:
    head = f"ply\nformat ascii 1.0\nelement vertex {len(CORNERS)}\n"
    head += "".join(f"property float {axis}\n" for axis in "xyz")
    if colors:
        head += "property uchar red\nproperty uchar green\nproperty uchar blue\n"
    head += f"element face {len(TETRAHEDRON)}\nproperty list uchar int vertex_indices\nend_header\n"
    rows = [" ".join(map(str, [*corner, *([188, 0, 255] if colors else [])])) for corner in CORNERS]
    return head + "\n".join([*rows, *(f"3 {a} {b} {c}" for a, b, c in TETRAHEDRON)]) + "\n"


def stl() -> bytes:
    out = io.BytesIO(bytes(80) + struct.pack("<I", len(TETRAHEDRON)))
    out.seek(0, io.SEEK_END)
    for face in TETRAHEDRON:
        a, b, c = (np.array(CORNERS[i], np.float32) for i in face)
        normal = np.cross(b - a, c - a)
        out.write(np.array([normal, a, b, c], "<f4").tobytes() + bytes(2))
    return out.getvalue()


def sizes(mesh: Mesh) -> np.ndarray:
    return np.asarray((mesh.points.max(0) - mesh.points.min(0)) / mesh.scale)


def test_ply_is_z_up_with_colours_of_its_vertices(tmp_path: Path) -> None:
    (tmp_path / "m.ply").write_text(ply(True))
    mesh = load_mesh(tmp_path / "m.ply")
    np.testing.assert_allclose(sizes(mesh), [4, 2, 1], rtol=1e-6)
    np.testing.assert_allclose(mesh.parts[0].colors, np.tile([0.5029, 0, 1, 1], (4, 1)), atol=1e-4)  # sRGB 188
    (tmp_path / "m.ply").write_text(ply(False))
    assert (load_mesh(tmp_path / "m.ply").parts[0].colors == 1).all()


def test_stl_is_z_up_and_flat(tmp_path: Path) -> None:
    (tmp_path / "m.STL").write_bytes(stl())
    mesh = load_mesh(tmp_path / "m.STL")
    np.testing.assert_allclose(sizes(mesh), [4, 2, 1], rtol=1e-6)
    assert len(mesh.parts[0].faces) == 4
    assert (mesh.parts[0].normals == 0).all()


@pytest.mark.parametrize("name", ["m.obj", "m.ply", "m.stl"])
def test_broken_and_missing_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RenderError, match=f"{name}: no such file"):
        load_mesh(tmp_path / name)
    for data in (b"", b"nonsense", b"ply\nformat ascii 1.0\nend_header\n", bytes(84)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(RenderError, match=rf"{name}: (no triangles|cannot be read as {name[2:]})"):
            load_mesh(tmp_path / name)
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(RenderError, match=r"needs trimesh: pip install 'gaussianverse\[meshes\]'"):
        load_mesh(tmp_path / name)


def test_points_without_triangles_are_no_mesh(tmp_path: Path) -> None:
    (tmp_path / "m.ply").write_text(ply(False).split("element face")[0] + "end_header\n0 0 0\n4 0 0\n0 2 0\n0 0 1\n")
    with pytest.raises(RenderError, match="no triangles"):
        load_mesh(tmp_path / "m.ply")


def test_colours_that_are_nan_are_refused(tmp_path: Path) -> None:
    for line in ("Kd nan 0.5 1", "Kd 0.25 0.5 1\nKe 0 nan 0"):
        with pytest.raises(RenderError, match="colours that are NaN or infinite"):
            load_mesh(write(tmp_path, mtl=MTL.replace("Kd 0.25 0.5 1\nd 0.5\nKe 0 0.125 0", line)))
