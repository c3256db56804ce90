"""The dataset card: README.md of a finished dataset, in the format of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaussianverse.atlas import dataset_format
from gaussianverse.pipeline.dataset.metadata import Totals
from gaussianverse.pipeline.dataset.run_file import Run

_TEMPLATE = """\
---
license: other
license_name: per-object
task_categories:
- text-to-3d
tags:
- 3d
- gaussian-splatting
- webdataset
configs:
- config_name: atlas
  data_files: atlas/*.tar
- config_name: splats
  data_files: splats/*.tar
{views_config}---

# Gaussian atlases of {samples} objects

3D Gaussians fitted to renders of each object (`splats/`), and the same Gaussians as an image of {size} x {size}
pixels and 16 channels (`atlas/`).

| | |
|---|---|
| objects in the manifest | {objects} |
| objects in this dataset | {samples} |
| shards | {shards} |
| Gaussians per object | {gaussians} |
| PSNR on white ({metrics_on}) | {psnr} |
| SSIM | {ssim} |
| smoothness of the atlas | {smoothness} |
| PSNR of the atlas against its fit | {atlas_psnr} |

## Licences

Each object keeps its own licence, in the column `license` of `metadata.parquet`.

{licences}

## Quarantined objects

{quarantined}

## Files

- `atlas/*.tar`: per object `<uid>.atlas.npy` (float32 [{size}, {size}, 16]), `<uid>.json`, `<uid>.txt` (caption).
  Channels: {channels}.
  The position of a Gaussian is its offset plus the sphere point of its pixel; pixels of opacity 0 are padding.
- `splats/*.tar`: per object `<uid>.splat.npz` (means, scales, quats wxyz, opacities, colors), `<uid>.json`,
  `<uid>.txt`.
{views}- `atlas_mean.npy`, `atlas_std.npy`: per pixel and channel, over the objects in this dataset.
  `channels.json`: range and quantiles per channel. `sphere_points.npy`: sphere point of each pixel,
  [{size}, {size}, 3].
- `metadata.parquet`: one row per object of the manifest; `atlas_offset` and `atlas_nbytes` locate its array.
- `index.json`: shards with sizes and sha256. `SHA256SUMS`: sha256 of every file, for `sha256sum -c SHA256SUMS`.

```python
import webdataset as wds
for sample in wds.WebDataset("atlas/atlas-000000.tar", shardshuffle=False).decode():
    atlas, caption = sample["atlas.npy"], sample["txt"]
```

No value is null in JSON files and tables: -1 is an unknown number, "" an unknown text.

## Configuration

Digest `{digest}`; `run.json` holds the whole configuration.
"""


_VIEWS_CONFIG = """\
- config_name: views
  data_files: views/*.tar
"""
_VIEWS = """\
- `views/*.tar`: for each object in `atlas/`, in the same order, {count} of the renders it was fitted to:
  `<uid>.view00.png` and so on (RGBA, {size} x {size}), `<uid>.cameras.npz` (viewmats: from the world of the
  Gaussians to the camera, OpenCV, [{count}, 4, 4]; Ks: intrinsics in pixels, [{count}, 3, 3]), `<uid>.json`,
  `<uid>.txt`.
"""


def card_of(run: Run, totals: Totals, index: dict[str, Any]) -> str:
    """The card, from the totals of metadata.parquet and index.json."""
    licences = {licence or "not stated": count for licence, count in totals.licences.items()}
    return _TEMPLATE.format(
        samples=totals.samples,
        objects=totals.objects,
        size=index["size"],
        shards=len(index["shards"]),
        gaussians=_spread(totals.values("n_gaussians"), ".0f"),
        metrics_on="held-out views" if totals.measured_on == {"heldout"} else "training views",
        psnr=_spread(totals.values("psnr"), ".2f", " dB"),
        ssim=_spread(totals.values("ssim"), ".4f"),
        smoothness=_spread(totals.values("smoothness"), ".3f"),
        atlas_psnr=_spread(totals.values("atlas_psnr"), ".1f", " dB"),
        licences=_counts(licences, "licence"),
        quarantined=_counts(totals.reasons, "reason") + f"\nDetails: `{dataset_format.QUARANTINE}`.",
        channels=", ".join(index["channels"]),
        digest=run.digest,
        views_config=_VIEWS_CONFIG if "views" in index else "",
        views=_VIEWS.format(count=index["views"], size=index["views_size"]) if "views" in index else "",
    )


def _spread(values: NDArray[np.float64], form: str, unit: str = "") -> str:
    # -1 = not measured, as for imported objects
    values = values[values != -1]
    if not len(values):
        return "not measured"
    return (
        f"median {float(np.median(values)):{form}}{unit}, {float(values.min()):{form}} to "
        f"{float(values.max()):{form}}"
    )


def _counts(counts: Mapping[str, int], title: str) -> str:
    if not counts:
        return "None."
    lines = [f"| {title} | objects |", "|---|---|"]
    lines += [
        f"| {word.replace('|', '/')} | {n} |" for word, n in sorted(counts.items(), key=lambda c: (-c[1], c[0]))
    ]
    return "\n".join(lines)
