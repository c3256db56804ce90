"""The dataset card: README.md of a finished dataset, in the format of the Hugging Face hub.

Its bytes depend on the dataset alone. Texts of the manifest stand in cells of tables only, escaped for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import ATLAS, SPLATS, VIEWS
from gaussianverse.escape import markdown
from gaussianverse.pipeline.dataset.makers import Maker, begun_with, other_makers, ranges
from gaussianverse.pipeline.dataset.metadata import Credits, Totals
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.spread import Spread
from gaussianverse.pipeline.dataset.versions import Version

_TEMPLATE = """\
---
{licence}
task_categories:
- text-to-3d
size_categories:
- {size_category}
tags:
- 3d
- gaussian-splatting
- webdataset
configs:
{configs}
---

# Gaussian atlases of {samples} objects

{what}
{part}
| | |
|---|---|
| objects in the manifest | {objects} |
| objects in this dataset | {samples} |
| shards | {shards} |
| Gaussians per object | {gaussians} |
| PSNR of the atlas on white ({metrics_on}) | {atlas_heldout_psnr} |
| PSNR of the fit on white ({metrics_on}) | {psnr} |
| SSIM of the fit | {ssim} |
| smoothness of the atlas | {smoothness} |
| PSNR of the atlas against its fit | {atlas_psnr} |

## Licences

Each object keeps its own licence, in the column `license` of `metadata.parquet`.

{licences}

## Credits

{credits}

## Quarantined objects

{quarantined}

{changes}## Files

- `atlas/*.tar`: per object `<uid>.atlas.npy` (float32 [{size}, {size}, 16]), `<uid>.json`, `<uid>.txt` (caption).
  Channels: {channels}.
  The position of a Gaussian is its offset plus the sphere point of its pixel; pixels of opacity 0 are padding.
{splats}{views}- `atlas_mean.npy`, `atlas_std.npy`: per pixel and channel, over the objects in this dataset.
  `channels.json`: range and quantiles per channel. `sphere_points.npy`: sphere point of each pixel,
  [{size}, {size}, 3].
- `metadata.parquet`: one row per object of the manifest; `atlas_offset` and `atlas_nbytes` locate its array.
- `index.json`: shards with sizes and sha256. `SHA256SUMS`: sha256 of every file, for `sha256sum -c {sums}`.

```python
{example}
```

No value is null in JSON files and tables: -1 is an unknown number, "" an unknown text.

## Configuration

Digest `{digest}`; `{run}` holds the whole configuration{others}.

## Made with

{makers}
"""

_VERSIONS = """\
## Versions

This is version {number}; the files about it, such as `metadata.parquet`, lie in `{folder}`, and the shards of all
versions beside one another. Published bytes never change: rows that were removed, corrected or made again stay in
their tars, where a plain reader of tars still finds them. `{folder}metadata.parquet` has the rows that count, and
`gaussianverse compact` writes a dataset of these alone.

{table}

"""

MAX_LICENCES = 200
"""Licences that the card counts one by one."""
MAX_TEXT = 500
"""Characters of a foreign text that the card shows."""

_Text = TypeVar("_Text", str, tuple[str, str])

_SPLATS = """\
- `splats/*.tar`: per object `<uid>.splat.npz` (means, scales, quats wxyz, opacities, colors), `<uid>.json`,
  `<uid>.txt`.
"""
_VIEWS = """\
- `views/*.tar`: for each object in `atlas/`, in the same order, {count} of the renders it was fitted to:
  `<uid>.view00.png` and so on (RGBA, {size} x {size}), `<uid>.cameras.npz` (viewmats: from the world of the
  Gaussians to the camera, OpenCV, [{count}, 4, 4]; Ks: intrinsics in pixels, [{count}, 3, 3]), `<uid>.json`,
  `<uid>.txt`.
"""


_WHAT = """\
3D Gaussians fitted to renders of each object (`splats/`), and the same Gaussians as an image of {size} x {size}
pixels and 16 channels (`atlas/`)."""
_WHAT_ALONE = """\
3D Gaussians fitted to renders of each object, as an image of {size} x {size} pixels and 16 channels (`atlas/`)."""
_PART = """
This is a part of a dataset of {of} objects, whose `index.json` has the sha256
`{index}`.
Mean, deviation and quantiles are those of the objects in this part.

{chosen}
"""
_EXAMPLE = """\
import webdataset as wds
for sample in wds.WebDataset("atlas/atlas-000000.tar", shardshuffle=False).decode():
    atlas, caption = sample["atlas.npy"], sample["txt"]"""
_HUB_EXAMPLE = """\
from datasets import load_dataset  # NAME is that of the repository, such as user/atlases
table = load_dataset("NAME", "metadata", split="train")
tars = "hf://datasets/NAME/atlas/*.tar"
samples = load_dataset("webdataset", data_files=tars, split="train", streaming=True)"""
_HUB_LICENCES = {
    name: name.lower() for name in ("CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "MIT")
}
"""The hub's names of licences that all objects may have."""
_SIZES = (("n<1K", 10**3), ("1K<n<10K", 10**4), ("10K<n<100K", 10**5), ("100K<n<1M", 10**6), ("1M<n<10M", 10**7))


