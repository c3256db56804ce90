"""Feeds damaged files of one kind to their reader, in a process with little memory.

`python fuzz_files.py KIND FIRST COUNT` prints, as JSON, how many were read, how many gave the reader's named error,
and every other outcome with its number.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import resource
import signal
import struct
import sys
import tarfile
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

ROOM = 1 << 30
"""Bytes that a reader may take."""
SECONDS = 10


@dataclass(frozen=True)
class Kind:
    """A kind of file."""

    name: str
    """Name of the file, whose suffix says what it is."""
    whole: Callable[[random.Random], bytes]
    """A right file."""
    twisted: Callable[[random.Random], bytes]
    """A file that contradicts itself in the way of its format."""
    read: Callable[[Path], object]
    errors: tuple[type[Exception], ...]


def damaged(data: bytes, draw: random.Random) -> bytes:
    """Cut, doubled, with flipped bits, with a number replaced, or with a slice removed or overwritten."""
    start, stop = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    kind = draw.randrange(7)
    if kind == 0:
        return data[:start]
    if kind == 1:
        return data + data[start:stop]
    if kind == 2:
        return data[:start] + data[stop:]
    if kind == 3:
        return data[:start] + draw.randbytes(stop - start) + data[stop:]
    changed = bytearray(data)
    early = min(len(data), draw.choice((64, 512, len(data))))  # where headers are
    for _ in range(draw.randrange(1, 6)):
        changed[draw.randrange(early)] ^= 1 << draw.randrange(8)
    if kind == 4:
        at = draw.randrange(early)
        huge = struct.pack("<q", draw.choice((-1, 2**31 - 1, 2**32 - 1, 2**40, 2**62)))[: draw.choice((4, 8))]
        changed[at : at + len(huge)] = huge
    return bytes(changed)


def text_numbers(data: bytes, draw: random.Random) -> bytes:
    """A text with one of its numbers or words replaced."""
    words = data.split(b" ")
    words[draw.randrange(len(words))] = draw.choice(
        (
            b"-1",
            b"0",
            b"1e30",
            b"nan",
            b"99999999999999999999",
            b"1" * 400,
            b"\xff\xfe",
            b"",
            b"list uchar int",
            b"\n",
        )
    )
    return b" ".join(words)


WILD: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 2**31, 2**63, 1e308, float("nan"), "", "x", "\ud800", "../../x", "a" * 400, [], {}, [[]],
    [1, 2], {"a": 1}, [2**40] * 3, "data:;base64,AAAA", "file:///etc/hostname", "/dev/zero",
)  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values of a JSON document, containers included."""
    yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield from places(below, (*at, key))


def replaced(value: Any, at: tuple[Any, ...], by: Any) -> Any:
    """A JSON document with one value replaced."""
    if not at:
        return by
    inner = dict(value) if isinstance(value, dict) else list(value)
    inner[at[0]] = replaced(inner[at[0]], at[1:], by)
    return inner


def deep(n: int) -> bytes:
    return b'{"asset":' + b"[" * n + b"]" * n + b"}"


def glb_whole(draw: random.Random) -> bytes:
    from glb import Glb, box

    vertices, faces = box()
    return bytes(Glb().add(vertices, faces, uv=vertices[:, :2], texture=np.full((4, 4, 3), draw.randrange(256))))


def glb_of(text: bytes, binary: bytes) -> bytes:
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def glb_twisted(draw: random.Random) -> bytes:
    data = glb_whole(draw)
    (length,) = struct.unpack_from("<I", data, 12)
    value = json.loads(data[20 : 20 + length])
    for _ in range(draw.randrange(1, 4)):
        value = replaced(value, draw.choice(list(places(value))[1:]), draw.choice(WILD))
        if not isinstance(value, dict) or len(list(places(value))) < 2:
            break
    text = deep(100_000) if draw.randrange(40) == 0 else json.dumps(value).encode()
    return glb_of(text, data[28 + length :])


def gltf_whole(draw: random.Random) -> bytes:
    data = glb_whole(draw)
    (length,) = struct.unpack_from("<I", data, 12)
    value = json.loads(data[20 : 20 + length])
    value["buffers"][0]["uri"] = "data:;base64," + base64.b64encode(data[28 + length :]).decode()
    return json.dumps(value).encode()


def gltf_twisted(draw: random.Random) -> bytes:
    value = json.loads(gltf_whole(draw))
    return json.dumps(replaced(value, draw.choice(list(places(value))[1:]), draw.choice(WILD))).encode()


