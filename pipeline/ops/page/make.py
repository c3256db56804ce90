"""Makes the page of an output: reads its committed shards once, and then the objects that get a page of their own."""

from __future__ import annotations

import base64
import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from gaussianverse.atlas.dataset_format import SUCCESS
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.interchange.spz import to_spz
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.fitter.turntable import FOVY, eye_and_target
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.versions import version_of
from gaussianverse.pipeline.errors import FragmentError, PipelineError
from gaussianverse.pipeline.ops.page import objects, thumbnails
from gaussianverse.pipeline.ops.page.evaluated import evaluation_of, name_of
from gaussianverse.pipeline.ops.page.folder import Folder
from gaussianverse.pipeline.ops.page.objects import WORST_ARE_HIGHEST, Entry, Faults, Listing
from gaussianverse.pipeline.ops.page.pictures import pictures_of
from gaussianverse.pipeline.ops.page.profile import profile_of
from gaussianverse.pipeline.ops.page.rendering import rendered, script
from gaussianverse.pipeline.ops.page.summary import MOST_ROWS, Summary, shown
from gaussianverse.pipeline.ops.page.thumbnails import Sheets
from gaussianverse.pipeline.run.measure import Measurer

CHUNK = 1000
"""Objects in one script of the gallery."""
_DAMAGE = (NotFound, FragmentError, AtlasError)
_STATIC = (("templates", "page.css"), ("templates", "gallery.js"))
_VIEWER = (("templates", "object.js"), ("viewer", "viewer.js"), ("viewer", "LICENSES.txt"))


@dataclass(frozen=True)
class Chosen:
    """Objects that get a page of their own."""

    first: int = 8
    worst: int = 4
    worst_by: str = "atlas_heldout_psnr"
    """The metric, one of `NUMBERS`, by which `worst` are the worst."""
    uids: Sequence[str] = ()


@dataclass(frozen=True)
class Made:
    """A page."""

    path: Path
    faults: Faults


def make_page(
    storage: Storage,
    run: Run,
    shards: Iterable[int],
    dest: Path,
    measurer: Measurer,
    chosen: Chosen | None = None,
    evaluation: Path | None = None,
    seen: Callable[[Entry], None] = lambda entry: None,
) -> Made:
    """Write the page of committed shards into a folder.

    Args:
        storage: store of the run, which may still be going.
        run: the run of the version.
        shards: numbers of committed shards.
        dest: folder of the page; see `Folder`.
        measurer: reads the views of objects.
        chosen: objects that get a page of their own.
        evaluation: evaluation.json of this output; None looks where `evaluate` leaves it.
        seen: called with every object.

    Raises:
        UsageError: `dest` holds something else, or `evaluation` is none of this output.
        PipelineError: the manifest has no object of a name that was given.
        StoreError: the store failed.
    """
    chosen, version = chosen or Chosen(), version_of(storage, run)
    for uid in chosen.uids:
        version.find(storage, uid)
    listing, summary = Listing(storage, version), Summary()
    try:
        evaluated = evaluation_of(storage, run, evaluation)
    except PipelineError as error:
        if evaluation:
            raise
        evaluated = None
        listing.faults.add(str(error))
    folder = Folder(dest)
    gallery = _Gallery(folder, storage, listing.faults)
    first, named, worst = list[Entry](), list[Entry](), list[tuple[float, int, Entry]]()
    for shard in shards:
        for entry in listing.entries(shard):
            seen(entry)
            summary.add(entry)
            gallery.add(entry)
            if not entry.ok:
                continue
            if entry.uid in chosen.uids:
                named.append(entry)
            elif len(first) < chosen.first:
                first.append(entry)
            if (value := entry.value(chosen.worst_by)) is not None and chosen.worst:
                badness = value if chosen.worst_by in WORST_ARE_HIGHEST else -value
                _keep(worst, (badness, -summary.objects, entry), chosen.worst)
    gallery.finish()
    for uid in sorted(set(chosen.uids) - {entry.uid for entry in named}):
        listing.faults.add(f"{uid} has no page: it is not published in a committed shard")
    with_page = {entry.uid: entry for entry in [*named, *first, *(e for _, _, e in sorted(worst, reverse=True))]}
    there = [uid for uid, entry in with_page.items() if _object_page(folder, entry, measurer, listing)]
    for parts in (*_STATIC, *(_VIEWER if there else ())):
        folder.write(parts[-1], _resource(*parts))
    folder.write("pages.js", script("gallery.pages", there))
    page = rendered(
        "index.html",
        name=name_of(storage.url),
        run=run,
        profile=profile_of(run),
        version=version.number,
        n_objects=version.n_objects,
        finalized=storage.head(version.key(SUCCESS)) is not None,
        summary=summary,
        most=MOST_ROWS,
        histograms=summary.histograms(),
        medians=summary.medians(),
        titles=objects.NUMBERS,
        worst_are_highest=WORST_ARE_HIGHEST,
        years=listing.cost.years(storage),
        evaluated=evaluated,
        faults=listing.faults,
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

    def __init__(self, folder: Folder, storage: Storage, faults: Faults) -> None:
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
                self._faults.add(f"{entry.uid}: its Gaussians cannot be read: {error}")
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


def _object_page(folder: Folder, entry: Entry, measurer: Measurer, listing: Listing) -> bool:
    """Write the page of an object; False, and a fault, if its Gaussians cannot be read."""
    uid, version = entry.uid, listing.version
    fitted = version.bearing(str(entry.fit["config_digest"])) or version.run
    try:
        found = pictures_of(listing.storage, version.run_of(entry.shard), entry, measurer.of(fitted))
    except _DAMAGE as error:
        listing.faults.add(f"{uid} has no page: {error}")
        return False
    for text in found.faults:
        listing.faults.add(f"{uid}: {text}")
    for strip in found.strips:
        folder.write(f"objects/{uid}-{strip.name}.webp", strip.image)
    if found.sheet:
        folder.write(f"objects/{uid}-channels.webp", found.sheet)
    eye, target = eye_and_target(found.gaussians)
    spz = base64.b64encode(to_spz(found.gaussians)).decode()
    camera = {"position": eye.tolist(), "target": target.tolist(), "fovy": FOVY}
    folder.write(f"objects/{uid}.js", script("splat", {"spz": spz, "camera": camera}))
    numbers = [(title, shown(name, entry.value(name))) for name, title in objects.NUMBERS.items()]
    faults = [listing.faults.shown(text) for text in found.faults]
    page = rendered("object.html", entry=entry, numbers=numbers, found=found, faults=faults)
    folder.write(f"objects/{uid}.html", page)
    return True


def _resource(*parts: str) -> bytes:
    return resources.files("gaussianverse.pipeline.ops.page").joinpath(*parts).read_bytes()
