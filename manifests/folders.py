"""Rows from a folder that holds one folder or archive of views per object."""

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.schema import Row, faults_of

_ARCHIVES = (".tar.gz", ".tgz", ".tar")
_OTHER_ARCHIVES = (".zip", ".xz", ".txz", ".bz2", ".tbz", ".tbz2", ".7z", ".zst", ".rar", ".gz", ".lz4")
_GAUSSIANS = (".ply", ".splat", ".ksplat", ".spz", ".sog")
_MESHES = (".glb", ".gltf", ".obj", ".fbx", ".stl", ".usdz", ".blend")


@dataclass
class Built:
    """Rows, and the number of entries left out, by reason."""

    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def build(
    root: Path,
    manifest_folder: Path,
    *,
    captions: Mapping[str, str] | None = None,
    caption_source: str = "",
    category: str = "",
    license: str = "",
) -> Built:
    """Rows for the sub-folders and archives of `root`, sorted by name; every other entry is counted.

    Args:
        root: the folder of objects.
        manifest_folder: folder of the manifest; `views` are relative to it.
        captions: by name of the sub-folder or archive, without extension.
        caption_source: source of all captions.
        category: category of all rows.
        license: licence of all rows.

    Raises:
        ManifestError: `root` holds no objects, their names cannot be uids, or a caption names an object that
            is not there.
    """
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        raise ManifestError(f"{root}: cannot be read: {error.strerror}") from error
    known, built = captions or {}, Built()
    rows, faults = built.rows, []
    for entry in entries:
        try:
            uid, reason = _object_name(entry)
        except OSError as error:
            raise ManifestError(f"{entry}: cannot be read: {error.strerror}") from error
        if reason:
            built.left_out[reason] += 1
            continue
        caption = known.get(uid, "")
        row = Row(
            uid=uid,
            views=Path(os.path.relpath(entry.resolve(), manifest_folder.resolve())).as_posix(),
            category=category,
            license=license,
            caption=caption,
            caption_source=caption_source if caption else "",
        )
        rows.append(row)
        faults += [f"{entry}: {fault}; rename it" for fault in faults_of(row)]
    if not rows:
        seen = f" ({left_out_text(built.left_out)})" if built.left_out else ""
        faults.append(f"{root}: no objects; expected one folder or .tar of views per object{seen}")
    same = defaultdict(list)
    for row in rows:
        same[row.uid.lower()].append(row.uid)
    for uids in same.values():
        if len(set(uids)) < len(uids):
            faults.append(f"{root}: two objects are called {uids[0]!r}; rename one")
        elif len(uids) > 1:
            faults.append(f"{root}: {' and '.join(map(repr, uids))} differ in case only; rename all but one")
    faults += [f"caption of {uid!r}, which is not in {root}" for uid in sorted(set(known) - {r.uid for r in rows})]
    if faults:
        raise ManifestError(faults)
    return built


def left_out_text(left_out: Mapping[str, int]) -> str:
    """One line that says what was left out, and how much in all."""
    listed = "; ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
    return f"{sum(left_out.values())} left out: {listed}"


def _object_name(entry: Path) -> tuple[str, str]:
    """Name of the object that an entry is, or the reason why it is none."""
    if entry.name.startswith("."):
        return "", "hidden files and folders"
    try:
        mode = entry.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "", "links that lead nowhere"
    if stat.S_ISDIR(mode):
        return entry.name, ""
    if not stat.S_ISREG(mode):
        return "", "pipes, devices and sockets"
    lower = entry.name.lower()
    if suffix := next((suffix for suffix in _ARCHIVES if lower.endswith(suffix)), ""):
        return entry.name[: -len(suffix)], ""
    suffix = entry.suffix.lower()
    if suffix in _OTHER_ARCHIVES:
        return "", f"{suffix} files, which are not read: unpack them, or pack them as .tar"
    if suffix in _GAUSSIANS:
        return "", f"{suffix} files, which are 3D Gaussians and no views: `gaussianverse import` reads .ply"
    if suffix in _MESHES:
        return (
            "",
            f"{suffix} files, which are meshes and no views: `gaussianverse render` draws .glb, .gltf, .obj and .stl",
        )
    return "", f"{suffix or 'suffixless'} files"