def exr_whole(draw: random.Random, H: int = 12, W: int = 9) -> bytes:
    import OpenEXR

    compression = draw.choice((OpenEXR.ZIP_COMPRESSION, OpenEXR.NO_COMPRESSION, OpenEXR.PIZ_COMPRESSION))
    channels = {name: np.full((H, W), draw.random(), np.float32) for name in "RGBA"}
    with tempfile.NamedTemporaryFile(suffix=".exr", dir="/tmp") as file:
        OpenEXR.File({"compression": compression}, channels).write(file.name)
        return Path(file.name).read_bytes()


def exr_twisted(draw: random.Random) -> bytes:
    data = bytearray(exr_whole(draw))
    window = data.find(draw.choice((b"dataWindow\0box2i\0", b"displayWindow\0box2i\0"))) + 17
    window = data.find(b"\x10\0\0\0", window) + 4
    for at in draw.sample(range(4), draw.randrange(1, 5)):
        value = draw.choice((-(2**31), -1, 0, 5, 2**15, 2**20, 2**30, 2**31 - 1))
        data[window + 4 * at : window + 4 * at + 4] = struct.pack("<i", value)
    return bytes(data)


def ply_whole(draw: random.Random) -> bytes:
    from gaussianverse.atlas import Gaussians
    from gaussianverse.atlas.gaussians import canonical_quats
    from gaussianverse.atlas.interchange.ply import write_ply

    rng = np.random.default_rng(draw.randrange(2**32))
    n = 20
    gaussians = Gaussians(
        rng.uniform(-1, 1, (n, 3)), rng.uniform(0.01, 0.1, (n, 3)), canonical_quats(rng.normal(size=(n, 4))),
        rng.uniform(0.1, 1, n), rng.uniform(0, 1, (n, 3)),
    )  # fmt: skip
    return write_ply(gaussians, sh_rest=draw.choice((0, 9, 45)))


def ply_twisted(draw: random.Random) -> bytes:
    head, end, rest = ply_whole(draw).partition(b"end_header\n")
    lines = head.split(b"\n")
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(lines))
        other = lines[draw.randrange(len(lines))]
        wild = text_numbers(lines[at], draw)
        lines[at] = draw.choice((other, b"comment end_header", b"element chunk 5", wild, wild))
    return b"\n".join(lines) + end + rest


def npz_whole(draw: random.Random) -> bytes:
    from gaussianverse.atlas.interchange.ply import read_ply

    return read_ply(ply_whole(draw)).to_bytes()


def npy_whole(draw: random.Random) -> bytes:
    from gaussianverse.atlas.arrays import npy

    return npy(np.arange(64, dtype="<i4").reshape(8, 8))


def npy_twisted(draw: random.Random) -> bytes:
    data = npy_whole(draw)
    shape = draw.choice(
        (b"(8, 8), }", b"(-8,8), }", b"(2**9,)}", b"(9**9,)}", b"((8,),)}", b"(None,)}", b"[8,    8]}")
    )
    return data.replace(b"(8, 8), }", shape).replace(b"<i4", draw.choice((b"<i4", b"|O8", b"<U9", b"<f2", b"|V4")))


def parquet_whole(draw: random.Random) -> bytes:
    from gaussianverse.manifests import runform
    from gaussianverse.manifests.schema import Row

    rows = [Row(f"o{i}", f"views/{i}", caption="c" * draw.randrange(40)) for i in range(draw.randrange(1, 6))]
    return runform.encode(rows, shard_size=2)


def parquet_twisted(draw: random.Random) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(io.BytesIO(parquet_whole(draw))).read(use_threads=False)
    columns = {name: table[name].to_pylist() for name in table.column_names}
    types = {f.name: f.type for f in table.schema}
    name = draw.choice(list(columns))
    kind = draw.randrange(6)
    if kind == 0:
        del columns[name]
    elif kind == 1:
        columns[name] = columns[name][::-1]
    elif kind == 2:
        columns[name] = [columns[name][0]] * len(columns[name])
    elif kind == 3:
        columns[name] = [None] * len(columns[name])
    elif kind == 4:
        types[name] = draw.choice(
            (pa.int8(), pa.binary(), pa.list_(pa.string()), pa.float64(), pa.null(), pa.bool_())
        )
        columns[name] = [None] * len(columns[name])
    else:
        wild = ("../../up", "a" * 300, "a\nb", "", "\0", "a/b", "\u202e", "A" * 128, "CC0\n---\n<b>")
        if pa.types.is_string(types[name]):
            columns[name] = [draw.choice(wild) for _ in columns[name]]
        elif pa.types.is_integer(types[name]):
            columns[name] = [draw.choice((-1, 0, 2**31 - 1)) for _ in columns[name]]
    arrays = {}
    for column, values in columns.items():
        try:
            arrays[column] = pa.array(values, types[column])
        except (pa.ArrowException, TypeError, ValueError):
            arrays[column] = pa.nulls(len(values))
    sink = io.BytesIO()
    made = pa.table(arrays, metadata=table.schema.metadata if draw.randrange(2) else None)
    pq.write_table(made, sink, row_group_size=draw.choice((1, 2, 100)))
    return sink.getvalue()


