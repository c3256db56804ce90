"""Renders compared with known 3D points, read by the reader that fits use."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from glb import Glb, box

from gaussianverse.fitter.views import Views, drop_duplicate_poses, load_views
from gaussianverse.manifests import jsonl
from gaussianverse.manifests.errors import RenderError
from gaussianverse.manifests.rendering import drawing, presets, rig
from gaussianverse.manifests.rendering.drawing import Renderer
from gaussianverse.manifests.rendering.meshes import load_mesh
from gaussianverse.manifests.rendering.views import RenderConfig, render_mesh
from gaussianverse.pipeline import cli

SIZE = 48


pytestmark = pytest.mark.usefixtures("egl")


DIRECTIONS = presets.plan("gobjaverse", presets.Options(), "").toward


def sized(size: int) -> RenderConfig:
    return RenderConfig(options=presets.Options(size=size))


def drawn(tmp_path: Path, glb: Glb, **settings: Any) -> tuple[Views, dict[str, Any]]:
    (tmp_path / "m.glb").write_bytes(bytes(glb))
    rendered = render_mesh(tmp_path / "m.glb", tmp_path / "o", replace(sized(SIZE), **settings))
    assert len(rendered.rig.cameras) == 40
    assert rendered.warnings == ()
    views = load_views(tmp_path / "o", "gobjaverse", min_views=40, with_depth=True)
    return views, json.loads((tmp_path / "o" / "00000" / "00000.json").read_text())


def read_normals(path: Path) -> np.ndarray:
    """Normals [H, W, 3] of an `_nd.exr`, decoded as GObjaverse's reader does: (-R, -B, G)."""
    openexr = pytest.importorskip("OpenEXR")
    channels = openexr.File(str(path), separate_channels=True).channels()
    red, green, blue = (channels[c].pixels for c in "RGB")
    return np.stack([-red, -blue, green], axis=-1)


def project(views: Views, point: Any) -> np.ndarray:
    """Projection of a point into every view [V, 3]: u, v in pixels, z."""
    uvw = np.einsum("vij,vj->vi", views.Ks, (views.viewmats @ [*point, 1])[:, :3])
    return np.c_[uvw[:, :2] / uvw[:, 2:], uvw[:, 2]]


AXES = {"+x": ((1, 0, 0), (1, 0, 0)), "up": ((0, 1, 0), (0, 1, 0)), "front": ((0, 0, 1), (0, 0, 1))}


def test_known_points_have_their_colours_where_the_reader_projects_them(tmp_path: Path) -> None:
    """Red, green and blue cubes on glTF's +x, +y (up), +z (front) are at +x, +z, -y of the world."""
    glb = Glb()
    for place, color in AXES.values():
        glb.add(*box(place, (0.3, 0.3, 0.3)), factor=(*color, 1))
    views, camera = drawn(tmp_path, glb, shading="albedo")
    z_up = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    centers = [camera["scale"] * z_up @ place + camera["offset"] for place, _ in AXES.values()]
    seen = np.stack([project(views, center) for center in centers])  # [3, V, 3]
    checked = 0
    for cube, (_, color) in enumerate(AXES.values()):
        for view in range(40):
            gap = np.abs(seen[:, view, :2] - seen[cube, view, :2]).max(1)
            behind_another = ((gap < 12) & (seen[:, view, 2] < seen[cube, view, 2])).any()
            if not behind_another:
                u, v = seen[cube, view, :2].astype(int)
                np.testing.assert_array_equal(views.images[view, v, u], [*np.multiply(255, color), 255])
                checked += 1
    assert checked > 80


def test_texture_is_not_flipped(tmp_path: Path) -> None:
    """A front-facing square; glTF's uv (0, 0) is the top-left texel, here red."""
    quad = [(-1, 1, 0), (1, 1, 0), (1, -1, 0), (-1, -1, 0)]  # seen from +z: top left, then clockwise
    uv = [(0, 0), (1, 0), (1, 1), (0, 1)]
    texture = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]])
    glb = Glb().add(quad, [0, 2, 1, 0, 3, 2], uv=uv, texture=np.kron(texture, np.ones((8, 8, 1))))
    views, _ = drawn(tmp_path, glb, shading="albedo")
    front = int(np.argmin(DIRECTIONS[:24, 1]))  # glTF's front looks to -y
    image, middle = views.images[front], SIZE // 2
    for dv, du, color in ((-6, -6, (255, 0, 0)), (-6, 6, (0, 255, 0)), (6, -6, (0, 0, 255)), (6, 6, (255, 255, 0))):
        np.testing.assert_array_equal(image[middle + dv, middle + du], [*color, 255])


