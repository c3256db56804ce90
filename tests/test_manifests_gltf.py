"""What of glTF is drawn, has no effect, or is noted as left out: one test for each line of the table in the docs."""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from glb import LINES, POINTS, Glb, box
from PIL import Image

from gaussianverse.manifests.errors import RenderError
from gaussianverse.manifests.rendering import gltf, materials, rig
from gaussianverse.manifests.rendering.drawing import Renderer, Shading
from gaussianverse.manifests.rendering.meshes import Mesh, load_mesh

DOCS = Path(__file__).resolve().parents[1] / "docs" / "rendering.md"
QUAD, QUAD_FACES = np.array([(-1, 1, 0), (1, 1, 0), (1, -1, 0), (-1, -1, 0)]), [0, 2, 1, 0, 3, 2]
QUAD_UV = np.float32([(0, 0), (1, 0), (1, 1), (0, 1)])
SIZE = 16


def load(tmp_path: Path, glb: Glb) -> Mesh:
    (tmp_path / "m.glb").write_bytes(bytes(glb))
    return load_mesh(tmp_path / "m.glb")


def front(mesh: Mesh, shading: Shading = "diffuse", side: float = -1.0) -> np.ndarray:
    """The mesh seen from glTF's front, or with side = 1 from its back."""
    (c2w,) = rig.poses(np.array([[0.0, side, 0.0]]), 1.5)
    with Renderer(mesh, shading=shading) as renderer:
        return renderer.color(rig.Camera(c2w, rig.intrinsics(0.7, SIZE, SIZE), SIZE, SIZE))


