"""Makes the page of an output: reads its committed shards once, and then the objects that get a page of their own."""

from __future__ import annotations

import base64
import gzip
import heapq
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from gaussianverse.atlas.dataset_format import SUCCESS
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.interchange.splat import to_splat
from gaussianverse.atlas.store import is_remote
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.fitter.turntable import FOVY, eye_and_target
from gaussianverse.pipeline.dataset.manifest_rows import find_row
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.errors import FragmentError, UsageError
from gaussianverse.pipeline.ops.evaluation.tables import tables_of
from gaussianverse.pipeline.ops.page import objects, thumbnails
from gaussianverse.pipeline.ops.page.folder import Folder
from gaussianverse.pipeline.ops.page.objects import Entry, Listing
from gaussianverse.pipeline.ops.page.pictures import pictures_of
from gaussianverse.pipeline.ops.page.rendering import rendered, script
from gaussianverse.pipeline.ops.page.summary import MOST_ROWS, Summary, shown
from gaussianverse.pipeline.ops.page.thumbnails import Sheets
from gaussianverse.pipeline.run.measure import Measurer

CHUNK = 1000
"""Objects in one script of the gallery."""
WORST_BY = "atlas_heldout_psnr"
_DAMAGE = (NotFound, FragmentError, AtlasError)
_STATIC = (("templates", "page.css"), ("templates", "gallery.js"))
_VIEWER = (("templates", "object.js"), ("viewer", "viewer.js"), ("viewer", "LICENSES.txt"))
MOST_FAULTS = 50


@dataclass(frozen=True)
class Chosen:
    """Objects that get a page of their own."""

    first: int = 8
    worst: int = 4
    """Those of the lowest PSNR of the atlas."""
    uids: Sequence[str] = ()


@dataclass(frozen=True)
class Made:
    """A page."""

    path: Path
    faults: list[str]
    """Sentences about what is not on it."""


def make_page(
    storage: Storage,
    run: Run,
    shards: Iterable[int],
    dest: Path,
    measurer: Measurer,
    chosen: Chosen | None = None,
    evaluation: Path | None = None,
) -> Made:
    """Write the page of committed shards into a folder.

    Args:
        storage: store of the run, which may still be going.
        run: the run.
        shards: numbers of committed shards.
        dest: folder of the page; see `Folder`.
        measurer: reads the views of objects.
        chosen: objects that get a page of their own.
        evaluation: evaluation.json of this output, if there is one.

    Raises:
        UsageError: `dest` holds something else, or `evaluation` is no evaluation.json.
        PipelineError: the manifest has no object of a name that was given.
        StoreError: the store failed.
    """
    chosen = chosen or Chosen()
    for uid in chosen.uids:
        find_row(storage, run, uid)
    tables = _tables(evaluation)
    listing, summary, folder = Listing(storage), Summary(), Folder(dest)
    gallery = _Gallery(folder, storage, listing.faults)
    first, named, worst = list[Entry](), list[Entry](), list[tuple[float, int, Entry]]()
    for shard in shards:
        for entry in listing.entries(shard):
            summary.add(entry)
            gallery.add(entry)
            if not entry.ok:
                continue
            if entry.uid in chosen.uids:
                named.append(entry)
            elif len(first) < chosen.first:
                first.append(entry)
            if (value := entry.value(WORST_BY)) is not None and chosen.worst:
                _keep(worst, (-value, -summary.objects, entry), chosen.worst)
    gallery.finish()
    missing = sorted(set(chosen.uids) - {entry.uid for entry in named})
    listing.faults += [f"{uid} has no page: it is not published in a committed shard" for uid in missing]
    with_page = {entry.uid: entry for entry in [*named, *first, *(e for _, _, e in sorted(worst, reverse=True))]}
    there = [uid for uid, entry in with_page.items() if _object_page(folder, storage, run, entry, measurer, listing)]
    for parts in (*_STATIC, *(_VIEWER if there else ())):
        folder.write(parts[-1], _resource(*parts))
    folder.write("pages.js", script("gallery.pages", there))
    page = rendered(
        "index.html",
        # a page that is published does not tell the machine's folders
        name=storage.url if is_remote(storage.url) else Path(storage.url).name,
        run=run,
        finalized=storage.head(SUCCESS) is not None,
        summary=summary,
        most=MOST_ROWS,
        histograms=summary.histograms(),
        medians=summary.medians(),
        titles=objects.NUMBERS,
        years=listing.cost.years(storage),
        tables=tables,
        faults=listing.faults[:MOST_FAULTS],
        more_faults=max(0, len(listing.faults) - MOST_FAULTS),
        scripts=gallery.scripts,
    )
    return Made(folder.finish(page), listing.faults)


