"""The dataset card: README.md of the finished dataset, in the form that the Hugging Face hub reads."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

from pipeline import layout
from pipeline.identity import Run
from pipeline.schemas import OK, Facts

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
---

# Gaussian atlases of {samples} objects

Each object is a set of 3D Gaussians fitted to its renders (`splats/`) and the same Gaussians as an image of
{size} x {size} pixels and 16 channels (`atlas/`).

| | |
|---|---|
| objects in the manifest | {objects} |
| of which here | {samples} |
| shards | {shards} |
| Gaussians per object | {gaussians} |
| PSNR on white ({metrics_on}) | {psnr} |
| SSIM | {ssim} |
| smoothness | {smoothness} |
| atlas rendered against its fit | {atlas_psnr} |

## Licences

The objects keep their own licences; `license` in `metadata.parquet` names each.

{licences}

## Quarantined

{quarantined}

## Files

- `atlas/*.tar`: per object `<uid>.atlas.npy` (float32 [{size}, {size}, 16]), `<uid>.json`, `<uid>.txt` (caption).
  Channels: {channels}. A pixel's position is its offset plus its point of the sphere; opacity 0 is padding.
- `splats/*.tar`: per object `<uid>.splat.npz` (means, scales, quats wxyz, opacities, colors), `<uid>.json`,
  `<uid>.txt`.
- `atlas_mean.npy`, `atlas_std.npy`: per pixel and channel, over all objects here.
- `metadata.parquet`: a row per object of the manifest; `atlas_offset, atlas_nbytes` are its array's place in the tar.
- `index.json`: shards with sizes and sha256. `SHA256SUMS`: of every file; `sha256sum -c SHA256SUMS` checks them.

```python
import webdataset as wds
for sample in wds.WebDataset("atlas/atlas-000000.tar", shardshuffle=False).decode():
    atlas, caption = sample["atlas.npy"], sample["txt"]
```

In JSON and tables nothing is null: -1 stands for a number that was not measured, "" for text that is not known.

## Configuration

Digest `{digest}`; `run.json` holds all of it.
"""


def card_of(run: Run, rows: list[Facts], index: dict[str, Any]) -> str:
    """The card, from the rows of metadata.parquet and index.json."""
    good = [r for r in rows if r["status"] == OK]
    return _TEMPLATE.format(
        samples=len(good),
        objects=len(rows),
        size=index["size"],
        shards=len(index["shards"]),
        gaussians=_spread(good, "n_gaussians", ".0f"),
        metrics_on="held-out views" if all(r["metrics_on"] == "heldout" for r in good) else "training views",
        psnr=_spread(good, "psnr", ".2f", " dB"),
        ssim=_spread(good, "ssim", ".4f"),
        smoothness=_spread(good, "smoothness", ".3f"),
        atlas_psnr=_spread(good, "atlas_psnr", ".1f", " dB"),
        licences=_counts((str(r["license"]) or "not stated" for r in good), "licence"),
        quarantined=_counts((str(r["reason"]) for r in rows if r["status"] != OK), "reason")
        + f"\nDetails: `{layout.QUARANTINE}`.",
        channels=", ".join(index["channels"]),
        digest=run.digest,
    )


def _spread(rows: list[Facts], name: str, form: str, unit: str = "") -> str:
    values = [float(r[name]) for r in rows]
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"median {middle:{form}}{unit}, {low:{form}} to {high:{form}}"


def _counts(words: Any, title: str) -> str:
    counts = Counter(words)
    if not counts:
        return "None."
    lines = [f"| {title} | objects |", "|---|---|"]
    lines += [
        f"| {word.replace('|', '/')} | {n} |"
        for word, n in sorted(counts.items(), key=lambda c: (-c[1], c[0]))
    ]
    return "\n".join(lines)
