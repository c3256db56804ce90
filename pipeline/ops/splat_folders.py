"""Rows of a manifest from a folder of 3D Gaussians; every file in it is taken, or counted under a reason."""

from __future__ import annotations

import json
import os
import re
import stat
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from gaussianverse import foreign
from gaussianverse.atlas.os_errors import describe, status_of
from gaussianverse.fitter.errors import BadInput, FitError
from gaussianverse.fitter.sources import tar_stream
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.folders import left_out_text
from gaussianverse.manifests.schema import SPLATS, SPLATS_BGR, Row, faults_of
from gaussianverse.pipeline.dataset.layout import RUN
from gaussianverse.pipeline.run.splat_files import (
    ARCHIVES,
    HOLD_GAUSSIANS,
    MAX_ARCHIVE_BYTES,
    POINT_CLOUDS,
    SPHERE,
    is_archive,
    member_of,
)

OTHER_FORMATS = (".splat", ".ksplat", ".spz", ".sog", ".sogs", ".lcc", ".gsplat", ".rad")
OTHER_ARCHIVES = (".zip", ".xz", ".txz", ".bz2", ".tbz", ".tbz2", ".7z", ".zst", ".rar", ".gz", ".lz4")
CONVERT = "convert them to .ply, for instance with PlayCanvas' splat-transform"

HIDDEN = "hidden files and folders"
EARLIER = "earlier iterations of an object"
BELOW = "files in folders below an object"
WITHOUT = ".ply files without 3D Gaussians"
UNKNOWN = "{} files"
SPLAT_FORMAT = "{} files, which are not read: " + CONVERT
ARCHIVE = "{} files, which are not read: unpack them, or pack them as .tar"
EMPTY_ARCHIVE = "archives without 3D Gaussians"
MEMBERS = "members of archives that belong to no object"
OF_DATASET = "other files and folders of a dataset, whose splats/ are read"
NOWHERE = "links that lead nowhere"
IRREGULAR = "pipes, devices and sockets"
LOOP = "links to a folder that is read already"

_ITERATION = re.compile(r"iteration_(\d{1,9})")
_PLY_HEADER = 64 << 10
_NEEDED = (b"f_dc_0", b"opacity", b"scale_0", b"rot_0")
_CUBE = b"'shape': (32, 32, 32, 14)"
_MAX_TEXT = 1 << 20
_TEXTS = ("caption.txt", "txt", "metadata.json", "json")


@dataclass
class Found:
    """Objects of a folder.

    Attributes:
        rows: one for each object, sorted by path.
        left_out: number of files by the reason for which they are not taken.
    """

    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def left_out_text(self) -> str:
        """One line that says what was left out, or ""."""
        return left_out_text(self.left_out) if self.left_out else ""


@dataclass(frozen=True)
class _Object:
    """One object: address relative to the root, name, and what its shard says of it."""

    views: str
    name: str
    facts: Mapping[str, str] = field(default_factory=dict)


def build(
    root: Path,
    *,
    captions: Mapping[str, str] | None = None,
    caption_source: str = "",
    license: str = "",
    swap_red_blue: bool = False,
) -> Found:
    """Rows for the files, folders and samples of shards at and below `root` that hold 3D Gaussians.

    Objects are: folders with point_cloud.ply, point_cloud.npy or splat.npz; .ply files of 3D Gaussians; .npz files of
    this project; GaussianCubes (.npy); and the samples of tars that hold such. The uid is the path, or the key of the
    sample, with "_" between its parts; `views` is relative to `root`. Captions, licences and origins that a shard
    brings are kept unless others are given.

    Args:
        root: the folder.
        captions: by path ("1923/9611649", as in GaussianVerse) or by uid; captions of other objects are
            ignored, since GaussianVerse has one file for all its objects.
        caption_source: source of all these captions.
        license: licence of all rows; "" keeps those of the shards.
        swap_red_blue: whether to exchange red and blue, which published fits need.

    Raises:
        ManifestError: there are no objects, or their paths cannot be uids, or two have the same.
    """
    known, found = captions or {}, Found()
    faults, places = [], defaultdict(list)
    for one in _objects(root, found.left_out):
        uid = one.name.replace("/", "_")
        caption = known.get(one.name, known.get(uid, ""))
        row = Row(
            uid=uid,
            views=one.views,
            format=SPLATS_BGR if swap_red_blue else SPLATS,
            category=one.facts.get("category", ""),
            license=license or one.facts.get("license", ""),
            caption=caption or one.facts.get("caption", ""),
            caption_source=caption_source if caption else one.facts.get("caption_source", ""),
            source_id=one.facts.get("source_id", "") or one.name,
            split=one.facts.get("split", ""),
            attribution=one.facts.get("attribution", ""),
        )
        found.rows.append(row)
        places[uid.casefold()].append(one.views)
        faults += [f"{root / one.views}: {fault}; rename it" for fault in faults_of(row)]
    left_out = found.left_out_text()
    if not found.rows:
        faults.append(
            f"{root}: no objects; expected folders with {' or '.join(HOLD_GAUSSIANS)}, .ply files, or .tar files of "
            f"these{f' ({left_out})' if left_out else ''}"
        )
    faults += [
        f"{root}: {' and '.join(same[:3])} would have one uid, or uids that differ in case only; rename all but one"
        for same in places.values()
        if len(same) > 1
    ]
    if faults:
        raise ManifestError(faults)
    return found