def _keep(worst: list[tuple[float, int, Entry]], one: tuple[float, int, Entry], most: int) -> None:
    """Keep the `most` largest; the second member of each is its own, so that entries are never compared."""
    if len(worst) < most:
        heapq.heappush(worst, one)
    else:
        heapq.heappushpop(worst, one)


class _Gallery:
    """Writes rows and thumbnails of the gallery as they come."""

    def __init__(self, folder: Folder, storage: Storage, faults: list[str]) -> None:
        self._folder, self._storage, self._faults = folder, storage, faults
        self._sheets, self._rows = Sheets(folder.write), list[list[Any]]()
        self.scripts = list[str]()
        columns = [{"name": name, "title": title, "text": True} for name, title in objects.TEXTS.items()]
        columns += [{"name": name, "title": title, "text": False} for name, title in objects.NUMBERS.items()]
        layout = {"side": thumbnails.SIDE, "columns": thumbnails.COLUMNS, "rows": thumbnails.ROWS}
        self._write("columns.js", script("gallery.columns", {"columns": columns, "sheet": layout}))

    def add(self, entry: Entry) -> None:
        place = -1
        if entry.ok:
            try:
                place = self._sheets.add(entry.gaussians(self._storage))
            except _DAMAGE as error:
                self._faults.append(f"{entry.uid}: its Gaussians cannot be read: {error}")
        values = [entry.value(name) for name in (*objects.TEXTS, *objects.NUMBERS)]
        rounded = [float(f"{value:.6g}") if isinstance(value, float) else value for value in values]
        self._rows.append([*rounded, place])
        if len(self._rows) == CHUNK:
            self._flush()

    def finish(self) -> None:
        self._flush()
        self._sheets.finish()

    def _flush(self) -> None:
        if self._rows:
            self._write(f"objects-{len(self.scripts):04d}.js", script("gallery.add", self._rows))
            self._rows.clear()

    def _write(self, name: str, data: bytes) -> None:
        self._folder.write(name, data)
        self.scripts.append(name)


def _object_page(
    folder: Folder, storage: Storage, run: Run, entry: Entry, measurer: Measurer, listing: Listing
) -> bool:
    """Write the page of an object; False, and a fault, if its Gaussians cannot be read."""
    uid = entry.uid
    try:
        found = pictures_of(storage, run, entry, measurer)
    except _DAMAGE as error:
        listing.faults.append(f"{uid} has no page: {error}")
        return False
    listing.faults += [f"{uid}: {text}" for text in found.faults]
    for strip in found.strips:
        folder.write(f"objects/{uid}-{strip.name}.webp", strip.image)
    if found.sheet:
        folder.write(f"objects/{uid}-channels.webp", found.sheet)
    eye, target = eye_and_target(found.gaussians)
    splat = base64.b64encode(gzip.compress(to_splat(found.gaussians), 9, mtime=0)).decode()
    camera = {"position": eye.tolist(), "target": target.tolist(), "fovy": FOVY}
    folder.write(f"objects/{uid}.js", script("splat", {"gzip": splat, "camera": camera}))
    numbers = [(title, shown(name, entry.value(name))) for name, title in objects.NUMBERS.items()]
    page = rendered("object.html", entry=entry, numbers=numbers, found=found)
    folder.write(f"objects/{uid}.html", page)
    return True


def _tables(evaluation: Path | None) -> list[Any]:
    """The tables of an evaluation.json."""
    if evaluation is None:
        return []
    try:
        return list(tables_of(json.loads(evaluation.read_bytes())))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UsageError(f"{evaluation}: not an evaluation.json of `evaluate`: {error}") from error


def _resource(*parts: str) -> bytes:
    return resources.files("gaussianverse.pipeline.ops.page").joinpath(*parts).read_bytes()
