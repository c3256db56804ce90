"""views-to: writes views that exist as other projects' loaders read them.

    gaussianverse views-to lgm VIEWS DEST

VIEWS is a folder or archive of one object's views, or a manifest (.jsonl, .parquet) of many. DEST is the root that
the loader is pointed at. The same command goes on where it was stopped, and adds objects.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaussianverse.atlas.store.errors import NotFound, StoreError
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.escape import one_line
from gaussianverse.fitter.errors import FitError
from gaussianverse.fitter.views import FORMATS, Views, load_views
from gaussianverse.manifests import authored
from gaussianverse.manifests.arguments import add_rules, rules_of
from gaussianverse.manifests.errors import LayoutError, ManifestError, RenderError
from gaussianverse.manifests.jsonl import resolve_views
from gaussianverse.manifests.rendering import rig
from gaussianverse.manifests.rendering.layouts.names import LAYOUTS, layout_of
from gaussianverse.manifests.rendering.layouts.points import add_points, points_of
from gaussianverse.manifests.rendering.layouts.posed import PosedView, Subject
from gaussianverse.manifests.rendering.layouts.root import Root, opened
from gaussianverse.manifests.schema import SPLITS, Row, completed, faults_of
from gaussianverse.pipeline.arguments import add_json
from gaussianverse.pipeline.errors import PipelineError
from gaussianverse.pipeline.run import inputs

_MANIFESTS = (".jsonl", ".parquet")
_UNKNOWN = "unknown"
_KNOWN = ("units", "shading", "mesh_sha256", "bbox", "scale", "offset")
"""Facts of a render that hold in every layout."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse views-to`."""
    parser.add_argument("layout", metavar="LAYOUT", help=", ".join(LAYOUTS))
    parser.add_argument("views", metavar="VIEWS", help="views of one object (folder, .tar, s3://), or a manifest")
    parser.add_argument("dest", type=Path, metavar="DEST", help="root of the data; new, or of the same layout")
    parser.add_argument("--format", choices=FORMATS, default="auto", help="of VIEWS, unless it is a manifest")
    parser.add_argument("--size", type=int, metavar="N", help="shrink views to N pixels")
    add_points(parser)
    add_rules(parser.add_argument_group("a manifest"))
    add_json(parser)
    one = parser.add_argument_group("one object")
    one.add_argument("--uid", default="", help="default: the name of VIEWS")
    one.add_argument("--category", default="")
    one.add_argument("--caption", default="")
    one.add_argument("--split", choices=SPLITS, default="")


def run(args: argparse.Namespace) -> int:
    """Write the objects; prints one line for each that cannot be written, and returns the exit code."""
    layout, points = layout_of(args.layout), points_of(args)
    if args.size is not None and args.size < 1:
        raise LayoutError(f"size {args.size}: expected a positive number of pixels")
    rows = _rows(args)
    written = kept = failed = 0
    said = set[str]()
    with opened(layout, args.dest, points) as root:
        for row in rows:
            try:
                warnings = _write(root, row, args.size)
            except (FitError, LayoutError, PipelineError, StoreError, NotFound) as error:
                print(f"error: {row.uid}: {one_line(error)}", file=sys.stderr)
                failed += 1
                continue
            written, kept = written + (warnings is not None), kept + (warnings is None)
            for text in [text for text in warnings or () if text not in said]:
                said.add(text)
                print(f"warning: {row.uid}: {one_line(text)}", file=sys.stderr)
    if args.json:
        counts = {"objects": len(rows), "written": written, "there": kept, "failed": failed}
        print(json.dumps({"dest": str(args.dest), **counts}))
        return 1 if failed else 0
    there = f", {kept} were there" if kept else ""
    print(f"{written} of {len(rows)} objects written to {args.dest}{there}")
    return 1 if failed else 0


def _rows(args: argparse.Namespace) -> list[Row]:
    """Rows of a manifest, or the row of one object.

    Raises:
        ManifestError: the manifest cannot be read, or the object's name or texts are refused.
    """
    if args.views.endswith(_MANIFESTS):
        path = Path(args.views)
        return resolve_views(authored.read(path, strict=args.strict, rules=rules_of(args)).rows, path.parent)
    name = args.views.rstrip("/").rpartition("/")[2].removesuffix(".gz").removesuffix(".tar")
    uid = args.uid or name or Path(args.views).resolve().name
    row = completed(Row(uid, args.views, args.format, args.category, caption=args.caption, split=args.split))
    if faults := faults_of(row):
        raise ManifestError(f"{fault}; give another --uid" if fault.startswith("uid") else fault for fault in faults)
    return [row]


def _write(root: Root, row: Row, size: int | None) -> list[str] | None:
    """Read an object's views and write them; returns warnings, or None if the object is there already."""
    if row.fault or row.format not in FORMATS:
        raise LayoutError(row.fault or f"its format is {row.format}, and only renders are written")
    with inputs.local(row.views, StoreOptions()) as path:
        try:
            views = load_views(path, row.format, size=size, with_depth=True, with_normals=True)
        except ImportError as error:  # OpenEXR, which says what to install
            raise LayoutError(str(error)) from error
        subject = _subject(row, path, views)
    if root.has(subject):
        return None
    return root.add(subject, _posed(views, subject.rig.cameras))


def _posed(views: Views, cameras: tuple[rig.Camera, ...]) -> list[PosedView]:
    """The views as layouts take them: maps are 0 where empty, and None where a view has none."""
    given: dict[str, list[NDArray[np.float32] | None]] = {}
    for kind, maps in (("depth", views.depths), ("normal", views.normals)):
        given[kind] = [None] * len(views)
        if maps is not None:
            given[kind] = [None if np.isnan(one).all() else np.nan_to_num(one, copy=False) for one in maps]
    return [
        PosedView(name, image, camera, depth, normal)
        for name, image, camera, depth, normal in zip(
            views.names, views.images, cameras, given["depth"], given["normal"], strict=True
        )
    ]


def _subject(row: Row, path: Path, views: Views) -> Subject:
    """What is known of an object, by its row and by the `rig.json` beside its views, if there is one."""
    cameras = tuple(rig.Camera(c2w, K, views.width, views.height) for c2w, K in zip(views.c2w, views.Ks, strict=True))
    chosen, facts = rig.Rig(_UNKNOWN, 0, 0, cameras), dict[str, Any]()
    if (path / rig.FILE).is_file():
        try:
            drawn, known = rig.read(path)
        except RenderError as error:
            raise LayoutError(str(error)) from error
        facts = {key: known[key] for key in _KNOWN if key in known}
        # numbers of views mean nothing where some are lacking
        whole = len(drawn.cameras) == len(cameras)
        chosen = replace(drawn, cameras=cameras, inputs=drawn.inputs if whole else ())
    return Subject(
        row.uid,
        str(facts.get("mesh_sha256", views.input_sha256)),
        chosen,
        row.category,
        row.captions,
        row.split,
        row.license,
        row.source_id,
        row.extras,
        {**facts, "views_sha256": views.input_sha256},
    )