@pytest.mark.parametrize(
    ("sampler", "columns"),
    [
        ({}, "rgrg"),
        ({"wrapS": 10497}, "rgrg"),
        ({"wrapS": 33071, "wrapT": 33071}, "rggg"),
        ({"wrapS": 33648}, "rggr"),
    ],
)
def test_texture_beyond_its_borders(sampler: dict[str, int], columns: str, tmp_path: Path) -> None:
    """A square with u from 0 to 2 shows a texture that is red on the left and green on the right."""
    quad = [(-1, 1, 0), (1, 1, 0), (1, -1, 0), (-1, -1, 0)]
    uv = [(0, 0), (2, 0), (2, 1), (0, 1)]
    texture = np.kron(np.array([[[255, 0, 0], [0, 255, 0]]]), np.ones((8, 4, 1)))
    glb = Glb().add(quad, [0, 2, 1, 0, 3, 2], uv=uv, texture=texture)
    glb.json["samplers"] = [sampler]
    glb.json["textures"][0]["sampler"] = 0
    views, _ = drawn(tmp_path, glb, shading="albedo")
    image, middle = views.images[int(np.argmin(DIRECTIONS[:24, 1]))], SIZE // 2
    seen = [image[middle, middle + du] for du in (-12, -4, 4, 12)]
    assert ["r" if pixel[0] > pixel[1] else "g" for pixel in seen] == list(columns)


def test_depth_and_normals_are_those_of_a_box(tmp_path: Path) -> None:
    views, _ = drawn(tmp_path, Glb().add(*box()))
    assert views.depths is not None
    rows, cols = np.indices((SIZE, SIZE)) + 0.5
    pixels = np.stack([cols, rows, np.ones_like(rows)], -1)
    for view in range(40):
        depth = views.depths[view]
        points = (pixels @ np.linalg.inv(views.Ks[view]).T) * depth[..., None]
        world = points @ views.c2w[view, :3, :3].T + views.c2w[view, :3, 3]
        hit = np.isfinite(depth)
        np.testing.assert_allclose(np.abs(world[hit]).max(1), 0.45, atol=2e-3)  # on a face of the box
        path = tmp_path / "o" / f"{view:05d}" / f"{view:05d}_nd.exr"
        normals = read_normals(path)[hit]
        inner = np.sort(np.abs(world[hit]), axis=1)[:, 1] < 0.44  # away from the edges
        face = np.eye(3)[np.abs(world[hit]).argmax(1)] * np.sign(world[hit])
        np.testing.assert_allclose(normals[inner], face[inner], atol=1e-3)
        # alpha is the covered share of a pixel: 1 where the pixel and its neighbours are hit
        alpha = views.images[view, ..., 3]
        assert (alpha[hit] > 0).all()
        assert alpha[~hit].max() < 255


def test_forty_views_38_distinct_whole_object_in_frame(tmp_path: Path) -> None:
    views, camera = drawn(tmp_path, Glb().add(*box()))
    assert len(drop_duplicate_poses(views)) == 38
    for first, second in ((0, 24), (27, 39)):
        np.testing.assert_array_equal(views.images[first], views.images[second])
    edge = np.concatenate([views.images[:, [0, -1], :, 3].ravel(), views.images[:, :, [0, -1], 3].ravel()])
    assert edge.max() == 0
    assert camera["x_fov"] == camera["y_fov"] == 0.6911503
    np.testing.assert_allclose(camera["bbox"], [[-0.45] * 3, [0.45] * 3], atol=1e-6)


