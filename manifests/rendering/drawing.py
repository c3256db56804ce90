"""Drawing of a mesh with OpenGL, without a display."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gaussianverse.manifests.errors import RenderError
from gaussianverse.manifests.rendering.meshes import Mesh
from gaussianverse.manifests.rendering.parts import MIRROR, REPEAT, Part, Texture
from gaussianverse.manifests.rendering.rig import Camera

Shading = Literal["diffuse", "albedo"]
DRAWING = 1
"""Edition of the drawing, in `rig.json`: it changes when the same mesh and cameras give other pixels."""

_SAMPLES = 4  # per pixel and axis; the screen-door pattern below is as wide

# A shader is compiled for what a part has of a BASE texture, an EMISSION texture, and holes (CUT), since Mesa runs
# what is compiled in for every sample, and drops hidden samples early only where the shader drops none.
_VERTEX = """
uniform mat4 clip_from_world;
uniform vec4 optical_axis;  // row of the world-to-camera matrix that gives z-depth
in vec3 position; in vec3 normal; in vec4 color;
out vec3 world; out vec3 smooth_normal; out vec4 tint; out float depth;
#ifdef BASE
in vec2 base_uv; out vec2 base_at;
#endif
#ifdef EMISSION
in vec2 emission_uv; out vec2 emission_at;
#endif
void main() {
    gl_Position = clip_from_world * vec4(position, 1.0);
    world = position; smooth_normal = normal; tint = color;
    depth = dot(optical_axis, vec4(position, 1.0));
#ifdef BASE
    base_at = base_uv;
#endif
#ifdef EMISSION
    emission_at = emission_uv;
#endif
}
"""

_FRAGMENT = """
uniform float diffuse; uniform vec3 emissive;
in vec3 world; in vec3 smooth_normal; in vec4 tint; in float depth;
layout(location = 0) out vec4 surface; layout(location = 1) out vec4 geometry;
const vec3 light = normalize(vec3(0.35, -0.5, 0.8));
vec2 folded(vec2 at, vec2 axes) { return mix(at, 1.0 - abs(mod(at, 2.0) - 1.0), axes); }
#ifdef BASE
uniform sampler2D base; uniform vec2 base_mirrored; in vec2 base_at;
#endif
#ifdef EMISSION
uniform sampler2D emission; uniform vec2 emission_mirrored; in vec2 emission_at;
#endif
#ifdef CUT
uniform float cutoff;
const float bayer[16] = float[](0., 8., 2., 10., 12., 4., 14., 6., 3., 11., 1., 9., 15., 7., 13., 5.);
#endif
void main() {
    vec4 color = tint; vec3 emitted = emissive;
#ifdef BASE
    color *= texture(base, folded(base_at, base_mirrored));
#endif
#ifdef EMISSION
    emitted *= texture(emission, folded(emission_at, emission_mirrored)).rgb;
#endif
#ifdef CUT
    ivec2 cell = ivec2(gl_FragCoord.xy) & 3;
    // A negative cutoff says that alpha is coverage: drop that share of the samples.
    if (color.a < (cutoff < 0.0 ? (bayer[4 * cell.y + cell.x] + 0.5) / 16.0 : cutoff)) discard;
#endif
    vec3 n = gl_FrontFacing ? smooth_normal : -smooth_normal;
    n = dot(n, n) < 1e-6 ? normalize(cross(dFdx(world), dFdy(world))) : normalize(n);
    float wrapped = 0.5 + 0.5 * dot(n, light);
    surface = vec4(min(color.rgb * mix(1.0, 0.3 + 0.7 * wrapped, diffuse) + emitted, 1.0), 1.0);
    geometry = vec4(n, depth);
}
"""

# The mean of a pixel's samples, added row by row from the upper left. An uncovered sample is all zeros.
_MEAN_VERTEX = """
#version 330
void main() { gl_Position = vec4(4 * (gl_VertexID & 1) - 1, 2 * (gl_VertexID & 2) - 1, 0.0, 1.0); }
"""

_MEAN_FRAGMENT = f"""
#version 330
uniform sampler2D samples;
out vec4 mean;
void main() {{
    ivec2 corner = {_SAMPLES} * ivec2(gl_FragCoord.xy);
    vec4 sum = vec4(0.0);
    for (int y = {_SAMPLES - 1}; y >= 0; --y)
        for (int x = 0; x < {_SAMPLES}; ++x) sum += texelFetch(samples, corner + ivec2(x, y), 0);
    mean = sum / {_SAMPLES**2}.0;
}}
"""


class DriverError(RenderError):
    """This machine cannot draw, whatever the mesh."""


class Renderer:
    """OpenGL renderer of one mesh for any camera; a context manager that frees its OpenGL context.

    Args:
        mesh: the mesh to draw.
        shading: "diffuse", a soft light fixed in the world, or "albedo", base colour alone.

    Raises:
        DriverError: moderngl or an EGL driver is missing.
        RenderError: a texture is larger than the driver reads.
    """

    def __init__(self, mesh: Mesh, *, shading: Shading) -> None:
        self._gl, self._ctx = _open_context()
        self._limit = min(int(self._ctx.info["GL_MAX_TEXTURE_SIZE"]), 16384) // _SAMPLES
        # nearer and farther than the camera's distance; at least 1, so that usual meshes have one depth range
        self._reach = max(1.0, float(np.linalg.norm(mesh.points, axis=1).max()))
        self._programs: dict[tuple[str, ...], Any] = {}
        mean = self._ctx.program(vertex_shader=_MEAN_VERTEX, fragment_shader=_MEAN_FRAGMENT)
        self._mean = self._ctx.vertex_array(mean, [])
        self._lit = shading == "diffuse"
        self._uploaded: dict[int, Any] = {}  # by the identity of the image: parts share them
        for part in mesh.parts:
            for _, texture in _textures(part):
                if id(texture.image) not in self._uploaded:
                    self._uploaded[id(texture.image)] = self._upload(texture.image)
        self._parts = [(part, self._vertex_array(part)) for part in mesh.parts]
        self._targets: dict[tuple[int, int, int], Any] = {}

    def __enter__(self) -> "Renderer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the OpenGL context."""
        self._ctx.release()

    def color(self, camera: Camera) -> NDArray[np.uint8]:
        """Render colour, uint8 [h, w, 4]: sRGB with straight alpha, the covered share of the pixel.

        Raises:
            RenderError: the driver cannot draw so many pixels.
        """
        self._draw(camera, _SAMPLES)
        fine = self._target(camera, _SAMPLES)
        fine.color_attachments[0].use(0)
        target = self._target(camera, 1)
        target.use()
        self._ctx.enable_only(self._gl.NOTHING)
        self._mean.render(self._gl.TRIANGLES, vertices=3)
        linear = _pixels(target, 0)  # premultiplied
        alpha = linear[..., 3:]
        rgb = np.divide(linear[..., :3], alpha, out=np.zeros_like(linear[..., :3]), where=alpha > 0)
        encoded = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * np.maximum(rgb, 1e-6) ** (1 / 2.4) - 0.055)
        rgba: NDArray[np.uint8] = np.rint(255 * np.concatenate([encoded, alpha], -1)).astype(np.uint8)
        return rgba

    def geometry(self, camera: Camera) -> NDArray[np.float32]:
        """Render geometry, float32 [h, w, 4]: world normal and z-depth at pixel centres, 0 if empty.

        Raises:
            RenderError: the driver cannot draw so many pixels.
        """
        self._draw(camera, 1)
        return _pixels(self._target(camera, 1), 1)

    def _draw(self, camera: Camera, samples: int) -> None:
        """Draw `samples` x `samples` samples a pixel."""
        target = self._target(camera, samples)
        w2c = np.linalg.inv(camera.c2w)
        gl_view = np.diag([1.0, -1.0, -1.0, 1.0]) @ w2c
        distance = float(np.linalg.norm(camera.c2w[:3, 3]))
        near, far = max(distance - self._reach, 0.01), distance + self._reach
        project = _projection(camera, near, far)
        for program in self._programs.values():
            program["clip_from_world"].write((project @ gl_view).T.astype(np.float32).tobytes())
            if "optical_axis" in program:
                program["optical_axis"].write(w2c[2].astype(np.float32).tobytes())
        target.use()
        target.clear()
        self._ctx.enable_only(self._gl.DEPTH_TEST)
        for part, vertices in self._parts:
            program = vertices.program
            if "cutoff" in program:
                program["cutoff"] = part.cutoff if part.cutoff is not None else -1.0 if samples > 1 else 0.5
            program["diffuse"] = float(self._lit and not part.unlit)
            program["emissive"] = part.emissive if self._lit else (0.0, 0.0, 0.0)
            self._use(program, "base", part.base, 0)
            self._use(program, "emission", part.emission, 1)
            vertices.render()

    def _target(self, camera: Camera, samples: int) -> Any:
        """The framebuffer for `samples` x `samples` samples a pixel, kept for other cameras of the same size."""
        for name, pixels in (("width", camera.width), ("height", camera.height)):
            if not 1 <= pixels <= self._limit:
                raise RenderError(f"{name} {pixels}: this driver draws 1 to {self._limit} pixels a side")
        key = (camera.width, camera.height, samples)
        if key not in self._targets:
            size = (camera.width * samples, camera.height * samples)
            attachments = 1 if samples > 1 else 2  # normals and depth are at pixel centres alone
            try:
                colors = [self._ctx.texture(size, 4, dtype="f4") for _ in range(attachments)]
                self._targets[key] = self._ctx.framebuffer(colors, self._ctx.depth_renderbuffer(size))
            except self._gl.Error as error:  # Mesa without a GPU has no textures above 1 GiB
                raise DriverError(
                    f"this driver has no memory for {camera.width} x {camera.height} pixels ({error}); "
                    "give a smaller --size"
                ) from error
        return self._targets[key]

    def _vertex_array(self, part: Part) -> Any:
        arrays = {"position": part.vertices, "normal": part.normals, "color": part.colors}
        arrays |= {f"{name}_uv": texture.uv for name, texture in _textures(part)}
        defines = (*(name.upper() for name, _ in _textures(part)), *(("CUT",) if part.cutoff != 0 else ()))
        if defines not in self._programs:
            head = "#version 330\n" + "".join(f"#define {name}\n" for name in defines)
            self._programs[defines] = self._ctx.program(
                vertex_shader=head + _VERTEX, fragment_shader=head + _FRAGMENT
            )
        data = np.ascontiguousarray(np.concatenate([*arrays.values()], axis=1), np.float32).tobytes()
        widths = " ".join(f"{array.shape[1]}f" for array in arrays.values())
        layout = (self._ctx.buffer(data), widths, *arrays)
        return self._ctx.vertex_array(self._programs[defines], [layout], self._ctx.buffer(part.faces.tobytes()))

    def _use(self, program: Any, name: str, texture: Texture | None, unit: int) -> None:
        """Bind a texture if there is one, as the sampler `name` reads it."""
        if texture is None or name not in program:
            return
        uploaded = self._uploaded[id(texture.image)]
        # parts that share an image may wrap and filter it differently
        uploaded.repeat_x, uploaded.repeat_y = (wrap == REPEAT for wrap in texture.wrap)
        uploaded.filter = (self._gl.LINEAR_MIPMAP_LINEAR, self._gl.NEAREST if texture.nearest else self._gl.LINEAR)
        uploaded.anisotropy = 1.0 if texture.nearest else 8.0  # Mesa's anisotropic filter blends all texels
        program[f"{name}_mirrored"] = tuple(float(wrap == MIRROR) for wrap in texture.wrap)
        program[name] = unit
        uploaded.use(unit)

    def _upload(self, image: NDArray[np.uint8]) -> Any:
        largest, (height, width) = int(self._ctx.info["GL_MAX_TEXTURE_SIZE"]), image.shape[:2]
        if max(height, width) > largest:  # OpenGL would draw it black
            raise RenderError(f"a texture has {width} x {height} pixels, and this driver reads {largest} a side")
        srgb8_alpha8 = 0x8C43  # filtering and mipmaps average linear light, not sRGB values
        data = np.ascontiguousarray(image[::-1]).tobytes()
        texture = self._ctx.texture((width, height), 4, data, internal_format=srgb8_alpha8)
        texture.build_mipmaps()
        return texture