def view_members(draw: random.Random) -> dict[str, bytes]:
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(np.full((8, 8, 4), draw.randrange(256), np.uint8)).save(sink, "PNG")
    camera = {"x": [1, 0, 0], "y": [0, 1, 0], "z": [0, 0, 1], "origin": [0, 0, 2], "x_fov": 0.7, "y_fov": 0.7}
    found = {}
    for i in range(3):
        found[f"1/{i:05d}/{i:05d}.json"] = json.dumps({**camera, "origin": [i, 0, 2]}).encode()
        found[f"1/{i:05d}/{i:05d}.png"] = sink.getvalue()
    return found


def tar_whole(draw: random.Random) -> bytes:
    sink = io.BytesIO()
    above = "d/" * draw.choice((0, 0, 0, 80))
    with tarfile.open(
        fileobj=sink, mode="w", format=draw.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
    ) as archive:
        for name, data in view_members(draw).items():
            info = tarfile.TarInfo(above + name)
            info.size, info.mtime = len(data), 0.5  # type: ignore[assignment]
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def tar_twisted(draw: random.Random) -> bytes:
    """Headers with wild fields and right checksums."""
    data = bytearray(tar_whole(draw))
    blocks = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    for _ in range(draw.randrange(1, 4)):
        at = draw.choice(blocks)
        field = draw.choice(("size", "type", "name", "size"))
        if field == "size":
            huge = b"\x80\0\0\0" + struct.pack(">q", draw.choice((2**20, 2**33, 2**62)))
            data[at + 124 : at + 136] = draw.choice((b"77777777777\0", b"00000200000\0", b"-0000000001\0", huge))
        elif field == "type":
            data[at + 156] = draw.choice(b"0127xgLKSXDVM56\0")
        else:
            data[at : at + 100] = draw.choice((b"../x", b"/x", b"", b"1/00000/00000.png", b"\xff")).ljust(100, b"\0")
        data[at + 148 : at + 156] = b" " * 8
        data[at + 148 : at + 156] = f"{sum(data[at : at + 512]):06o}\0 ".encode()
    return bytes(data)


def tgz_twisted(draw: random.Random) -> bytes:
    if draw.randrange(30) == 0:
        return gzip.compress(tar_whole(draw) + bytes(300 << 20), 1)  # much filling
    data = gzip.compress(draw.choice((tar_whole, tar_twisted))(draw), 1)
    return damaged(data, draw) if draw.randrange(2) else data


def png_whole(draw: random.Random) -> bytes:
    return view_members(draw)["1/00000/00000.png"]


def png_twisted(draw: random.Random) -> bytes:
    import zlib

    data = bytearray(png_whole(draw))
    for at in (16, 20):
        if draw.randrange(2):
            data[at : at + 4] = struct.pack(">I", draw.choice((0, 1, 4000, 8192, 9000, 2**20, 2**31 - 1)))
    data[24:26] = bytes(draw.choice(((8, 6), (16, 6), (8, 3), (1, 0), (16, 2), (8, 4))))
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def cameras_whole(draw: random.Random) -> bytes:
    matrix = np.eye(4)
    frames = []
    for i in range(3):
        matrix[:3, 3] = i, 0, 2
        frames.append({"file_path": f"r_{i}.png", "transform_matrix": matrix.tolist()})
    return json.dumps({"camera_angle_x": 0.7, "w": 8, "h": 8, "frames": frames}).encode()


def cameras_twisted(draw: random.Random) -> bytes:
    value = json.loads(cameras_whole(draw))
    for _ in range(draw.randrange(1, 3)):
        if isinstance(value, dict | list) and value:
            value = replaced(value, draw.choice(list(places(value))), draw.choice(WILD))
    return json.dumps(value).encode()


def read_exr(path: Path) -> object:
    from gaussianverse.fitter.sources.exr import read_depth

    return read_depth(path.read_bytes(), "view 0")


def read_png(path: Path) -> object:
    from gaussianverse.fitter.sources.image import decode_rgba

    return decode_rgba(path.read_bytes(), "view 0")


def read_views(path: Path) -> object:
    from gaussianverse.fitter import load_views

    if path.suffix == ".json":
        for i in range(3):
            path.with_name(f"r_{i}.png").write_bytes(png_whole(random.Random(i)))
    return load_views(path, "auto", size=16)