def _objects(root: Path, left_out: Counter[str]) -> Iterator[_Object]:
    """The objects at and below `root`, sorted by path within each folder; the rest is counted."""

    def refuse(error: OSError) -> None:
        raise ManifestError(f"{error.filename}: cannot be read: {describe(error)}") from error

    seen: set[tuple[int, int]] = set()
    for folder, below, files in os.walk(root, onerror=refuse, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            left_out[LOOP] += 1
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        left_out[HIDDEN] += sum(1 for name in (*below, *files) if name.startswith("."))
        below[:] = sorted(name for name in below if not name.startswith("."))
        files = sorted(name for name in files if not name.startswith("."))
        if RUN in files and SPLATS in below:
            left_out[OF_DATASET] += len(files) + len(below) - 1
            below[:], files = [SPLATS], []
        _drop_earlier(Path(folder), below, left_out)
        relative = Path(folder).relative_to(root).as_posix()
        held = [name for name in files if name.lower() in HOLD_GAUSSIANS]
        if held:
            yield _Object(relative, root.resolve().name if relative == "." else relative)
            files = [name for name in files if name not in held and name.lower() != SPHERE]
            left_out[BELOW] += sum(len(names) for name in below for _, _, names in os.walk(Path(folder) / name))
            below.clear()
        for name in files:
            yield from _of_file(root, name if relative == "." else f"{relative}/{name}", left_out)
    left_out += Counter()  # drops zeros


def _drop_earlier(folder: Path, below: list[str], left_out: Counter[str]) -> None:
    """Keep the last of the folders iteration_N that hold a point cloud, as 3DGS writes them."""
    steps = {name: int(match[1]) for name in below if (match := _ITERATION.fullmatch(name))}
    done = [n for n in steps if any(x.lower() in POINT_CLOUDS for x in os.listdir(folder / n))]
    for name in sorted(done, key=steps.__getitem__)[:-1]:
        below.remove(name)
        left_out[EARLIER] += 1


def _of_file(root: Path, path: str, left_out: Counter[str]) -> Iterator[_Object]:
    """The objects of one file; if there are none, it is counted."""
    name = PurePosixPath(path).name.lower()
    suffix = PurePosixPath(name).suffix
    try:
        status = status_of(root / path)
    except OSError as error:
        raise ManifestError(f"{root / path}: cannot be read: {describe(error)}") from error
    if status is None or not stat.S_ISREG(status.st_mode):
        left_out[NOWHERE if status is None else IRREGULAR] += 1
        return
    if is_archive(name):
        yield from _of_archive(root, path, left_out)
    elif suffix == ".ply":
        if _is_other_ply(root / path):
            left_out[WITHOUT] += 1
        else:
            yield _Object(path, path[:-4])
    elif suffix == ".npz" and _holds_splat(root / path):
        yield _Object(path, path[: -len(".splat.npz")] if name.endswith(".splat.npz") else path[:-4])
    elif suffix == ".npy" and _CUBE in _first_bytes(root / path, 256):
        yield _Object(path, path[:-4])
    elif suffix in OTHER_FORMATS:
        left_out[SPLAT_FORMAT.format(suffix)] += 1
    elif suffix in OTHER_ARCHIVES:
        left_out[ARCHIVE.format(suffix)] += 1
    else:
        left_out[UNKNOWN.format(suffix or "suffixless")] += 1


def _first_bytes(path: Path, count: int) -> bytes:
    try:
        with foreign.opened(path) as file:
            return file.read(count)
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {describe(error)}") from error


def _is_other_ply(path: Path) -> bool:
    """Whether a .ply file has a header, and it names no 3D Gaussians; damaged files are objects, and quarantined."""
    header, end, _ = _first_bytes(path, _PLY_HEADER).partition(b"\nend_header")
    if not header.startswith(b"ply") or not end or b"element chunk" in header:
        return False
    properties = {line.split()[-1] for line in header.split(b"\n") if line.strip().startswith(b"property")}
    return not all(name in properties for name in _NEEDED)


def _holds_splat(path: Path) -> bool:
    """Whether an .npz file has the members of this project's."""
    try:
        with foreign.opened(path) as file, zipfile.ZipFile(file) as archive:
            return {"means.npy", "scales.npy", "quats.npy"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile, ValueError):
        return False


def _of_archive(root: Path, path: str, left_out: Counter[str]) -> Iterator[_Object]:
    """The objects of a tar, in its order."""
    parts: dict[str, set[str]] = defaultdict(set)
    texts: dict[str, dict[str, bytes]] = defaultdict(dict)
    others: list[tuple[str, str]] = []
    try:
        with tar_stream.opened(root / path, MAX_ARCHIVE_BYTES) as members:
            for member in members:
                if member.unusual == "a folder":
                    continue
                if known := member_of(member.name):
                    parts[known[0]].add(known[1])
                    continue
                key, folder, text = _beside(member.name)
                others.append((key, folder))
                if text and not member.unusual:
                    with suppress(BadInput):  # of a size that no caption has
                        texts[key][text] = member.read(_MAX_TEXT)
    except (FitError, OSError) as error:
        cause = str(error) if isinstance(error, FitError) else describe(error)
        left_out[f"archives that cannot be read: {cause.replace(str(root / path), path)}"] += 1
        return
    keys = [key for key, held in parts.items() if held - {SPHERE}]
    if not keys:
        left_out[EMPTY_ARCHIVE] += 1
        return
    if stray := sum(1 for pair in others if not set(pair) & set(keys)) + len(parts) - len(keys):
        left_out[MEMBERS] += stray
    lower = PurePosixPath(path).name.lower()
    stem = path[: -next(len(suffix) for suffix in sorted(ARCHIVES, key=len, reverse=True) if lower.endswith(suffix))]
    for key in keys:
        yield _Object(f"{path}#{key}", key or stem, _facts(texts.get(key, {})))


def _beside(name: str) -> tuple[str, str, str]:
    """Sample and folder that a member of a tar may belong to, and its part if it is a text that may describe it."""
    path = PurePosixPath(name)
    folder = "/".join(part for part in path.parts[:-1] if part != "/")
    if path.name in ("caption.txt", "metadata.json"):
        return folder, folder, path.name
    text = next((text for text in _TEXTS if path.name.endswith(f".{text}")), "")
    base = path.name[: -len(text) - 1] if text else path.name.split(".", 1)[0]
    return (f"{folder}/{base}" if folder else base), folder, text


def _facts(texts: Mapping[str, bytes]) -> dict[str, str]:
    """A shard's facts of a sample: its caption, licence, category and origin."""
    values: dict[str, Any] = {}
    for name in ("metadata.json", "json"):
        try:
            read = json.loads(texts.get(name, b"{}"))
        except (ValueError, RecursionError):
            continue
        values |= read if isinstance(read, dict) else {}
    names = ("caption", "caption_source", "license", "category", "source_id", "split", "attribution")
    facts = {name: values[name] for name in names if isinstance(values.get(name), str)}
    packed = values.get("tar_gz_path")
    if "source_id" not in facts and isinstance(packed, str):
        facts["source_id"] = packed.removesuffix(".tar.gz")
    for name in ("caption.txt", "txt"):
        if text := texts.get(name, b"").decode(errors="replace").strip():
            facts["caption"] = text
    return facts
