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
    """A row for each sub-folder or archive of `root`, sorted by name; files of other kinds are ignored.

    Args:
        root: the folder of objects.
        manifest_folder: where the manifest will lie; `views` are relative to it.
        captions: by name of the sub-folder or archive, without extension.
        caption_source: of all captions.
        category: of all rows.
        license: of all rows.

    Raises:
        ManifestError: `root` holds no objects, or their names can't be uids, or captions name others.
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
        faults.append(f"{root}: no objects; expected a folder or .tar of views for each")
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
