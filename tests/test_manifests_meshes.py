"""Meshes: axes, normalisation, colours from every source, and ignored content."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from glb import FAN, LINES, POINTS, STRIP, Glb, box

from gaussianverse.manifests.errors import RenderError
from gaussianverse.manifests.rendering.meshes import Mesh, load_mesh

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "meshes"


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


def test_a_root_far_out_leaves_every_vertex_in_its_place(tmp_path: Path) -> None:
    far, turned = np.eye(4), np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    far[:3, 3] = 5e5, -120, 5e6
    vertices, faces = box((0.3, 0, 0), (1, 2, 0.5))
    here = load(tmp_path, Glb().add(vertices, faces, matrix=turned))
    there = load(tmp_path, Glb().add(vertices, faces, matrix=far @ turned))
    np.testing.assert_allclose(there.parts[0].vertices, here.parts[0].vertices, atol=1e-6)
    assert there.parts[0].vertices.dtype == np.float32
    assert there.scale == pytest.approx(here.scale)
    # a vertex of the file is still at scale * vertex + offset
    np.testing.assert_allclose(there.offset + there.scale * np.array([5e5, -5e6, -120.0]), here.offset, atol=1e-6)


def test_vertices_that_the_file_itself_has_rounded_are_refused(tmp_path: Path) -> None:
    vertices, faces = box((5e6, 0, 0), (1, 2, 0.5))
    with pytest.raises(RenderError, match=r"rounds them to 0\.5, and the mesh is 2 wide; move it to the origin"):
        load(tmp_path, Glb().add(vertices, faces))
    load(tmp_path, Glb().add(*box((5e6, 0, 0), (1e3, 2e3, 500))))
    # rounded in a part that is drawn much smaller
    load(tmp_path, Glb().add(vertices, faces, matrix=np.diag([1e-6, 1e-6, 1e-6, 1])).add(*box()))


def separate(tmp_path: Path, uri: str, folder: str = "") -> Path:
    """A .gltf whose arrays lie in a file of their own, in `folder`."""
    glb = Glb().add(*box())
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "a b.bin").write_bytes(glb.binary)
    glb.json["buffers"] = [{"uri": uri, "byteLength": len(glb.binary)}]
    (tmp_path / "m.gltf").write_text(json.dumps(glb.json))
    return tmp_path / "m.gltf"


@pytest.mark.parametrize("uri", ["parts/a%20b.bin", "parts/a b.bin", "parts\\a b.bin"])
def test_a_part_of_a_gltf_is_read_or_named_if_it_is_missing(uri: str, tmp_path: Path) -> None:
    path = separate(tmp_path, uri, "parts")
    assert len(load_mesh(path).parts) == 1
    part = tmp_path / "parts" / "a b.bin"
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(RenderError, match=r"buffer 0 has \d+ of \d+ bytes in 'parts.*bin'; fetch it again"):
        load_mesh(path)
    part.unlink()
    with pytest.raises(RenderError, match=r"'parts.*bin', which holds a part of it, is missing; put it beside"):
        load_mesh(path)
    (tmp_path / "parts" / "a b.bin").mkdir()
    with pytest.raises(RenderError, match="which holds a part of it, is missing"):
        load_mesh(path)


def test_a_buffer_that_is_nowhere_is_named(tmp_path: Path) -> None:
    glb = Glb().add(*box())
    glb.json["buffers"] = [{"byteLength": len(glb.binary)}]
    (tmp_path / "m.gltf").write_text(json.dumps(glb.json))
    with pytest.raises(RenderError, match=r"buffer 0 has 0 of \d+ bytes in the file itself"):
        load_mesh(tmp_path / "m.gltf")


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
    """Colour = factor x texture x vertex colour, with linear factor and vertex colour, as in glTF."""
    half = np.full((24, 4), 128, np.uint8)
    texture = np.full((2, 2, 3), 200)
    glb = Glb().add(*box(), factor=(0.5, 1, 1, 1), colors=half, uv=np.zeros((24, 2)), texture=texture)
    (part,) = load(tmp_path, glb).parts
    np.testing.assert_allclose(part.colors[0], [0.25, 0.5, 0.5, 0.5], atol=0.005)
    assert part.base is not None
    assert (part.base.image == [200, 200, 200, 255]).all()
    assert part.cutoff == 0


@pytest.mark.parametrize(
    "colors", [np.tile(np.float32([0.2, 0.4, 0.6, 1]), (24, 1)), np.tile(np.uint8([51, 102, 153, 255]), (24, 1))]
)
@pytest.mark.parametrize("material", [{}, {"factor": (1, 1, 1, 1)}])
def test_vertex_colours_alone_of_either_type(colors: np.ndarray, material: dict[str, object], tmp_path: Path) -> None:
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
        (Glb().add([(0, 0, 0), (1, 1, 1), (2, 2, 2)], [0, 1, 2]), "none of its triangles has an area"),
        (Glb().add(*box(), matrix=np.diag([1.0, 0, 0, 1])), "none of its triangles has an area"),
        (Glb().add(*box(), matrix=np.diag([0.0, 0, 0, 1])), "one point"),
        (Glb().add(*box(), matrix=np.diag([1e300, 1, 1, 1])), "NaN or infinite|so far out|cannot be read"),
        (Glb().add(*box(), matrix=np.diag([np.inf, 1, 1, 1])), "NaN or infinite"),
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


QUAD, QUAD_FACES = [(-1, 1, 0), (1, 1, 0), (1, -1, 0), (-1, -1, 0)], [0, 2, 1, 0, 3, 2]
QUAD_UV = np.float32([(0, 0), (1, 0), (1, 1), (0, 1)])
GRAY = np.full((2, 2, 3), 90)


def test_specular_glossiness_gives_its_diffuse_colour(tmp_path: Path) -> None:
    glb = Glb().add(QUAD, QUAD_FACES, uv=QUAD_UV, texture=GRAY, factor=(0.5, 1, 1, 1), gloss=True)
    glb.json["extensionsRequired"] = ["KHR_materials_pbrSpecularGlossiness"]
    (part,) = load(tmp_path, glb).parts
    assert part.base is not None
    assert (part.base.image == [90, 90, 90, 255]).all()
    np.testing.assert_array_equal(part.colors, np.tile(np.float32([0.5, 1, 1, 1]), (4, 1)))


def lower_left(uv: np.ndarray) -> np.ndarray:
    return np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1)


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        ({"offset": [0.25, 0.5], "scale": [2, 3]}, QUAD_UV * [2, 3] + [0.25, 0.5]),
        # the extension's own example: the lower left quadrant, turned clockwise by 90 degrees
        ({"offset": [0, 1], "rotation": np.pi / 2, "scale": [0.5, 0.5]}, [(0, 1), (0, 0.5), (0.5, 0.5), (0.5, 1)]),
        ({"texCoord": 1}, QUAD_UV / 4),
    ],
)
def test_texture_transform(transform: dict[str, object], expected: np.ndarray, tmp_path: Path) -> None:
    info = {"extensions": {"KHR_texture_transform": transform}}
    glb = Glb().add(
        QUAD, QUAD_FACES, uv=QUAD_UV, texture=GRAY, texture_info=info, attributes={"TEXCOORD_1": QUAD_UV / 4}
    )
    glb.json["extensionsRequired"] = ["KHR_texture_transform"]
    (part,) = load(tmp_path, glb).parts
    np.testing.assert_allclose(part.base.uv, lower_left(np.asarray(expected)), atol=1e-6)


def test_texture_on_the_second_set_of_coordinates_also_as_integers(tmp_path: Path) -> None:
    second = np.uint16(65535 * (1 - QUAD_UV))
    glb = Glb().add(
        QUAD, QUAD_FACES, uv=QUAD_UV, texture=GRAY, texture_info={"texCoord": 1}, attributes={"TEXCOORD_1": second}
    )
    (part,) = load(tmp_path, glb).parts
    np.testing.assert_allclose(part.base.uv, lower_left(1 - QUAD_UV), atol=1e-6)
    glb = Glb().add(QUAD, QUAD_FACES, uv=QUAD_UV, texture=GRAY, texture_info={"texCoord": 1})
    with pytest.raises(RenderError, match="no TEXCOORD_1"):
        load(tmp_path, glb)


@pytest.mark.parametrize(("mode", "indices"), [(STRIP, [0, 1, 3, 2]), (FAN, [3, 0, 1, 2]), (STRIP, [0, 1, 3, 2, 2])])
def test_strips_and_fans_are_triangles(mode: int, indices: list[int], tmp_path: Path) -> None:
    (part,) = load(tmp_path, Glb().add(QUAD, indices, mode=mode)).parts
    a, b, c = part.vertices[part.faces].transpose(1, 0, 2)
    area = np.cross(b - a, c - a)
    assert np.linalg.norm(area, axis=1).sum() / 2 == pytest.approx(0.9**2)
    assert (area[:2] @ area[0] > 0).all()  # one side


def test_a_skinned_mesh_stands_where_its_joints_are_and_not_its_node(tmp_path: Path) -> None:
    """Each half of a box follows one of two joints; the scale of 100 of its node has no effect."""
    vertices, faces = box()
    upper = (vertices[:, 1] > 0).astype(np.uint8)
    joints = np.zeros((24, 4), np.uint8)
    joints[:, 0] = upper
    weights = np.tile(np.float32([1, 0, 0, 0]), (24, 1))
    glb = Glb().add(
        vertices, faces, matrix=np.diag([100.0, 1, 1, 1]), attributes={"JOINTS_0": joints, "WEIGHTS_0": weights}
    )
    bind = np.tile(np.eye(4), (2, 1, 1))
    bind[1, 1, 3] = -5  # the second joint was at y = 5 when bound, and now is at y = 8
    glb.add_skin([{}, {"translation": [0, 8, 0]}], bind)
    mesh = load(tmp_path, glb)
    size = (mesh.points.max(0) - mesh.points.min(0)) / mesh.scale
    np.testing.assert_allclose(size, [1, 1, 4], rtol=1e-5)


@pytest.mark.parametrize("weight", [np.nan, np.inf, 0.0])
def test_vertices_that_hang_from_no_joint_are_counted_and_those_of_no_triangle_are_not(
    weight: float, tmp_path: Path
) -> None:
    vertices, faces = box()
    more = np.concatenate([vertices, vertices[:1]])  # the last is in no triangle
    weights = np.tile(np.float32([1, 0, 0, 0]), (25, 1))
    weights[24, 0] = weight

    def skinned() -> Glb:
        attributes = {"JOINTS_0": np.zeros((25, 4), np.uint8), "WEIGHTS_0": weights}
        return Glb().add(more, faces, attributes=attributes).add_skin([{}], np.eye(4)[None])

    load(tmp_path, skinned())
    weights[[3, 7], 0] = weight
    with pytest.raises(RenderError, match="2 of 24 vertices of a skinned mesh hang from no joint: WEIGHTS_0 are"):
        load(tmp_path, skinned())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extensionsRequired": ["EXT_meshopt_compression"]}, "compressed by EXT_meshopt.*without compression"),
        ({"extensionsRequired": ["KHR_texture_basisu"]}, "requires the extension KHR_texture_basisu"),
        ({"asset": {"version": "2.0", "minVersion": "2.1"}}, "glTF 2.1; only glTF 2.0"),
        ({"extensionsRequired": ["EXT_unheard_of"]}, "requires the extension EXT_unheard_of"),
        ({"asset": {"version": "1.0"}}, "only glTF 2.0"),
        ({"textures": [{"extensions": {"KHR_texture_basisu": {"source": 0}}}]}, "no PNG, JPEG or WebP.*basisu"),
        ({"images": [{"bufferView": 0}]}, "image 0 cannot be decoded"),
        ({"images": [{"uri": "../a.png"}]}, "beside the file"),
        ({"images": [{"uri": "https://example.org/a.png"}]}, "beside the file"),
        ({"textures": [{"source": 0, "sampler": 0}], "samplers": [{"wrapS": 1}]}, "has unknown wrap modes"),
        ({"nodes": [{"mesh": 3}]}, "names meshes 3, and has 1"),
        ({"textures": []}, "names textures 0, and has 0"),
        ({"images": [{"uri": "absent.png"}]}, "'absent.png', which holds a part of it, is missing"),
        ({"nodes": [{"mesh": 0, "children": [0]}]}, "two parents"),
        ({"accessors": [{"componentType": 5126, "count": 1 << 30, "type": "VEC3"}] * 3}, "items without data"),
    ],
)
def test_what_is_not_read_is_named(change: dict[str, object], message: str, tmp_path: Path) -> None:
    glb = Glb().add(QUAD, QUAD_FACES, uv=QUAD_UV, texture=GRAY)
    load(tmp_path, glb)
    glb.json |= change
    with pytest.raises(RenderError, match=rf"m\.glb: .*{message}"):
        load(tmp_path, glb)


def test_interleaved_vertices_are_read_by_their_stride(tmp_path: Path) -> None:
    glb = Glb().add(QUAD, QUAD_FACES, attributes={"NORMAL": np.tile(np.float32([0, 0, 1]), (4, 1))})
    expected = load(tmp_path, glb).parts[0]
    start, both = len(glb.binary), np.float32([[*point, 0, 0, 1] for point in QUAD])
    glb.binary += both.tobytes()
    glb.json["bufferViews"].append({"buffer": 0, "byteOffset": start, "byteLength": both.nbytes, "byteStride": 24})
    view = len(glb.json["bufferViews"]) - 1
    for name, offset in (("POSITION", 0), ("NORMAL", 12)):
        accessor = glb.json["meshes"][0]["primitives"][0]["attributes"][name]
        glb.json["accessors"][accessor] |= {"bufferView": view, "byteOffset": offset}
    (part,) = load(tmp_path, glb).parts
    np.testing.assert_array_equal(part.vertices, expected.vertices)
    np.testing.assert_array_equal(part.normals, expected.normals)
    glb.json["bufferViews"][view]["byteStride"] = 25
    with pytest.raises(RenderError, match="exceed its buffer view"):
        load(tmp_path, glb)


def test_gltf_with_its_data_inline_and_beside_it(tmp_path: Path) -> None:
    glb = Glb().add(QUAD, QUAD_FACES, uv=QUAD_UV, texture=GRAY)
    expected = load(tmp_path, glb).parts[0]
    (tmp_path / "a b.bin").write_bytes(glb.binary)
    inline = "data:application/octet-stream;base64," + base64.b64encode(glb.binary).decode()
    for uri in ("a%20b.bin", inline):
        buffers = [{"uri": uri, "byteLength": len(glb.binary)}]
        (tmp_path / "m.gltf").write_text(json.dumps(glb.json | {"buffers": buffers}))
        (part,) = load_mesh(tmp_path / "m.gltf").parts
        np.testing.assert_array_equal(part.vertices, expected.vertices)
        np.testing.assert_array_equal(part.base.image, expected.base.image)  # type: ignore[arg-type]


def test_whatever_bytes_are_changed_there_is_a_mesh_or_a_named_error(tmp_path: Path) -> None:
    vertices, faces = box()
    data = bytes(Glb().add(vertices, faces, uv=np.zeros((24, 2)), texture=GRAY, matrix=np.eye(4)))
    rng, meshes, errors = np.random.default_rng(0), 0, []
    for _ in range(500):
        changed = bytearray(data)
        for at in rng.integers(len(data), size=rng.integers(1, 4)):
            changed[at] = rng.integers(32, 127) if rng.random() < 0.8 else rng.integers(256)
        if rng.random() < 0.1:
            changed = changed[: rng.integers(len(data))]
        (tmp_path / "m.glb").write_bytes(changed)
        try:
            mesh = load_mesh(tmp_path / "m.glb")
        except RenderError as error:
            errors.append(str(error))
        else:
            assert np.isfinite(mesh.points).all()
            meshes += 1
    assert all("m.glb: " in error for error in errors)
    assert min(meshes, len(errors)) > 50


@pytest.mark.skipif(not DATA.is_dir(), reason="shared sample data is absent")
@pytest.mark.parametrize("path", sorted(DATA.rglob("*.glb")), ids=lambda path: path.stem[:12])
def test_real_files_are_what_another_reader_sees(path: Path) -> None:
    trimesh = pytest.importorskip("trimesh", reason="trimesh is not installed")
    y_up_to_z_up = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    mesh, theirs = load_mesh(path), []
    scene = trimesh.load_scene(path, process=False)
    for name in scene.graph.nodes_geometry:
        transform, geometry = scene.graph[name]
        if isinstance(part := scene.geometry[geometry], trimesh.Trimesh):
            turned = (part.vertices @ transform[:3, :3].T + transform[:3, 3]) @ y_up_to_z_up.T
            normals = part.vertex_normals @ transform[:3, :3].T @ y_up_to_z_up.T
            theirs.append((turned[part.faces], normals / np.linalg.norm(normals, axis=1)[:, None]))
    ours = [((p.vertices[p.faces] - mesh.offset) / mesh.scale, p.normals) for p in mesh.parts]
    assert len(ours) == len(theirs)

    def order(found: tuple[np.ndarray, np.ndarray]) -> tuple[float, ...]:
        return (len(found[0]), *np.round(found[0].mean((0, 1)), 2))

    for (a, m), (b, n) in zip(sorted(ours, key=order), sorted(theirs, key=order), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6 * np.ptp(b))
        np.testing.assert_allclose(m, n, atol=1e-5)


@pytest.mark.skipif(not DATA.is_dir(), reason="shared sample data is absent")
@pytest.mark.parametrize("path", sorted(DATA.rglob("*.glb")), ids=lambda path: path.stem[:12])
def test_real_files_load_normalised(path: Path) -> None:
    mesh = load_mesh(path)
    extent = mesh.points.max(0) - mesh.points.min(0)
    assert extent.max() == pytest.approx(0.9, rel=1e-5)
    assert all(part.faces.max() < len(part.vertices) for part in mesh.parts)


def test_normals_that_are_no_numbers_are_unknown_and_such_colours_are_refused(tmp_path: Path) -> None:
    for value in (np.nan, np.inf, -np.inf):
        normals = np.full(np.shape(box()[0]), value, np.float32)
        (part,) = load(tmp_path, Glb().add(*box(), attributes={"NORMAL": normals})).parts
        np.testing.assert_array_equal(part.normals, 0)
        with pytest.raises(RenderError, match="colours that are NaN or infinite"):
            load(tmp_path, Glb().add(*box(), emissiveFactor=[0, value, 0]))
    with pytest.raises(RenderError, match="colours that are NaN or infinite"):
        load(tmp_path, Glb().add(*box(), factor=(np.nan, 1, 1, 1)))