def card_of(version: Version, totals: Totals, index: dict[str, Any], commits: Mapping[tuple[str, int], Any]) -> str:
    """The card.

    Args:
        version: the version.
        totals: totals of metadata.parquet.
        index: content of index.json.
        commits: commit records by (family, shard).
    """
    run = version.run
    return _TEMPLATE.format(
        licence=_hub_licence(totals),
        size_category=next((name for name, end in _SIZES if totals.samples < end), "10M<n<100M"),
        configs=_configs(run),
        what=(_WHAT if SPLATS in run.held else _WHAT_ALONE).format(size=index["size"]),
        part=_part(run.part),
        samples=totals.samples,
        objects=totals.objects,
        size=index["size"],
        shards=len(index["shards"]),
        gaussians=_spread(totals.spread("n_gaussians"), ".0f"),
        metrics_on="held-out views" if totals.measured_on == {"heldout"} else "training views",
        atlas_heldout_psnr=_spread(totals.spread("atlas_heldout_psnr"), ".2f", " dB"),
        psnr=_spread(totals.spread("psnr"), ".2f", " dB"),
        ssim=_spread(totals.spread("ssim"), ".4f"),
        smoothness=_spread(totals.spread("smoothness"), ".3f"),
        atlas_psnr=_spread(totals.spread("atlas_psnr"), ".1f", " dB"),
        licences=_licences(totals),
        credits=_credits(totals.credits),
        quarantined=_reasons(totals),
        channels=", ".join(index["channels"]),
        changes=_changes(version),
        sums=version.key(dataset_format.SUMS),
        digest=run.digest,
        run=run.key,
        others=", and, in `configs`, those of objects that were made before" if run.identity.get("configs") else "",
        makers=_makers(begun_with(run), other_makers(run, commits)),
        splats=_SPLATS if SPLATS in run.held else "",
        example=_HUB_EXAMPLE if run.part.get("hub") else _EXAMPLE,
        views=_VIEWS.format(count=index["views"], size=index["views_size"]) if "views" in index else "",
    )


def _hub_licence(totals: Totals) -> str:
    """The hub's entry: a licence if all objects have that one, else that each has its own."""
    if len(totals.licences) == 1 and (name := _HUB_LICENCES.get(next(iter(totals.licences)))):
        return f"license: {name}"
    return "license: other\nlicense_name: per-object"


def _configs(run: Run) -> str:
    """The hub's configurations; `datasets` takes one format for all, so that its table is shown or its tars."""
    files = {family: f"{family}/*.tar" for family in (ATLAS, SPLATS, VIEWS) if family in run.held}
    if run.part.get("hub"):
        files = {"metadata": dataset_format.METADATA}
    return "\n".join(f"- config_name: {name}\n  data_files: {pattern}" for name, pattern in files.items())


def _part(part: Mapping[str, Any]) -> str:
    if not part:
        return ""
    rows = [(text,) for text in part["chosen"] or ["all objects"]]
    return _PART.format(of=part["samples"], index=part["index_sha256"], chosen=_table(("chosen by",), rows))


def _spread(found: Spread | None, form: str, unit: str = "") -> str:
    if found is None:  # as of imported objects
        return "not measured"
    return f"median {found.median:{form}}{unit}, {found.lowest:{form}} to {found.highest:{form}}"


def _licences(totals: Totals) -> str:
    if not totals.licences:
        return "None."
    counts = _sorted(totals.licences)
    rows = [(licence or "not stated", str(n)) for licence, n in counts[:MAX_LICENCES]]
    text = _table(("licence", "objects"), rows)
    if rest := counts[MAX_LICENCES:]:
        text += f"\n\n{sum(n for _, n in rest)} more objects have one of {len(rest)} other licences."
    return text


def _credits(credits: Credits) -> str:
    if not credits.counts:
        return "The manifest names none."
    rows = [(credit, licence or "not stated", str(n)) for (credit, licence), n in _sorted(credits.counts)]
    text = "As the manifest gives them; each object's own is in the column `attribution` of `metadata.parquet`.\n\n"
    text += _table(("author, title and source", "licence", "objects"), rows)
    if credits.others:
        text += f"\n\nThese are the first {len(rows)}. {credits.others} more objects have another, in that column."
    return text


def _reasons(totals: Totals) -> str:
    if not totals.reasons:
        return "None."
    table = _table(("reason", "objects"), [(reason, str(n)) for reason, n in _sorted(totals.reasons)])
    return f"{table}\n\nDetails: `{dataset_format.QUARANTINE}`."


def _changes(version: Version) -> str:
    """The section on what changed; none of version 1."""
    if version.number == 1:
        return ""
    names = ("added", "refitted", "corrected", "removed")
    rows = []
    for entry in version.run.history:
        changes = entry["changes"]
        columns = ", ".join(f"{name} {count}" for name, count in sorted(changes["columns"].items()))
        rows.append((str(entry["version"]), *(str(changes[n]) for n in names), columns, str(entry["note"])))
    title = ("version", *names, "objects in which a column changed", "note")
    return _VERSIONS.format(number=version.number, folder=version.key(""), table=_table(title, rows))


def _makers(first: tuple[str, str], others: Sequence[Maker]) -> str:
    text = _table(("digest of the code", "packages"), [first])
    if not others:
        return text
    rows = [(m.family, ranges(m.shards), str(m.objects), m.code, m.versions) for m in others]
    table = _table(("family", "shards", "objects", "digest of the code", "packages"), rows)
    return f"{text}\n\nOf these shards, other code or packages made some objects:\n\n{table}"


def _sorted(counts: Mapping[_Text, int]) -> list[tuple[_Text, int]]:
    return sorted(counts.items(), key=lambda c: (-c[1], c[0]))


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    lines += [f"| {' | '.join(markdown(text, MAX_TEXT) for text in row)} |" for row in rows]
    return "\n".join(lines)
