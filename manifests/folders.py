"""Rows from a folder that holds one folder or archive of views per object."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.schema import Row, faults_of

_ARCHIVES = (".tar.gz", ".tgz", ".tar")


def build(
    root: Path,
    manifest_folder: Path,
    *,
    captions: Mapping[str, str] | None = None,
    caption_source: str = "",
    category: str = "",
    license: str = "",
) -> list[Row]:
    """Rows for the sub-folders and archives of `root`, sorted by name; other files are ignored.

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
        entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise ManifestError(f"{root}: cannot be read: {error.strerror}") from error
    known = captions or {}
    rows, faults = [], []
    for entry in entries:
        uid = _object_name(entry)
        if uid is None:
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
        faults.append(f"{root}: no objects; expected one folder or .tar of views per object")
    names = Counter(row.uid for row in rows)
    faults += [f"{root}: two objects are called {uid!r}; rename one" for uid in names if names[uid] > 1]
    faults += [f"caption of {uid!r}, which is not in {root}" for uid in sorted(set(known) - set(names))]
    if faults:
        raise ManifestError(faults)
    return rows


def _object_name(entry: Path) -> str | None:
    if entry.is_dir():
        return entry.name
    suffix = next((suffix for suffix in _ARCHIVES if entry.name.endswith(suffix)), None)
    return entry.name.removesuffix(suffix) if suffix and entry.is_file() else None