def read_mesh(path: Path) -> object:
    from gaussianverse.manifests.errors import RenderError
    from gaussianverse.manifests.rendering.meshes import load_mesh

    try:
        return load_mesh(path)
    except RenderError as error:
        if isinstance(error.__cause__, MemoryError):  # the reader gives every error its name
            raise error.__cause__ from error
        raise


def read_manifest(path: Path) -> object:
    from gaussianverse.atlas.store.options import StoreOptions
    from gaussianverse.manifests import runform
    from gaussianverse.pipeline.run.manifest import read_manifest as read

    made = read(str(path), 2, StoreOptions())  # its folder goes with it
    with runform.opened(made.data) as file:
        rows = [row for k in range(len(file)) for row in runform.rows_of(file, k, "manifest")]
    uids = [row.uid for row in rows]
    assert uids == sorted(set(uids)), "uids are unique and sorted"
    assert all(uid.replace("-", "_").replace("_", "a").isalnum() and len(uid) <= 128 for uid in uids), uids
    return rows


def read_splats(path: Path) -> object:
    from gaussianverse.atlas.interchange.ply import read_view_dependent

    return read_view_dependent(path.read_bytes())


def read_fit(path: Path) -> object:
    from gaussianverse.atlas import Gaussians

    return Gaussians.load(path)


def read_indices(path: Path) -> object:
    from gaussianverse.atlas.plane import read_plane_indices

    return read_plane_indices(str(path), 8)


def kinds() -> dict[str, Kind]:
    """All kinds by name."""
    from gaussianverse.atlas.errors import AtlasError
    from gaussianverse.fitter.errors import FitError
    from gaussianverse.manifests.errors import ManifestError, RenderError
    from gaussianverse.pipeline.errors import PipelineError

    fit, atlas, render = (FitError,), (AtlasError,), (RenderError,)
    return {
        "parquet": Kind("o.parquet", parquet_whole, parquet_twisted, read_manifest, (ManifestError, PipelineError)),
        "glb": Kind("m.glb", glb_whole, glb_twisted, read_mesh, render),
        "gltf": Kind("m.gltf", gltf_whole, gltf_twisted, read_mesh, render),
        "exr": Kind("d.exr", exr_whole, exr_twisted, read_exr, fit),
        "png": Kind("p.png", png_whole, png_twisted, read_png, fit),
        "ply": Kind("s.ply", ply_whole, ply_twisted, read_splats, atlas),
        "npz": Kind("s.npz", npz_whole, npz_whole, read_fit, atlas),
        "npy": Kind("i.npy", npy_whole, npy_twisted, read_indices, atlas),
        "tar": Kind("v.tar", tar_whole, tar_twisted, read_views, fit),
        "tgz": Kind("v.tar.gz", lambda draw: gzip.compress(tar_whole(draw), 1), tgz_twisted, read_views, fit),
        "transforms": Kind("transforms.json", cameras_whole, cameras_twisted, read_views, fit),
    }


NAMES = ("parquet", "glb", "gltf", "exr", "png", "ply", "npz", "npy", "tar", "tgz", "transforms")


class OutOfTime(BaseException):
    """A reader took longer than `SECONDS`."""


def _late(signum: int, frame: FrameType | None) -> None:
    raise OutOfTime


def address_space() -> int:
    """Bytes of this process' address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main(name: str, first: int, count: int) -> None:
    """Try inputs `first` to `first + count - 1` of a kind."""
    warnings.simplefilter("ignore")
    kind = kinds()[name]
    outcomes: dict[str, Any] = {"read": 0, "named": 0, "others": []}
    signal.signal(signal.SIGALRM, _late)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / kind.name
        path.write_bytes(kind.whole(random.Random(0)))
        try:
            kind.read(path)  # imports what it needs
        except kind.errors as error:
            outcomes["others"].append([-1, f"a right file: {error}"])
        for seed in range(first, first + count):
            draw = random.Random(f"{name} {seed}")
            resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
            data = damaged(kind.whole(draw), draw) if seed % 2 else kind.twisted(draw)
            path.write_bytes(data)
            resource.setrlimit(resource.RLIMIT_AS, (address_space() + ROOM, -1))
            signal.alarm(SECONDS)
            try:
                kind.read(path)
                outcomes["read"] += 1
            except kind.errors:
                outcomes["named"] += 1
            except BaseException as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                text = f"{type(error).__name__}: {str(error)[:200]} ({where.filename}:{where.lineno})"
                outcomes["others"].append([seed, text])
            finally:
                signal.alarm(0)
            print(seed, file=sys.stderr, flush=True)
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
