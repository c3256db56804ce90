"""Finished datasets of random atlases, made with the pipeline's own fragments, pack and finalize."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gaussianverse.atlas.arrays import npy
from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.configuration import from_table
from gaussianverse.atlas.dataset_format import ATLAS, OFFSET, OK, OPACITY_COPIES, SPLATS, VIEWS
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.packing import unpack
from gaussianverse.atlas.plane import points_of
from gaussianverse.atlas.reader.views import CAMERAS, ReferenceViews, images_sha256
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.manifests import runform
from gaussianverse.manifests.schema import Row
from gaussianverse.pipeline.config import RunConfig
from gaussianverse.pipeline.dataset import layout, members, pack, records, run_file
from gaussianverse.pipeline.dataset.finalize import finalize
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.policy import seed_of

LICENSES = ("CC0-1.0", "CC-BY-4.0", "CC-BY-NC-4.0")


def array_of(index: int, size: int, dtype: str = "float32") -> np.ndarray[Any, Any]:
    """Atlas number `index`: different values in all cells but three of padding, which repeat their neighbours."""
    cells = np.random.default_rng(index).random((size * size, 16)).astype(dtype).astype(np.float32)
    points = points_of(AtlasConfig(size=size))
    # not the same three in all: their opacity would have no deviation
    padding = (index + np.array([0, 21, 42])) % len(cells)
    # the means decide: an offset is what is left of one, as `pack` has it
    means = (cells[:, OFFSET] + points).astype(np.float32)
    cells[padding], means[padding] = (values[(padding + 1) % len(cells)] for values in (cells, means))
    cells[:, OFFSET] = means - points
    cells[padding, OPACITY_COPIES[0]] = 0
    cells[:, OPACITY_COPIES] = cells[:, OPACITY_COPIES[:1]]
    return cells.reshape(size, size, 16).astype(dtype)


def publish_dataset(
    root: Path, uids: Sequence[str], *, shard_size: int, size: int = 8, dtype: str = "float32",
    quarantined: frozenset[str] = frozenset(), captions: Mapping[str, str] | None = None,
    fields: Mapping[str, Mapping[str, Any]] | None = None, views: Sequence[ReferenceViews] = (),
) -> Path:  # fmt: skip
    """Publish objects with psnr 20, 21, .. and three licences in turn; object i has the atlas `array_of(i)`.

    `fields` are those of the manifest's rows by uid, in place of what they have otherwise. Object i has the reference
    views `views[i % len(views)]`.
    """
    storage = LocalStorage(root)
    captions = captions or {uid: f"caption of {uid}: é" for uid in uids}
    rows = [
        Row(**{"uid": uid, "views": f"views/{uid}", "license": LICENSES[i % 3], "caption": captions[uid],
               **(fields or {}).get(uid, {})})
        for i, uid in enumerate(uids)
    ]  # fmt: skip
    shown = {"views": len(views[0]), "views_size": views[0].images.shape[1]} if views else {}
    table = {"run": {"shard_size": shard_size, **shown}, "atlas": {"size": size, "dtype": dtype}}
    config = from_table(RunConfig, table)
    manifest = runform.encode(rows, shard_size=shard_size)
    made = run_file.identity_of(manifest, config, members.representation(config.atlas))
    run = run_file.establish(storage, manifest, made)
    for shard in range(run.n_shards):
        for row in (dict(r, shard=shard) for r in shard_rows(storage, run, shard)):
            watch = records.Stopwatch(1)
            if row["uid"] in quarantined:
                error = {"reason": "bad_input", "error_class": "BadInput", "error_message": "it is bad"}
                for stage in layout.STAGES:
                    records.publish_quarantine(storage, stage, row, run, error, watch)
                continue
            array = array_of(int(row["index"]), size, dtype)
            splat = unpack(array, config.atlas)
            if views:
                _publish_views(storage, run, row, views[int(row["index"]) % len(views)], watch)
            facts = records.facts_of(SPLATS, row, run, status=OK, **_facts_of_fit(splat, row, run))
            records.publish_sample(storage, SPLATS, facts, splat.to_bytes(), watch, {})
            counts = {"n_gaussians": len(splat), "n_padded": size * size - len(splat), "n_dropped": 0}
            facts = records.facts_of(ATLAS, row, run, status=OK, **counts, size=size, dtype=dtype)
            records.publish_sample(storage, ATLAS, facts, npy(array), watch, {})
        for family in (*layout.STAGES, VIEWS) if views else layout.STAGES:
            pack.pack(storage, run, family, shard)
    finalize(storage, run)
    return root


def _publish_views(
    storage: LocalStorage, run: Run, row: Mapping[str, Any], views: ReferenceViews, watch: records.Stopwatch
) -> None:
    files = views.to_members()
    cameras, size = files.pop(CAMERAS), views.images.shape[1]
    found = {"n_reference_views": len(views), "reference_size": size, "images_sha256": images_sha256(files)}
    facts = records.facts_of(VIEWS, row, run, status=OK, **found)
    records.publish_sample(storage, VIEWS, facts, cameras, watch, {}, images=files)


def _facts_of_fit(splat: Gaussians, row: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """The facts that `verify` compares with settings and arrays, and a PSNR."""
    return {
        "n_gaussians": len(splat),
        "psnr": 20.0 + int(row["index"]),
        "steps": run.fit.steps,
        "seed": seed_of(run.settings.seed, str(row["uid"]), 0),
        **splat.bounds(),
    }
