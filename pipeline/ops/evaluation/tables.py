"""Tables of an evaluation, in Markdown and in LaTeX: the paper's Table 1, quality by category, comparisons."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gaussianverse.escape import markdown, one_line
from gaussianverse.fitter.geometry import THRESHOLDS, VOXEL
from gaussianverse.pipeline.ops.evaluation.statistics import LEVEL

_NAMES = {
    "unpacked_psnr": ("PSNR of the atlas (dB)", 2),
    "unpacked_ssim": ("SSIM of the atlas", 4),
    "unpacked_lpips": ("LPIPS of the atlas", 4),
    "fit_psnr": ("PSNR of the fit (dB)", 2),
    "fit_ssim": ("SSIM of the fit", 4),
    "fit_lpips": ("LPIPS of the fit", 4),
    "smoothness": ("smoothness of the atlas", 3),
    "smoothness_appearance": ("smoothness of appearance", 3),
    "depth_l1": ("depth L1 inside the mask", 4),
    "normal_degrees": ("angle of normals (degrees)", 1),
    "covered": ("share of the mask that is covered", 3),
    "chamfer": ("Chamfer distance", 4),
    **{f"f_{threshold:.2f}": (f"F-score at {threshold}", 3) for threshold in THRESHOLDS},
    "iou": (f"IoU of voxels of {VOXEL}", 3),
}
_BY_CATEGORY = ("unpacked_psnr", "unpacked_ssim", "unpacked_lpips", "fit_psnr", "smoothness")
_VIEWS = {"heldout": "held-out views", "train": "training views"}
_MOST = 100
_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """One table: a title, the heads of its columns, and rows of texts."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables_of(found: Mapping[str, Any]) -> list[Table]:
    """The tables of an evaluation.json."""
    first, *others = found["datasets"]
    tables = [_first_table(first)]
    tables += [_by_category(group) for group in first["quality"]]
    for dataset, pair in zip(others, found["differences"], strict=True):
        tables.append(_differences(dataset, pair))
    if others:
        tables.append(_curve(found))
    return tables


def to_markdown(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """The tables as Markdown, foreign text escaped."""
    blocks = []
    for table in tables:
        lines = [f"**{markdown(table.title, 500)}**", ""]
        lines += ["| " + " | ".join(table.heads) + " |", "|" + "---|" * len(table.heads)]
        lines += ["| " + " | ".join(markdown(cell, _MOST) for cell in row) + " |" for row in table.rows]
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, *(markdown(note, 1000) for note in notes)]) + "\n"


def to_latex(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """The tables as LaTeX, for the package booktabs."""
    blocks = [f"% {one_line(note)}" for note in notes]
    for table in tables:
        lines = [
            r"\begin{table}",
            rf"\caption{{{latex(table.title)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.heads) - 1)}}}",
        ]
        lines += [r"\toprule", " & ".join(map(latex, table.heads)) + r" \\", r"\midrule"]
        lines += [" & ".join(latex(cell) for cell in row) + r" \\" for row in table.rows]
        blocks.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]))
    return "\n\n".join(blocks) + "\n"


def latex(text: str) -> str:
    """Text with LaTeX's special characters escaped, +- as its sign, and controls shown."""
    found = re.sub(r"[&%$#_{}~^\\]", lambda c: _LATEX[c[0]], one_line(text))
    return found.replace("+-", r"$\pm$")