def _textures(part: Part) -> list[tuple[str, Texture]]:
    """The textures that a part has, with the names of their samplers."""
    return [(name, t) for name, t in (("base", part.base), ("emission", part.emission)) if t is not None]


def _pixels(target: Any, attachment: int) -> NDArray[np.float32]:
    """Pixels [h, w, 4] of a framebuffer, top row first."""
    data = target.read(components=4, attachment=attachment, dtype="f4")
    return np.frombuffer(data, np.float32).reshape(target.height, target.width, 4)[::-1]


def _projection(camera: Camera, near: float, far: float) -> NDArray[np.float64]:
    """OpenGL's clip-from-camera matrix [4, 4] of a camera."""
    K, w, h = camera.K, camera.width, camera.height
    project = np.zeros((4, 4))
    project[0, :3] = 2 * K[0, 0] / w, -2 * K[0, 1] / w, 1 - 2 * K[0, 2] / w
    project[1, 1:3] = 2 * K[1, 1] / h, 2 * K[1, 2] / h - 1
    project[2, 2:] = (far + near) / (near - far), 2 * far * near / (near - far)
    project[3, 2] = -1
    return project


def check() -> str:
    """Open and close an OpenGL context; returns the name of its driver.

    Raises:
        DriverError: there is none through EGL.
    """
    _, context = _open_context()
    try:
        return str(context.info["GL_RENDERER"])
    finally:
        context.release()


def _open_context() -> tuple[Any, Any]:
    """Open an OpenGL context without a window; returns the moderngl module and the context."""
    try:
        import moderngl
    except ImportError as error:
        raise DriverError("rendering needs moderngl: pip install 'gaussianverse[render]'") from error
    backend: dict[str, Any] = {"backend": "egl"}
    try:
        return moderngl, moderngl.create_context(standalone=True, require=330, **backend)
    except Exception as error:  # moderngl raises plain Exception
        raise DriverError(
            f"no OpenGL 3.3 through EGL ({error}); on Debian or Ubuntu: apt-get install libegl1 libgl1-mesa-dri"
        ) from error
