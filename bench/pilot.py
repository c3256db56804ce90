"""`make bench-pilot`: real meshes to a verified dataset by the commands that anyone would type, and what went wrong.

    python -m bench.pilot [--folder MESHES] [--out FOLDER] [--profile quick] [--objects N]

The folder is a collection of GLB files with an objects.csv (file, category, name), such as 247 models by Quaternius.
What is there is kept: started again, the script goes on.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq

from bench.objects import SHARED
from bench.record import keep

COMMAND = str(Path(sys.executable).with_name("gaussianverse"))
CREDIT = {"license": "CC0-1.0", "caption_source": "file name"}
CONTENT = ("bad_input", "inconsistent_views", "too_few_gaussians", "low_psnr", "rough_atlas")
"""Reasons that name the object; any other is the product's."""


def told(command: list[str]) -> str:
    """What a command that failed said last, "" if it did not fail."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return "" if done.returncode == 0 else said[-1] if said else f"exit code {done.returncode}"


def uid_of(file: str) -> str:
    """Characters that a uid may have, from a path."""
    return re.sub(r"[^A-Za-z0-9]+", "-", file.removesuffix(".glb").removesuffix(".gltf")).strip("-")


def rendered(folder: Path, out: Path, objects: int, size: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Render the meshes that are not yet there; rows of a manifest, and what was said of those that failed."""
    with (folder / "objects.csv").open() as text:
        listed = list(itertools.islice(csv.DictReader(text), objects))

    def drawn(mesh: dict[str, str]) -> str:
        views = out / "views" / uid_of(mesh["file"])
        if views.is_dir():
            return ""
        said = told([COMMAND, "render", str(folder / mesh["file"]), str(views), "--size", str(size)])
        return said.replace(f"{folder}/", "")

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        failed = {mesh["file"]: said for mesh, said in zip(listed, threads.map(drawn, listed), strict=True) if said}
    rows = [
        {
            "uid": uid_of(mesh["file"]), "views": f"views/{uid_of(mesh['file'])}", "format": "auto",
            "category": mesh["category"], "caption": mesh["name"], "source_id": mesh["file"], **CREDIT,
        }
        for mesh in listed
        if mesh["file"] not in failed
    ]  # fmt: skip
    return rows, failed


def cpu_seconds(command: list[str]) -> float:
    """Run a command; CPU seconds of it and of all processes that it started, looked at once a second."""
    process = psutil.Popen(command)
    spent: dict[tuple[int, float], float] = {}
    while process.poll() is None:
        for one in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                spent[one.pid, one.create_time()] = sum(one.cpu_times()[:2])
        time.sleep(1)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return sum(spent.values())


def spread(values: Any) -> list[float]:
    """Mean, standard deviation, lowest, median, highest."""
    array = np.array([value for value in values if value is not None], float)
    return [round(float(f), 3) for f in (array.mean(), array.std(), array.min(), np.median(array), array.max())]


def main() -> None:
    """Render, fit, verify, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=SHARED / "quaternius")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "gaussianverse-pilot")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--objects", type=int, help="default: all")
    parser.add_argument("--size", type=int, default=256, help="pixels of the renders")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows, undrawn = rendered(args.folder, args.out, args.objects, args.size)
    manifest, dataset = args.out / "manifest.jsonl", args.out / "dataset"
    manifest.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    fit = ["fit-shard", "--manifest", str(manifest), "--out", str(dataset), "--profile", args.profile]
    there = len(list(dataset.glob("_commits/atlas/*.json")))
    cpu_s = cpu_seconds([COMMAND, *fit, "--set", "run.shard_size=64"])
    subprocess.run([COMMAND, "verify", "--out", str(dataset)], check=True)
    table = pq.read_table(dataset / "metadata.parquet").to_pylist()
    good = [row for row in table if row["status"] == "ok"]
    reasons = Counter(row["reason"] for row in table if row["status"] != "ok")
    shards = sum(file.stat().st_size for family in ("atlas", "splats") for file in (dataset / family).glob("*.tar"))
    keep(
        "pilot",
        {
            "objects": len(rows) + len(undrawn),
            "product_failures": sum(n for reason, n in reasons.items() if reason not in CONTENT) / len(table),
            "failures": dict(reasons),
            "not_drawn": undrawn,
            "not_published": {row["uid"]: row["error_message"] for row in table if row["status"] != "ok"},
            "published": len(good),
            "gaussians": spread(row["n_gaussians"] for row in good),
            "psnr": spread(row["psnr"] for row in good),
            "atlas_heldout_psnr": spread(row["atlas_heldout_psnr"] for row in good),
            "cpu_s_per_object": cpu_s / len(table) if not there else None,  # a call that goes on did a part alone
            "bytes_per_object": shards / len(good),
            "profile": args.profile,
            "size": args.size,
        },
    )


if __name__ == "__main__":
    main()
