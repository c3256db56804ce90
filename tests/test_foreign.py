"""Files that others made: regular ones, no more of them than a limit, and never a wait."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gaussianverse.atlas import Gaussians
from gaussianverse.atlas.configuration import ConfigError
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.plane import read_plane_indices
from gaussianverse.atlas.store.errors import NotFound, StoreError
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.fitter import load_views
from gaussianverse.fitter.config import load_profile
from gaussianverse.fitter.errors import FitError
from gaussianverse.fitter.lpips import LpipsUnavailable, load_lpips
from gaussianverse.foreign import NotAFile, TooLarge, read_bytes, read_text
from gaussianverse.manifests import gobjaverse
from gaussianverse.manifests.errors import ManifestError, RenderError
from gaussianverse.manifests.rendering.gltf import Gltf
from gaussianverse.pipeline.run.manifest import read_manifest
from gaussianverse.pipeline.run.splats import read_splats


def test_a_regular_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for size in (0, 1, 100):
        path.write_bytes(b"x" * size)
        assert read_bytes(path, 100) == b"x" * size
    path.write_bytes(b"x" * 101)
    with pytest.raises(TooLarge, match="101 bytes, more than the limit of 100"):
        read_bytes(path, 100)
    path.write_text("é")
    assert read_text(path) == "é"


def test_links_to_files_are_followed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert read_bytes(tmp_path / "b") == b"x"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.ply")
    with pytest.raises(NotAFile, match="a named pipe"):
        read_bytes(tmp_path / "x.ply")


def test_a_device_without_end_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x.ply").symlink_to("/dev/zero")
    with pytest.raises(NotAFile, match="a device"):
        read_bytes(tmp_path / "x.ply")


def test_a_socket_is_named() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/s")
        with pytest.raises(NotAFile, match="a socket"):
            read_bytes(f"{folder}/s")


@pytest.mark.parametrize(("name", "error"), [("none", FileNotFoundError), ("", IsADirectoryError)])
def test_what_the_system_says_stays_as_it_is(name: str, error: type[OSError], tmp_path: Path) -> None:
    with pytest.raises(error) as raised:
        read_bytes(tmp_path / name)
    assert raised.value.errno


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="there is no /proc")
def test_a_file_that_does_not_tell_its_size_is_limited_too() -> None:
    assert b"Threads" in read_bytes("/proc/self/status")
    with pytest.raises(TooLarge, match="more than the limit of 10 bytes"):
        read_bytes("/proc/self/status", 10)


Errors = type[Exception] | tuple[type[Exception], ...]
DOORS: dict[str, tuple[Callable[[Path], object], Errors]] = {
    "manifest.jsonl": (lambda path: read_manifest(str(path), 2, StoreOptions()), ManifestError),
    "manifest.parquet": (lambda path: read_manifest(str(path), 2, StoreOptions()), ManifestError),
    "captions.csv": (gobjaverse.read_captions, ManifestError),
    "captions.json": (gobjaverse.read_captions, ManifestError),
    "settings.toml": (load_profile, ConfigError),
    "weights.npz": (lambda path: load_lpips("vgg", path, torch.device("cpu")), LpipsUnavailable),
    "mesh.glb": (Gltf, RenderError),
    "views.tar": (load_views, FitError),
    "transforms.json": (load_views, FitError),
    "views": (load_views, FitError),
    "indices.npy": (lambda path: read_plane_indices(str(path), 8), AtlasError),
    "splats.ply": (lambda path: read_splats(path, "splats"), AtlasError),
    "fit.npz": (Gaussians.load, OSError),
    "shard.tar": (lambda path: LocalStorage(path.parent).get(path.name), (NotFound, StoreError)),
    "range.tar": (lambda path: LocalStorage(path.parent).read(path.name, 0, 4), (NotFound, StoreError)),
}


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("name", DOORS)
def test_no_door_waits_for_a_pipe_or_reads_a_device(name: str, kind: str, tmp_path: Path) -> None:
    function, error = DOORS[name]
    os.mkfifo(tmp_path / name) if kind == "pipe" else (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(error):
        function(tmp_path / name)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_files_beside_a_mesh_are_doors_too(kind: str, tmp_path: Path) -> None:
    mesh = {"asset": {"version": "2.0"}, "buffers": [{"uri": "b.bin", "byteLength": 4}],
            "bufferViews": [{"buffer": 0, "byteLength": 4}], "images": [{"uri": "b.bin"}]}  # fmt: skip
    (tmp_path / "m.gltf").write_text(json.dumps(mesh))
    os.mkfifo(tmp_path / "b.bin") if kind == "pipe" else (tmp_path / "b.bin").symlink_to("/dev/zero")
    with pytest.raises((NotAFile, RenderError)):
        Gltf(tmp_path / "m.gltf").view_bytes(0)
    with pytest.raises((NotAFile, RenderError)):
        Gltf(tmp_path / "m.gltf")._decode(0)
