"""Pictures of one object: its views, its fit, its unpacked atlas and the errors of both, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gaussianverse import atlas
from gaussianverse.atlas.dataset_format import ATLAS
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.os_errors import describe
from gaussianverse.atlas.picture import color_coded, sheet
from gaussianverse.atlas.store.errors import NotFound, StoreError
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.fitter.comparison import drawn
from gaussianverse.fitter.errors import FitError
from gaussianverse.fitter.turntable import turntable
from gaussianverse.fitter.views import Views
from gaussianverse.manifests.schema import SPLATS, SPLATS_BGR
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.members import atlas_array
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.shards import read_main
from gaussianverse.pipeline.errors import FragmentError, PipelineError
from gaussianverse.pipeline.ops.page.objects import Entry
from gaussianverse.pipeline.ops.page.thumbnails import webp
from gaussianverse.pipeline.run.measure import Measurer, chosen

VIEWS = 4
"""Views that a page shows."""
SIDE = 384
"""Pixels of a render where there are no views."""
ERROR_RANGE = 0.25
"""Mean difference of the channels, in [0, 1], that the error map shows as brightest."""


@dataclass(frozen=True)
class Strip:
    """Views side by side in one picture."""

    name: str
    title: str
    image: bytes


@dataclass(frozen=True)
class Pictures:
    """All of one object."""

    gaussians: Gaussians
    strips: list[Strip]
    sheet: bytes
    """Picture of the atlas, b"" if it is damaged."""
    faults: list[str]


def pictures_of(storage: Storage, run: Run, entry: Entry, measurer: Measurer) -> Pictures:
    """Draw a published object; what cannot be read is among the faults.

    Raises:
        NotFound, FragmentError, AtlasError: its Gaussians cannot be read.
    """
    gaussians, faults = entry.gaussians(storage), list[str]()
    fits, picture = {"fit": gaussians}, b""
    try:
        array = atlas_array(read_main(storage, ATLAS, entry.shard, entry.made), run.atlas)
        fits["atlas"] = atlas.unpack(array, run.atlas)
        picture = webp(np.asarray(Image.open(BytesIO(sheet(array, run.atlas)))))
    except (AtlasError, NotFound, FragmentError) as error:
        faults.append(f"The atlas is not here: {error}")
    try:
        prepared = measurer.prepared(_given(storage, run, entry), str(entry.fit.get("input_sha256", "")))
        views: Views | None = chosen(prepared.measured, VIEWS)
        fits = {name: prepared.recall(g) for name, g in fits.items()}
        which = "held-out" if prepared.metrics_on == "heldout" else "training"
    except (FitError, NotFound, StoreError, PipelineError) as error:
        views = None
        faults.append(f"Reference views are not here: {error}")
    except OSError as error:
        views = None
        faults.append(f"Reference views are not here: {describe(error)}")
    if views is None:
        renders = drawn(turntable(gaussians, VIEWS, SIDE), list(fits.values()))[1:]
        strips = [_strip(name, _TITLES[name], images) for name, images in zip(fits, renders, strict=True)]
    else:
        references, *renders = drawn(views, list(fits.values()))
        strips = [_strip("reference", f"Reference: {which} views {', '.join(views.names)}", references)]
        for name, images in zip(fits, renders, strict=True):
            error_map = np.abs(images.astype(np.int16) - references).mean(axis=-1) / 255
            strips.append(_strip(name, f"{_TITLES[name]}: {_psnrs(images, references)}", images))
            strips.append(
                _strip(
                    f"{name}-error",
                    f"Error of the {name}, mean of the channels from 0 (dark) to {ERROR_RANGE} (bright)",
                    (color_coded(np.minimum(error_map / ERROR_RANGE, 1.0)) * 255).round().astype(np.uint8),
                )
            )
    return Pictures(gaussians, strips, picture, faults)


_TITLES = {"fit": "Render of the fit", "atlas": "Render of the unpacked atlas"}


def _given(storage: Storage, run: Run, entry: Entry) -> dict[str, Any]:
    """The object's row of the manifest."""
    found = next((row for row in shard_rows(storage, run, entry.shard) if row["uid"] == entry.uid), None)
    if found is None:
        raise PipelineError("the manifest has no such object")
    if found["format"] in (SPLATS, SPLATS_BGR):
        raise PipelineError("the object was imported as Gaussians, without views")
    return found


def _psnrs(images: NDArray[np.uint8], references: NDArray[np.uint8]) -> str:
    errors = np.square((images.astype(np.float64) - references) / 255).mean(axis=(1, 2, 3))
    texts = [f"{-10 * np.log10(error):.1f}" if error > 0 else "100" for error in errors]
    return f"{', '.join(texts)} dB"


def _strip(name: str, title: str, images: NDArray[np.uint8]) -> Strip:
    return Strip(name, title, webp(np.concatenate(list(images), axis=1)))