def test_any_intrinsics_and_sizes_draw_where_they_project(tmp_path: Path) -> None:
    """A red cube of 0.1 off the centre: its middle, its silhouette and its depth, through a skewed wide camera."""
    glb = (
        Glb()
        .add(*box((0.35, 0.4, 0), (0.1, 0.1, 0.1)), factor=(1, 0, 0, 1))
        .add(*box((0, 0, 0), (0.9, 0.9, 0.9)), factor=(1, 1, 1, 0), alphaMode="BLEND")
    )
    (tmp_path / "m.glb").write_bytes(bytes(glb))
    mesh = load_mesh(tmp_path / "m.glb")
    corners = mesh.parts[0].vertices
    K = np.array([[90.0, 7, 70], [0, 60, 22], [0, 0, 1]])
    with Renderer(mesh, shading="albedo") as renderer:
        for c2w in rig.poses(DIRECTIONS, 1.4)[:24:5]:
            camera = rig.Camera(c2w, K, 120, 50)
            image, geometry = renderer.color(camera), renderer.geometry(camera)
            assert image.shape == geometry.shape == (50, 120, 4)
            u, v, w = K @ ((corners - c2w[:3, 3]) @ c2w[:3, :3]).T
            rows, columns = np.nonzero(image[..., 3] > 127)
            for low, high, pixels in ((u / w, u / w, columns), (v / w, v / w, rows)):
                assert abs(pixels.min() - low.min()) <= 1
                assert abs(pixels.max() + 1 - high.max()) <= 1
            depth = geometry[image[..., 3] == 255][:, 3]
            assert len(depth)
            assert w.min() - 1e-4 <= depth.min()
            assert depth.max() <= w.max() + 1e-4