def _first_table(dataset: Mapping[str, Any]) -> Table:
    counts, years = dataset["counts"], dataset["device_years"]
    rows = []
    for group in dataset["quality"][:1]:
        rows += [[name, _mean_std(group["all"][key], digits)] for key, (name, digits) in _shown(group)]
    gaussians = counts["gaussians"]
    rows += [
        ["Gaussians per object", _mean_std(gaussians, 0)],
        ["its quartiles", ", ".join(_number(gaussians[q], 0) for q in ("q25", "median", "q75"))],
        ["its least and largest", ", ".join(_number(gaussians[q], 0) for q in ("min", "max"))],
        ["Gaussians in the atlas", _mean_std(counts["in_atlas"], 0)],
        [f"share at the bound of {counts['bound']}", _percent(counts["share_at_bound"])],
        [
            f"Spearman of count with complexity ({counts['spearman_objects']} objects)",
            _number(counts["spearman_with_complexity"], 2),
        ],
        ["Spearman of count with complexity times coverage", _number(counts["spearman_with_detail"], 2)],
        ["objects", str(gaussians["n"])],
        ["device-years, kept and lost attempts", f"{years['kept'] + years['lost']:.3g}"],
        ["of which lost attempts, estimated", f"{years['lost']:.3g}"],
        ["device-years that slots were held", f"{years['held']:.3g}"],
    ]
    title = "Table 1"
    if dataset["quality"]:
        title += f", quality on {_conditions(dataset['quality'][0])}"
    return Table(title, ("", "mean +- std over objects"), rows)


def _by_category(group: Mapping[str, Any]) -> Table:
    shown = [(key, *_NAMES[key]) for key in _BY_CATEGORY if group["all"][key]["n"]]
    categories = [("all", group["all"])] + [(name or "not stated", v) for name, v in group["by_category"].items()]
    rows = [
        [name, str(max(v[key]["n"] for key, _, _ in shown)), *(_mean_interval(v[key], d) for key, _, d in shown)]
        for name, v in categories
    ]
    title = f"Means by category on {_conditions(group)}, with {LEVEL:.0%} bootstrap intervals"
    return Table(title, ("category", "n", *(name for _, name, _ in shown)), rows)


def _differences(dataset: Mapping[str, Any], pair: Mapping[str, Any]) -> Table:
    rows = [
        [name, str(pair[key]["n"]), _mean_interval(pair[key], digits, sign=True), _number(pair[key]["min"], digits)]
        for key, (name, digits) in _NAMES.items()
        if key in pair and pair[key]["n"]
    ]
    ratio = pair["gaussians_ratio"]
    rows.append(["Gaussians, ratio", str(ratio["n"]), _mean_interval(ratio, 3), _number(ratio["min"], 3)])
    skipped = ", ".join(f"{n} {why}" for why, n in pair["not_compared"].items())
    title = f"Differences from {dataset['out']}, object by object" + (
        f" (not compared: {skipped})" if skipped else ""
    )
    return Table(title, ("", "n", f"mean, {LEVEL:.0%} interval", "least"), rows)


def _curve(found: Mapping[str, Any]) -> Table:
    rows = [
        [
            dataset["out"], str(dataset["counts"]["bound"]), str(point["objects"]), _mean_std(point["gaussians"], 0),
            _mean_interval(point["unpacked_psnr"], 2), _mean_interval(point["fit_psnr"], 2),
        ]
        for dataset, point in zip(found["datasets"], found["curve"], strict=True)
    ]  # fmt: skip
    heads = ("dataset", "bound", "n", "Gaussians", "PSNR of the atlas (dB)", "PSNR of the fit (dB)")
    return Table("Quality against count, over the objects that all datasets share", heads, rows)


def _shown(group: Mapping[str, Any]) -> list[tuple[str, tuple[str, int]]]:
    return [(key, shown) for key, shown in _NAMES.items() if key in group["all"] and group["all"][key]["n"]]


def _conditions(group: Mapping[str, Any]) -> str:
    views = _VIEWS.get(group["metrics_on"], group["metrics_on"])
    return f"{views}, {group['background']}, {group['width']} x {group['height']} px, {group['objects']} objects"


def _mean_std(spread: Mapping[str, Any], digits: int) -> str:
    return f"{_number(spread['mean'], digits)} +- {_number(spread['std'], digits)}" if spread["n"] else "-"


def _mean_interval(spread: Mapping[str, Any], digits: int, *, sign: bool = False) -> str:
    if not spread["n"]:
        return "-"
    mean, low, high = (_number(spread[name], digits, sign=sign) for name in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def _number(value: float | None, digits: int, *, sign: bool = False) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:{'+' if sign else ''},.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.1%}"
