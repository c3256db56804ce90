"""Layouts `transforms` (Blender, nerfstudio, GaussianCube's ShapeNet flavour) and `trellis`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gaussianverse.manifests.rendering.layouts.encode import json_text, npy, ply, png
from gaussianverse.manifests.rendering.layouts.layout import Facts, Layout, by_uid
from gaussianverse.manifests.rendering.layouts.points import Points
from gaussianverse.manifests.rendering.layouts.posed import PosedView, Subject, Views

_GL = "camera-to-world, OpenGL axes (x right, y up, z back), z-up world"
_COND = "trellis-cond"
"""Preset of the views that condition; TRELLIS keeps them in a folder of their own."""
_VOXELS = Points("voxels", 64)
_SCORE = "aesthetic_score"
COLUMNS = (
    "sha256", "file_identifier", _SCORE, "captions", "rendered", "cond_rendered", "voxelized",
    "num_voxels", "local_path",
)  # fmt: skip


def _write_frames(folder: Path, views: Views, head: Facts, *, depth: bool) -> None:
    """Write images `000.png`, .. and transforms.json, whose entries begin with `head`."""
    frames = []
    for k, view in enumerate(views):
        name = f"{k:03d}"
        (folder / f"{name}.png").write_bytes(png(view.image))
        frame: Facts = {"file_path": f"{name}.png", **_lens(view), "transform_matrix": view.opengl.tolist()}
        if depth and view.depth is not None:
            (folder / f"{name}_depth.npy").write_bytes(npy(view.depth))
            frame["depth_file_path"] = f"{name}_depth.npy"
        frames.append(frame)
    angles = {frame.get("camera_angle_x") for frame in frames}
    shared = {"camera_angle_x": angles.pop()} if len(angles) == 1 and None not in angles else {}
    (folder / "transforms.json").write_bytes(json_text({**head, **shared, "frames": frames}))


def _lens(view: PosedView) -> Facts:
    if view.centred:
        return {"camera_angle_x": view.fov[0]}
    (fx, _, cx), (_, fy, cy) = view.K[:2].tolist()
    return {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": view.width, "h": view.height}


def _write_transforms(folder: Path, subject: Subject, views: Views) -> Facts:
    _write_frames(folder, views, {}, depth=True)
    depth = any(view.depth is not None for view in views)
    return {
        "layout_cameras": _GL,
        "depth": "NNN_depth.npy, float32, along the optical axis, 0 where empty" if depth else "none",
        "background": "transparent, straight alpha",
    }


def _write_trellis(folder: Path, subject: Subject, views: Views) -> Facts:
    head = {
        "aabb": [[-0.5] * 3, [0.5] * 3],
        "scale": subject.facts.get("scale", 1.0),
        "offset": subject.facts.get("offset", [0.0, 0.0, 0.0]),
    }
    _write_frames(folder, views, head, depth=False)
    if subject.surface is not None and not _conditions(subject):
        (folder / "mesh.ply").write_bytes(ply(subject.surface.vertices, subject.surface.faces))
    return {
        "layout_cameras": _GL,
        "depth": "none",
        "background": "transparent, straight alpha",
        "sha256": subject.digest,
        "conditions": _conditions(subject),
        _SCORE: subject.extras.get(_SCORE, ""),
    }


def _conditions(subject: Subject) -> bool:
    return subject.rig.preset == _COND


def _trellis_place(subject: Subject) -> str:
    return f"{'renders_cond' if _conditions(subject) else 'renders'}/{subject.digest}"


def _lacking(subject: Subject) -> Sequence[str]:
    found = []
    if subject.surface is None and not _conditions(subject):
        found.append("no mesh.ply and voxels, which only a fresh render knows: gaussianverse render --layout trellis")
    if _SCORE not in subject.extras:
        found.append(
            f"no {_SCORE}, and TRELLIS leaves out objects below its min_{_SCORE}; give the manifest such a column"
        )
    return found


def _points_path(subject: Subject, name: str) -> str | None:
    return f"voxels/{subject.digest}.ply" if name == _VOXELS.name else None


def _metadata(root: Path, found: Sequence[Facts]) -> Mapping[str, bytes]:
    """Table of all objects; those without views of a kind say so."""
    objects: dict[str, list[Facts]] = {}
    for facts in found:
        objects.setdefault(facts["sha256"], []).append(facts)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for sha256, parts in sorted(objects.items()):
        n_voxels = _n_vertices(root / "voxels" / f"{sha256}.ply")
        captions: list[str] = next((part["captions"] for part in parts if part["captions"]), [])
        row: dict[str, Any] = {
            "sha256": sha256,
            "file_identifier": parts[0]["uid"],
            _SCORE: next((p[_SCORE] for p in parts if p[_SCORE] != ""), ""),
            "captions": json.dumps(captions) if captions else "",
            "rendered": any(not part["conditions"] for part in parts),
            "cond_rendered": any(part["conditions"] for part in parts),
            "voxelized": n_voxels > 0,
            "num_voxels": n_voxels,
            "local_path": "",
        }
        table.writerow([row[name] for name in COLUMNS])
    return {"metadata.csv": text.getvalue().encode()}


def _n_vertices(path: Path) -> int:
    """Number of points in a PLY that this package wrote; 0 if there is none."""
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        head = file.read(200).split(b"element vertex ")[1]
    return int(head.split(b"\n")[0])


TRANSFORMS = Layout(
    name="transforms",
    reader="a reader of transforms.json",
    place=by_uid,
    write=_write_transforms,
    found="*/rig.json",
    maps=True,
    format="transforms",
    centred=False,
)
TRELLIS = Layout(
    name="trellis",
    reader="TRELLIS",
    place=_trellis_place,
    write=_write_trellis,
    found="renders*/*/rig.json",
    index=_metadata,
    lacking=_lacking,
    points=(_VOXELS,),
    points_path=_points_path,
)