def test_pictures_and_geometry_of_cameras_of_several_sizes_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "box.glb"
    path.write_bytes(bytes(Glb().add(*box())))
    sizes = (16, 64)  # the second has as many pixels as the first has samples
    found = []
    for order in (sizes, sizes[::-1]):
        with Renderer(load_mesh(path), shading="diffuse") as renderer:
            cameras = [rig.Camera(on_the_x_axis(), rig.intrinsics(0.7, n, n), n, n) for n in order]
            drawn = {c.width: (renderer.color(c), renderer.geometry(c)) for c in cameras}
        found.append(drawn)
    for n in sizes:
        for one, other in zip(found[0][n], found[1][n], strict=True):
            np.testing.assert_array_equal(one, other)
        assert found[0][n][1][n // 2, n // 2, 3] == pytest.approx(2 - 0.45, abs=0.01)


def on_the_x_axis() -> np.ndarray:
    """A camera on the x axis, 2 from the origin."""
    return rig.poses(np.array([[1.0, 0, 0]]), 2.0)[0]


def test_a_texture_that_opengl_would_draw_black_is_refused(tmp_path: Path) -> None:
    path, limit = tmp_path / "sheet.glb", 16384
    glb = Glb().add([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [0, 1, 2], uv=[(0, 0), (1, 0), (0, 1)],
        texture=np.full((1, 2 * limit, 3), 255))  # fmt: skip
    path.write_bytes(bytes(glb))
    with pytest.raises(RenderError, match="a texture has 32768 x 1 pixels, and this driver reads"):
        Renderer(load_mesh(path), shading="diffuse")


def test_more_pixels_than_the_driver_has_memory_for_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "box.glb"
    path.write_bytes(bytes(Glb().add(*box())))
    with Renderer(load_mesh(path), shading="diffuse") as renderer:

        def full(*_: object) -> None:
            raise renderer._gl.Error("the framebuffer is not complete")

        monkeypatch.setattr(renderer, "_ctx", Full(renderer._ctx, full))
        with pytest.raises(drawing.DriverError, match=r"no memory for 8 x 8 pixels .*smaller --size"):
            renderer.color(rig.Camera(on_the_x_axis(), rig.intrinsics(0.7, 8, 8), 8, 8))


class Full:
    """An OpenGL context that makes no framebuffers."""

    def __init__(self, context: Any, framebuffer: Any) -> None:
        self._context, self.framebuffer = context, framebuffer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def test_the_rig_lies_beside_the_views_and_readers_of_views_pass_it_over(tmp_path: Path) -> None:
    views, camera = drawn(tmp_path, Glb().add(*box((7, -3, 100), (10, 40, 20))))
    found, facts = rig.read(tmp_path / "o")
    assert (found.preset, found.version, found.seed, found.inputs) == ("gobjaverse", 1, 0, ())
    np.testing.assert_allclose(views.c2w, [c.c2w for c in found.cameras], atol=1e-12)
    np.testing.assert_allclose(views.Ks, [c.K for c in found.cameras], rtol=1e-9)
    assert {key: facts[key] for key in ("scale", "offset", "bbox")} == {
        key: camera[key] for key in ("scale", "offset", "bbox")
    }
    assert facts["units"] == "longest side of the object = 0.9"
    assert (facts["depth"], facts["normals"], facts["shading"]) == ("z", "world", "diffuse")
    assert facts["background"] == "transparent, straight alpha"
    assert facts["mesh_sha256"] == hashlib.sha256((tmp_path / "m.glb").read_bytes()).hexdigest()


def test_edges_are_covered_by_share_with_unmixed_colour(tmp_path: Path) -> None:
    views, _ = drawn(tmp_path, Glb().add(*box(), factor=(1, 0, 0, 1)), shading="albedo")
    alpha = views.images[..., 3]
    partial = (alpha > 0) & (alpha < 255)
    assert partial.sum() > 1000
    assert len(np.unique(alpha)) > 10  # 4 x 4 samples
    np.testing.assert_array_equal(views.images[partial][:, :3], [[255, 0, 0]] * int(partial.sum()))
    assert (views.images[alpha == 0] == 0).all()


def test_shading_depends_on_the_surface_and_not_on_the_view(tmp_path: Path) -> None:
    views, _ = drawn(tmp_path, Glb().add(*box(), factor=(1, 1, 1, 1)))
    for axis in range(3):
        for sign in (-1, 1):
            point = sign * 0.45 * np.eye(3)[axis]
            facing = [(views.c2w[v, :3, 3] @ np.eye(3)[axis]) * sign > 0.6 for v in range(40)]
            uv = project(views, point)[:, :2].astype(int)
            colors = np.array([views.images[v, uv[v, 1], uv[v, 0]] for v in range(40) if facing[v]])
            assert len(colors)
            assert np.ptp(colors.astype(int), axis=0).max() <= 1
    gray = views.images[views.images[..., 3] == 255][:, 0]
    assert gray.max() - gray.min() > 40  # the light has a direction


def test_both_sides_of_a_sheet_are_drawn_and_face_their_viewer(tmp_path: Path) -> None:
    quad = [(-1, 1, 0), (1, 1, 0), (1, -1, 0), (-1, -1, 0)]
    views, _ = drawn(tmp_path, Glb().add(quad, [0, 2, 1, 0, 3, 2]))
    middle = SIZE // 2
    alpha = views.images[:24, middle, middle, 3]
    across = np.abs(DIRECTIONS[:24, 1]) > 0.2
    assert (alpha[across] == 255).all()
    for view in np.flatnonzero(across):
        path = tmp_path / "o" / f"{view:05d}" / f"{view:05d}_nd.exr"
        normals = read_normals(path)
        toward = [0, np.sign(views.c2w[view, 1, 3]), 0]  # each side has the normal that its viewer sees
        np.testing.assert_allclose(normals[middle, middle], toward, atol=1e-6)


def test_translucency_becomes_coverage_and_cutouts_are_cut(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    quad, faces = [(-1, 1, 0), (1, 1, 0), (1, -1, 0), (-1, -1, 0)], [0, 2, 1, 0, 3, 2]
    front, middle = int(np.argmin(DIRECTIONS[:24, 1])), SIZE // 2
    blended, _ = drawn(tmp_path / "a", Glb().add(quad, faces, factor=(1, 1, 1, 0.5), alphaMode="BLEND"))
    assert blended.images[front, middle, middle, 3] == 128
    texture = np.full((16, 16, 4), 255)
    texture[:, :8, 3] = 0
    uv = [(0, 0), (1, 0), (1, 1), (0, 1)]
    cut, _ = drawn(tmp_path / "b", Glb().add(quad, faces, uv=uv, texture=texture, alphaMode="MASK"))
    assert cut.images[front, middle, middle - 6, 3] == 0
    assert cut.images[front, middle, middle + 6, 3] == 255


def test_colours_are_encoded_srgb_and_textures_come_out_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    factor, _ = drawn(tmp_path / "a", Glb().add(*box(), factor=(0.2140, 0.0, 1, 1)), shading="albedo")
    covered = factor.images[factor.images[..., 3] == 255]
    np.testing.assert_allclose(covered, [[127, 0, 255, 255]] * len(covered), atol=1)  # 0.5 encoded
    (tmp_path / "b").mkdir()
    texture = np.full((4, 4, 3), (90, 150, 37))
    plain, _ = drawn(tmp_path / "b", Glb().add(*box(), uv=np.zeros((24, 2)), texture=texture), shading="albedo")
    covered = plain.images[plain.images[..., 3] == 255]
    np.testing.assert_allclose(covered, [[90, 150, 37, 255]] * len(covered), atol=1)


def test_two_renders_have_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "m.glb").write_bytes(bytes(Glb().add(*box())))
    for name in ("a", "b"):
        render_mesh(tmp_path / "m.glb", tmp_path / name, sized(16))
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 121
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_an_occupied_folder_is_left_alone_and_a_failed_render_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.glb").write_bytes(bytes(Glb().add(*box())))
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "mine").touch()
    with pytest.raises(RenderError, match="not empty"):
        render_mesh(tmp_path / "m.glb", tmp_path / "o", sized(16))

    def fail(image: object) -> bytes:
        raise OSError("disk full")

    monkeypatch.setattr("gaussianverse.manifests.rendering.views.png", fail)
    with pytest.raises(OSError, match="disk full"):
        render_mesh(tmp_path / "m.glb", tmp_path / "p", sized(16))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.glb", "o"]


def test_size_out_of_range(tmp_path: Path) -> None:
    (tmp_path / "m.glb").write_bytes(bytes(Glb().add(*box())))
    for size in (0, 100_000):
        with pytest.raises(RenderError, match=rf"--size {size}: expected 1 to 4096 pixels"):
            render_mesh(tmp_path / "m.glb", tmp_path / "o", sized(size))


def test_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import moderngl

    def fail(**_: object) -> None:
        raise Exception("(detect) eglGetDisplay: failed")

    monkeypatch.setattr(moderngl, "create_context", fail)
    with pytest.raises(RenderError, match="apt-get install libegl1 libgl1-mesa-dri"):
        drawing._open_context()
    monkeypatch.setitem(__import__("sys").modules, "moderngl", None)
    with pytest.raises(RenderError, match=r"pip install 'gaussianverse\[render\]'"):
        drawing._open_context()


def test_command_line_renders_and_adds_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.glb").write_bytes(bytes(Glb().add(*box())))
    manifest = tmp_path / "set" / "objects.jsonl"
    argv = [str(tmp_path / "m.glb"), str(tmp_path / "views" / "box"), "--size", "16", "--no-geometry"]
    row = ["--manifest", str(manifest), "--caption", "a white box", "--category", "Daily-Used"]
    assert cli.main(["render", *argv, *row]) == 0
    assert "40 views in" in capsys.readouterr().out
    (written,) = jsonl.read(manifest)
    assert (written.uid, written.views, written.caption) == ("box", "../views/box", "a white box")
    (resolved,) = jsonl.resolve_views([written], manifest.parent)
    assert load_views(resolved.views, with_depth=True).depths is None
    assert cli.main(["render", *argv]) == 1
    assert "not empty" in capsys.readouterr().err
    argv[1] = str(tmp_path / "views" / "other")
    assert cli.main(["render", *argv, *row, "--uid", "box"]) == 1
    assert "duplicate uid 'box'" in capsys.readouterr().err
    assert not (tmp_path / "views" / "other").exists()


def test_command_line_takes_a_preset_and_warns_of_cropping(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.glb").write_bytes(bytes(Glb().add(*box())))
    argv = ["render", str(tmp_path / "m.glb")]
    assert cli.main([*argv, str(tmp_path / "o"), "--preset", "lgm", "--size", "8", "--seed", "3"]) == 0
    out, err = capsys.readouterr()
    assert "100 views in" in out
    assert "m.glb: the object leaves the frame in" in err
    assert rig.read(tmp_path / "o")[0].seed == 3
    assert len(load_views(tmp_path / "o", "gobjaverse", min_views=100).images) == 100
    radius = err.split("--radius ")[1].split()[0]
    options = ["--preset", "lgm", "--size", "8", "--radius", radius, "--extent", "0.9", "--albedo"]
    assert cli.main([*argv, str(tmp_path / "p"), *options]) == 0
    assert capsys.readouterr().err == ""
    assert rig.read(tmp_path / "p")[1]["shading"] == "albedo"
    for wrong, message in (
        (["--preset", "nerf"], "unknown preset 'nerf'; there are gobjaverse"),
        (["--size", "0"], "--size 0: expected 1 to 4096"),
        (["--size", "100000"], "--size 100000: expected 1 to 4096"),
    ):
        assert cli.main([*argv, str(tmp_path / "q"), *wrong]) == 1
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.glb", "o", "p"]
