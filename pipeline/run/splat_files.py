"""Files that hold the 3D Gaussians of an object: which they are, and their values.

An object is a file, a folder, or members of a tar, whose address is `PATH.tar#KEY`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaussianverse import foreign
from gaussianverse.atlas.arrays import read_npy
from gaussianverse.atlas.dataset_format import MAIN_SUFFIX, SPLATS
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.interchange.gaussiancube import from_cube
from gaussianverse.atlas.interchange.ply import Floats, read_raw
from gaussianverse.atlas.interchange.published import read_raw_point_cloud
from gaussianverse.atlas.os_errors import describe, is_folder, is_machines
from gaussianverse.fitter.frame import WORLD, Frame
from gaussianverse.fitter.sources import tar_stream
from gaussianverse.fitter.sources.files import InputDigest
from gaussianverse.pipeline.config import SplatsConfig
from gaussianverse.pipeline.dataset.schemas import FRAME

PLY, CLOUD, SPHERE, SPLAT = "point_cloud.ply", "point_cloud.npy", "gs2sphere.npy", MAIN_SUFFIX[SPLATS]
POINT_CLOUDS = (PLY, CLOUD)
"""A folder that holds one of these is an object."""
HOLD_GAUSSIANS = (*POINT_CLOUDS, SPLAT)
METADATA, SAMPLE_JSON = "metadata.json", "json"
ARCHIVES = (".tar", ".tar.gz", ".tgz")
MAX_ARCHIVE_BYTES = 1 << 40
"""Bytes of a shard, of which one object is read; what is unpacked has the budget of `tar_stream` as well."""
MAX_MEMBER_BYTES = 1 << 30
_LONE = "ply"

Values = Gaussians | dict[str, Floats]


@dataclass(frozen=True)
class Source:
    """The content of the files of one object.

    Attributes:
        values: the Gaussians, or their values before activation, see `ply.read_raw`.
        sha256: over the bytes of the files, each after its length, in the order of their names.
        indices: sphere indices beside them, if there are any.
        frame: where an export of this project says that the object was.
    """

    values: Values
    sha256: str
    indices: NDArray[Any] | None = None
    frame: Frame = WORLD


def member_of(name: str) -> tuple[str, str] | None:
    """Object and part of a member of a tar, such as ("19/7", "point_cloud.npy"), or None if it is no such part.

    Shards name their members KEY.PART, archives of folders KEY/PART; any other .ply is an object by itself.
    """
    path = PurePosixPath(name)
    key, base = "/".join(p for p in path.parts[:-1] if p != "/"), path.name
    for part in (*HOLD_GAUSSIANS, SPHERE):
        if base.lower() == part:
            return key, part
        if base.lower().endswith(f".{part}"):
            return _joined(key, base[: -len(part) - 1]), part
    return (_joined(key, base[:-4]), _LONE) if base.lower().endswith(".ply") else None


def _joined(key: str, base: str) -> str:
    return f"{key}/{base}" if key else base


def is_archive(name: str) -> bool:
    """Whether a file's name is that of a tar."""
    return name.lower().endswith(ARCHIVES)


def split_address(views: str) -> tuple[str, str | None]:
    """Address of a file or folder, and the key of the object in it if that is a tar; see the module."""
    place, mark, key = views.partition("#")
    return (place, key) if mark and is_archive(place) else (views, None)


def read_source(path: Path, config: SplatsConfig, key: str | None = None) -> Source:
    """Read the files of one object.

    Args:
        path: a file, a folder, or a tar.
        config: how values are interpreted.
        key: of the object in the tar; "" for one whose files lie at its top.

    Raises:
        AtlasError: a file is missing or of another form.
        FitError: an archive cannot be read.
        OSError: the machine's, see `atlas.os_errors`.
    """
    if key is not None:
        return _of_parts(_members(path, key), f"{path}#{key}", config)
    if is_folder(path):
        parts = {entry.name.lower(): entry for entry in sorted(path.iterdir(), reverse=True)}
        wanted = {part: _bytes_of(parts[part]) for part in (*HOLD_GAUSSIANS, SPHERE, METADATA) if part in parts}
        return _of_parts(wanted, str(path), config)
    data = _bytes_of(path)
    return Source(_values(path.name.lower(), data, str(path), config), _sha256([data]))


def _sha256(files: Sequence[bytes]) -> str:
    digest = InputDigest()
    for data in files:
        digest.add(data)
    return digest.hexdigest()


def _members(archive: Path, key: str) -> dict[str, bytes]:
    """The parts of one object of a tar."""
    found: dict[str, bytes] = {}
    described = {f"{key}.{SAMPLE_JSON}", f"{key}.{METADATA}", _joined(key, METADATA)}
    with tar_stream.opened(archive, MAX_ARCHIVE_BYTES) as members:
        for member in members:
            known = member_of(member.name)
            if member.name.removeprefix("./") in described and not member.unusual:
                known = key, METADATA
            if known is None or known[0] != key:
                continue
            if member.unusual:
                raise AtlasError(f"{archive}: member {member.name!r} is not a regular file but {member.unusual}")
            found[known[1]] = member.read(MAX_MEMBER_BYTES)
    return found


def _of_parts(parts: dict[str, bytes], where: str, config: SplatsConfig) -> Source:
    held = [part for part in (*HOLD_GAUSSIANS, _LONE) if part in parts]
    if len(held) != 1:
        raise AtlasError(
            f"{where}: expected one of {', '.join(HOLD_GAUSSIANS)}, found {len(held)}; keep the one that counts"
        )
    values = _values("x.ply" if held[0] == _LONE else held[0], parts[held[0]], f"{where}/{held[0]}", config)
    indices = _array(parts[SPHERE], f"{where}/{SPHERE}") if SPHERE in parts else None
    return Source(values, _sha256([parts[name] for name in sorted(parts)]), indices, _frame(parts.get(METADATA, b"")))


def _frame(metadata: bytes) -> Frame:
    """The frame that metadata of this project's names; others name none."""
    try:
        facts = json.loads(metadata or b"{}")
        numbers = [float(facts.get(name, 0.0)) for name in FRAME]
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        return WORLD
    *center, unit = numbers
    return Frame(np.array(center), unit) if unit > 0 and np.isfinite(numbers).all() else WORLD


def _values(name: str, data: bytes, where: str, config: SplatsConfig) -> Values:
    try:
        if name.endswith(".ply"):
            return read_raw(data, activated=config.activated)
        if name == CLOUD:
            return read_raw_point_cloud(read_npy(data), activated=config.activated)
        if name.endswith(".npz"):
            return Gaussians.from_bytes(data)
        if name.endswith(".npy"):
            return from_cube(read_npy(data))
    except AtlasError as error:
        raise AtlasError(f"{where}: {error}") from error
    raise AtlasError(f"{where}: not a file of 3D Gaussians that is read here; convert it to .ply")


def _array(data: bytes, where: str) -> NDArray[Any]:
    try:
        return read_npy(data)
    except AtlasError as error:
        raise AtlasError(f"{where}: {error}") from error


def _bytes_of(path: Path) -> bytes:
    try:
        return foreign.read_bytes(path)
    except OSError as error:
        if is_machines(error):
            raise
        raise AtlasError(f"{path}: cannot be read: {describe(error)}") from error