def middle(mesh: Mesh, shading: Shading = "diffuse") -> list[int]:
    return [int(value) for value in front(mesh, shading)[SIZE // 2, SIZE // 2, :3]]


def sheet(**material: Any) -> Glb:
    return Glb().add(QUAD, QUAD_FACES, **material)


def same(a: Mesh, b: Mesh) -> None:
    assert len(a.parts) == len(b.parts)
    for ours, theirs in zip(a.parts, b.parts, strict=True):
        np.testing.assert_allclose(ours.vertices[ours.faces], theirs.vertices[theirs.faces], atol=1e-6)
        np.testing.assert_allclose(ours.normals[ours.faces], theirs.normals[theirs.faces], atol=1e-5)


def test_sparse_accessors_replace_items_of_their_base_or_of_zeros(tmp_path: Path) -> None:
    moved = QUAD.astype(np.float32)
    moved[[1, 3]] += [0.5, 0.25, 2]
    expected = load(tmp_path, Glb().add(moved, QUAD_FACES))
    for base in (True, False):
        glb = sheet()
        accessor = glb.json["accessors"][glb.primitive()["attributes"]["POSITION"]]
        which = np.array([1, 3] if base else range(4), np.uint8)
        if not base:
            del accessor["bufferView"]
        indices, values = glb.view(which.tobytes()), glb.view(moved[which].tobytes())
        accessor["sparse"] = {
            "count": len(which),
            "indices": {"bufferView": indices, "componentType": 5121},
            "values": {"bufferView": values},
        }
        same(load(tmp_path, glb), expected)
        glb.json["accessors"][0]["sparse"]["indices"]["bufferView"] = glb.view(bytes([9] * len(which)))
        with pytest.raises(RenderError, match=r"sparse accessor: an index is not in \[0, 4\)"):
            load(tmp_path, glb)


def compressed(vertices: np.ndarray, faces: Any, **arrays: np.ndarray) -> Glb:
    """A Draco-compressed GLB, without any uncompressed array."""
    import DracoPy

    glb = Glb().add(vertices, faces, attributes={"NORMAL": np.zeros((len(vertices), 3), np.float32)})
    primitive = glb.primitive()
    data = DracoPy.encode(
        vertices.astype(np.float32), np.asarray(faces, np.uint32).reshape(-1, 3), preserve_order=True, **arrays
    )
    decoded = DracoPy.decode(data)
    names = {0: "POSITION", 1: "NORMAL", 3: "TEXCOORD_0"}
    given = {names[a["attribute_type"]]: a["unique_id"] for a in decoded.attributes}
    primitive["extensions"] = {"KHR_draco_mesh_compression": {"bufferView": glb.view(data), "attributes": given}}
    for index in (primitive["indices"], *primitive["attributes"].values()):
        del glb.json["accessors"][index]["bufferView"]
    glb.json["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    return glb


def test_draco_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("DracoPy", reason="needs the extra 'meshes'")
    vertices, faces = box((0.1, 0.2, 0.3), (1, 2, 3))
    normals = np.repeat(np.kron(np.eye(3), [[-1.0], [1.0]]), 4, axis=0).astype(np.float32)
    expected = load(tmp_path, Glb().add(vertices, faces, attributes={"NORMAL": normals}))
    glb = compressed(vertices, faces, normals=normals.astype(np.float64))
    (ours,), (theirs,) = load(tmp_path, glb).parts, expected.parts
    a, b = (np.sort(np.round(p.vertices[p.faces], 2).reshape(-1, 9), axis=0) for p in (ours, theirs))
    np.testing.assert_allclose(a, b, atol=0.011)  # quantised to 14 bits, then rounded
    corners = ours.vertices[ours.faces]
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    facing /= np.linalg.norm(facing, axis=1, keepdims=True)
    np.testing.assert_allclose(ours.normals[ours.faces[:, 0]], facing, atol=0.01)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "DracoPy", None)
        with pytest.raises(RenderError, match=r"needs DracoPy: pip install 'gaussianverse\[meshes\]'"):
            load(tmp_path, glb)
    view = glb.json["bufferViews"][glb.primitive()["extensions"]["KHR_draco_mesh_compression"]["bufferView"]]
    glb.binary = glb.binary[: view["byteOffset"] + 20] + bytes(view["byteLength"])
    with pytest.raises(RenderError, match="its Draco data cannot be decoded"):
        load(tmp_path, glb)


def test_instances_are_drawn_where_they_stand(tmp_path: Path) -> None:
    small = box(size=(0.2, 0.4, 0.6))
    places = np.float32([(0, 0, 0), (1, 0, 0), (0, 2, 0)])
    turns = np.float32([(0, 0, 0, 1), (0, 0, np.sqrt(0.5), np.sqrt(0.5)), (0, 0, 0, 1)])
    sizes = np.float32([(1, 1, 1), (2, 1, 1), (-1, 1, 1)])
    glb, expected = Glb().add(*small, matrix=np.diag([1.0, 1, 3, 1])), Glb()
    arrays = {"TRANSLATION": glb.array(places), "ROTATION": glb.array(turns), "SCALE": glb.array(sizes)}
    glb.json["nodes"][0]["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": arrays}}
    glb.json["extensionsRequired"] = ["EXT_mesh_gpu_instancing"]
    for place, turn, size in zip(places, turns, sizes, strict=True):
        matrix = np.eye(4)
        matrix[:3, :3] = np.eye(3) if turn[3] == 1 else [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
        matrix[:3, :3] = matrix[:3, :3] * size
        matrix[:3, 3] = place
        expected.add(*small, matrix=np.diag([1.0, 1, 3, 1]) @ matrix)
    ours, theirs = load(tmp_path, glb), load(tmp_path, expected)
    (part,) = ours.parts
    other = np.concatenate([p.vertices[p.faces] for p in theirs.parts])
    np.testing.assert_allclose(part.vertices[part.faces], other, atol=1e-6)
    np.testing.assert_allclose(
        part.normals[part.faces], np.concatenate([p.normals[p.faces] for p in theirs.parts]), atol=1e-6
    )
    glb.json["nodes"][0]["extensions"]["EXT_mesh_gpu_instancing"]["attributes"]["SCALE"] = glb.array(sizes[:2])
    with pytest.raises(RenderError, match=r"instances have arrays of \[2, 3, 3\] items"):
        load(tmp_path, glb)


def test_morph_targets_have_the_weights_of_the_node_or_of_the_mesh(tmp_path: Path) -> None:
    vertices, faces = box()
    shift, stretch = np.zeros((24, 3), np.float32), np.zeros((24, 3), np.float32)
    shift[vertices[:, 1] > 0] = (3, 0, 0)
    stretch[vertices[:, 1] > 0] = (0, 4, 0)
    for mesh_weights, node_weights, weights in (
        (None, None, (0, 0)),
        ((0.5, 0.25), None, (0.5, 0.25)),
        ((1, 1), (0.25, 0), (0.25, 0)),
    ):
        glb = Glb().add(vertices, faces)
        glb.primitive()["targets"] = [{"POSITION": glb.array(shift)}, {"POSITION": glb.array(stretch)}]
        if mesh_weights:
            glb.json["meshes"][0]["weights"] = mesh_weights
        if node_weights:
            glb.json["nodes"][0]["weights"] = node_weights
        same(
            load(tmp_path, glb),
            load(tmp_path, Glb().add(vertices + weights[0] * shift + weights[1] * stretch, faces)),
        )


def test_invisible_nodes_and_their_children_are_not_drawn(tmp_path: Path) -> None:
    glb = Glb().add(*box()).add(*box((5, 0, 0))).add(*box((9, 0, 0)))
    glb.json["nodes"][1] |= {"extensions": {"KHR_node_visibility": {"visible": False}}, "children": [2]}
    glb.json["scenes"][0]["nodes"] = [0, 1]
    glb.json["extensionsRequired"] = ["KHR_node_visibility"]
    assert len(load(tmp_path, glb).parts) == 1
    glb.json["nodes"][1]["extensions"]["KHR_node_visibility"]["visible"] = True
    assert len(load(tmp_path, glb).parts) == 3


def linear(value: int) -> float:
    return ((value / 255 + 0.055) / 1.055) ** 2.4


@pytest.mark.usefixtures("egl")
@pytest.mark.parametrize(("strength", "expected"), [(None, 90), (0.5, 65), (100.0, 255)])
def test_emission_is_added_to_the_lit_colour(strength: float | None, expected: int, tmp_path: Path) -> None:
    extensions = {} if strength is None else {"KHR_materials_emissive_strength": {"emissiveStrength": strength}}
    glb = sheet(factor=(0, 0, 0, 1), emissiveFactor=[linear(90), 0, linear(90)], extensions=extensions)
    mesh = load(tmp_path, glb)
    assert np.abs(np.subtract(middle(mesh), [expected, 0, expected])).max() <= 1
    assert middle(mesh, "albedo") == [0, 0, 0]
    white = load(tmp_path, sheet(factor=(1, 1, 1, 1), emissiveFactor=[1, 1, 1]))
    assert middle(white) == [255, 255, 255]


@pytest.mark.usefixtures("egl")
def test_emission_has_a_texture_with_coordinates_of_its_own(tmp_path: Path) -> None:
    halves = np.kron(np.array([[[200, 0, 0], [0, 200, 0]]]), np.ones((4, 4, 1)))
    glb = sheet(uv=QUAD_UV, texture=halves, factor=(0, 0, 0, 1), attributes={"TEXCOORD_1": QUAD_UV[[1, 0, 3, 2]]})
    material = glb.json["materials"][0]
    material["emissiveFactor"] = [1, 1, 1]
    material["emissiveTexture"] = {"index": 0, "texCoord": 1}
    image = front(load(tmp_path, glb))
    left, right = image[SIZE // 2, SIZE // 2 - 3], image[SIZE // 2, SIZE // 2 + 3]
    assert list(left) == [0, 200, 0, 255]
    assert list(right) == [200, 0, 0, 255]
    material["emissiveTexture"]["extensions"] = {"KHR_texture_transform": {"texCoord": 0}}
    assert list(front(load(tmp_path, glb))[SIZE // 2, SIZE // 2 - 3]) == [200, 0, 0, 255]


@pytest.mark.usefixtures("egl")
def test_unlit_materials_have_their_base_colour(tmp_path: Path) -> None:
    lit = load(tmp_path, sheet(factor=(linear(90), linear(90), 1, 1)))
    unlit = load(tmp_path, sheet(factor=(linear(90), linear(90), 1, 1), extensions={"KHR_materials_unlit": {}}))
    assert np.abs(np.subtract(middle(unlit), [90, 90, 255])).max() <= 1
    assert middle(lit)[0] < 85


@pytest.mark.usefixtures("egl")
def test_texels_are_sharp_where_the_sampler_says_nearest(tmp_path: Path) -> None:
    colors = {}
    for name, sampler in (("nearest", {"magFilter": 9728}), ("linear", {"magFilter": 9729}), ("unsaid", {})):
        glb = sheet(uv=QUAD_UV, texture=np.array([[[255, 0, 0], [0, 255, 0]]]))
        glb.json["samplers"] = [sampler]
        glb.json["textures"][0]["sampler"] = 0
        colors[name] = front(load(tmp_path, glb), "albedo")[SIZE // 2, 4:12, :3]
    assert {tuple(color) for color in colors["nearest"].tolist()} == {(255, 0, 0), (0, 255, 0)}
    np.testing.assert_array_equal(colors["linear"], colors["unsaid"])
    assert len(np.unique(colors["linear"], axis=0)) > 3


@pytest.mark.usefixtures("egl")
def test_back_faces_are_drawn_whatever_the_material_says(tmp_path: Path) -> None:
    """As Cycles does, with which GObjaverse, Zero123 and TRELLIS rendered: Blender's culling is for Eevee alone."""
    for sided in (True, False):
        mesh = load(tmp_path, sheet(factor=(1, 0, 0, 1), doubleSided=sided))
        for side in (-1.0, 1.0):
            assert list(front(mesh, "albedo", side)[SIZE // 2, SIZE // 2]) == [255, 0, 0, 255]


NO_EFFECT: dict[str, dict[str, Any]] = {
    "metallicFactor, roughnessFactor": {"pbr": {"metallicFactor": 1, "roughnessFactor": 0.1}},
    "metallicRoughnessTexture": {"pbr": {"metallicRoughnessTexture": {"index": 0}}},
    "normalTexture": {"material": {"normalTexture": {"index": 0}}},
    "occlusionTexture": {"material": {"occlusionTexture": {"index": 0}}},
}


@pytest.mark.usefixtures("egl")
@pytest.mark.parametrize("name", [*NO_EFFECT, *materials._LEFT_OUT_EXTENSIONS])
def test_what_is_left_out_changes_nothing_and_is_noted(name: str, tmp_path: Path) -> None:
    glb = sheet(uv=QUAD_UV, texture=np.full((2, 2, 3), 90))
    plain = front(load(tmp_path, glb))
    change = NO_EFFECT.get(name, {"material": {"extensions": {name: {}}}})
    glb.json["materials"][0]["pbrMetallicRoughness"] |= change.get("pbr", {})
    glb.json["materials"][0] |= change.get("material", {})
    if name.startswith("KHR_"):
        glb.json["extensionsRequired"] = [name]
    mesh = load(tmp_path, glb)
    np.testing.assert_array_equal(front(mesh), plain)
    assert mesh.left_out == (() if "pbr" in change else (name,))


@pytest.mark.usefixtures("egl")
def test_what_has_no_effect(tmp_path: Path) -> None:
    """Tangents, a second set of colours, cameras, variants of the material, and the filter of minified texels."""
    glb = sheet(uv=QUAD_UV, texture=np.full((2, 2, 3), 90))
    plain = front(load(tmp_path, glb))
    white = np.full((4, 4), 1, np.float32)
    glb.primitive()["attributes"] |= {"TANGENT": glb.array(white), "COLOR_1": glb.array(0 * white)}
    glb.primitive()["extensions"] = {"KHR_materials_variants": {"mappings": [{"material": 1, "variants": [0]}]}}
    glb.json["materials"].append({"pbrMetallicRoughness": {"baseColorFactor": [1, 0, 0, 1]}})
    glb.json["extensions"] = {"KHR_materials_variants": {"variants": [{"name": "red"}]}}
    glb.json["nodes"][0]["camera"] = 0
    glb.json["samplers"] = [{"minFilter": 9728}]
    glb.json["textures"][0]["sampler"] = 0
    mesh = load(tmp_path, glb)
    np.testing.assert_array_equal(front(mesh), plain)
    assert mesh.left_out == ()


def test_quantised_vertices_are_moved_by_their_node(tmp_path: Path) -> None:
    vertices, faces = box()
    glb = Glb().add(vertices, faces, matrix=np.diag([0.5, 0.5, 0.5, 1]))
    accessor = glb.json["accessors"][glb.primitive()["attributes"]["POSITION"]]
    integers = np.rint(2 * vertices).astype(np.int8)
    accessor |= {"bufferView": glb.view(np.pad(integers, ((0, 0), (0, 1))).tobytes()), "componentType": 5120}
    glb.json["bufferViews"][accessor["bufferView"]]["byteStride"] = 4
    glb.json["extensionsRequired"] = ["KHR_mesh_quantization"]
    same(load(tmp_path, glb), load(tmp_path, Glb().add(vertices, faces)))


def test_webp_textures_are_read(tmp_path: Path) -> None:
    glb = sheet(uv=QUAD_UV, texture=np.full((2, 2, 3), 90))
    out = io.BytesIO()
    Image.new("RGB", (2, 2), (10, 20, 30)).save(out, "WEBP", lossless=True)
    glb.json["images"].append({"bufferView": glb.view(out.getvalue()), "mimeType": "image/webp"})
    glb.json["textures"][0]["extensions"] = {"EXT_texture_webp": {"source": 1}}
    glb.json["extensionsRequired"] = ["EXT_texture_webp"]
    (part,) = load(tmp_path, glb).parts
    assert part.base is not None
    assert (part.base.image == [10, 20, 30, 255]).all()


def test_lines_and_points_are_noted(tmp_path: Path) -> None:
    mesh = load(tmp_path, Glb().add(QUAD, [0, 1], mode=LINES).add(*box()).add(QUAD, [0, 1], mode=POINTS))
    assert mesh.left_out == ("lines", "points")
    assert load(tmp_path, Glb().add(*box())).left_out == ()


@pytest.mark.parametrize("name", sorted(gltf._NO_EFFECT))
def test_extensions_that_may_be_required_and_move_nothing(name: str, tmp_path: Path) -> None:
    glb = Glb().add(*box())
    glb.json["extensionsRequired"] = [name]
    glb.json["animations"] = [{"channels": [{"target": {"node": 0, "path": "translation"}}]}]
    same(load(tmp_path, glb), load(tmp_path, Glb().add(*box())))


@pytest.mark.parametrize("name", sorted(gltf._COMPRESSED))
def test_compressed_buffer_views_are_refused_by_name_also_where_nothing_is_required(
    name: str, tmp_path: Path
) -> None:
    glb = Glb().add(*box())
    glb.json["bufferViews"][0]["extensions"] = {name: {}}
    with pytest.raises(RenderError, match=f"compressed by {name}, which is not read; save it again without"):
        load(tmp_path, glb)


def test_the_docs_name_every_extension_that_the_code_knows() -> None:
    known = {*gltf._READ, *gltf._NO_EFFECT, *gltf._COMPRESSED, *materials._LEFT_OUT_EXTENSIONS}
    known |= {
        "KHR_materials_emissive_strength",
        "KHR_materials_variants",
        "KHR_materials_unlit",
        "KHR_texture_basisu",
    }
    text = DOCS.read_text()
    assert [name for name in sorted(known) if f"`{name}`" not in text] == []
