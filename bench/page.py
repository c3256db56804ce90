"""`make bench-page`: what the page of `report` costs, of the samples and of thousands of objects, and in a browser.

    python -m bench.page [--samples OUT]

OUT is what `make fit-shard` makes; without it, it is made. The gallery of many objects has the samples' Gaussians
again and again, each with numbers of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from playwright.sync_api import CDPSession, Page, sync_playwright

from bench.record import keep
from gaussianverse.atlas.dataset_format import SPLATS, shard_tar
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.fitter.comparison import drawn
from gaussianverse.fitter.turntable import turntable
from gaussianverse.manifests import runform
from gaussianverse.manifests.schema import Row
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.shards import read_record

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "manifests" / "sample" / "objects.jsonl"
COMMAND = str(Path(sys.executable).with_name("gaussianverse"))
SHARD, SIDE, ROUNDS = 250, 510, 5
BROWSER = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox")


_PAINTED = """
new MutationObserver((changes, observer) => {
  if (!document.querySelector(".cell")) return;
  observer.disconnect();
  requestAnimationFrame(() => requestAnimationFrame(() => { window.painted = performance.now(); }));
}).observe(document, { childList: true, subtree: true });
"""
_CHANGE = """
async ([control, value]) => {
  const element = document.getElementById(control);
  element.value = value;
  element.dispatchEvent(new Event("input", { bubbles: true }));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
}
"""


def costs(*options: str | Path) -> tuple[float, float]:
    """CPU seconds and peak memory in MB of a call of `gaussianverse`."""
    process = subprocess.Popen([COMMAND, *map(str, options)], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def many(samples: Path, out: Path, n: int) -> Path:
    """An output of n objects in shards, whose tars are links to that of the samples."""
    rng = np.random.default_rng(0)
    run = json.loads((samples / layout.RUN).read_bytes())
    for shard in range(n // SHARD):
        numbers = np.arange(shard * SHARD, (shard + 1) * SHARD)
        for stage in layout.STAGES:
            for key_of in (layout.stats, layout.journal):
                table = pq.read_table(samples / key_of(stage, 0))
                table = table.take(numbers % len(table))
                table = replaced(table, "uid", [f"object-{k:06d}" for k in numbers])
                if "index" in table.column_names:
                    table = replaced(table, "index", numbers)
                for name in ("psnr", "ssim", "atlas_heldout_psnr", "complexity", "smoothness", "seconds"):
                    if name in table.column_names:
                        table = replaced(table, name, table[name].to_numpy() * rng.uniform(0.8, 1.2, len(table)))
                target = out / key_of(stage, shard)
                target.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(table, target, compression="zstd")
            for key in (shard_tar(stage, shard), layout.commit(stage, shard)):
                (out / key).parent.mkdir(parents=True, exist_ok=True)
            os.link(samples / shard_tar(stage, 0), out / shard_tar(stage, shard))
            (out / layout.commit(stage, shard)).write_text("{}")  # that it is there is all that the page asks
    rows = [Row(f"object-{k:06d}", f"views/{k}", license="CC0-1.0") for k in range(n)]
    (out / layout.MANIFEST).parent.mkdir()
    (out / layout.MANIFEST).write_bytes(runform.encode(rows, shard_size=SHARD))
    (out / layout.RUN).write_text(json.dumps({**run, "n_objects": n, "n_shards": n // SHARD}))
    return out


def replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    k = table.column_names.index(name)
    return table.set_column(k, table.schema.field(k), pa.array(values, table.schema.field(k).type))


def opened(page: Page, index: Path) -> float:
    """Seconds until the first objects are painted."""
    page.goto("about:blank")
    page.goto(index.as_uri())
    page.wait_for_function("window.painted")
    return float(page.evaluate("painted")) / 1e3


def handled(page: Page, session: CDPSession, control: str, values: list[str]) -> float:
    """Milliseconds of CPU of the page's thread from a change of a control until it is painted, the median."""

    def cpu_s() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))

    times = []
    for value in values:
        before = cpu_s()
        page.evaluate(_CHANGE, [control, value])
        times.append(1e3 * (cpu_s() - before))
    return median(times)


def gallery(page: Page, index: Path) -> dict[str, float]:
    """Times of a gallery of many objects: of the wall for its first view, of the processor for the others."""
    page.add_init_script(_PAINTED)
    # the least: what else runs on the machine only adds to it
    first = min(opened(page, index) for _ in range(ROUNDS))
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    changed = partial(handled, page, session)
    filters = [changed("search", ROUNDS * [word, ""]) for word in ("object-0099", "cow")]
    page.select_option("#column", "psnr")
    filters.append(changed("low", ROUNDS * ["30", "40", ""]))
    names = [name for name in page.locator("#order option").evaluate_all("all => all.map(o => o.value)") if name]
    sorts = [changed("order", ROUNDS * [name]) for name in names]
    return {"first_view_s": first, "filter_ms": max(filters), "sort_ms_max": max(sorts)}


def viewer_psnr(page: Page, samples: Path, folder: Path, uid: str) -> float:
    """The viewer's picture of a sample against our rasteriser's from the same camera."""
    gaussians = Gaussians.from_bytes(read_record(LocalStorage(samples), SPLATS, 0, uid).main(SPLATS))
    expected = drawn(turntable(gaussians, 1, SIDE), [gaussians])[1][0].astype(float)
    page.goto((folder / "files" / "objects" / f"{uid}.html").as_uri())
    style = f"position: fixed; top: 0; left: 0; z-index: 1; border: 0; border-radius: 0; width: {SIDE}px"
    page.evaluate("style => { document.getElementById('splat').style = style; }", style)
    found = 0.0
    for _ in range(20):  # software WebGL takes seconds for its first picture
        page.wait_for_timeout(1000)
        image = Image.open(BytesIO(page.screenshot(clip={"x": 0, "y": 0, "width": SIDE, "height": SIDE})))
        error = np.square(np.asarray(image.convert("RGB"), float) - expected).mean()
        found = max(found, float(10 * np.log10(255**2 / max(error, 1e-9))))
    return found


def main() -> None:
    """Make the outputs and the pages, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=Path, default=ROOT / "out")
    samples = parser.parse_args().samples
    if not (samples / layout.RUN).is_file():
        costs("fit-shard", "--manifest", MANIFEST, "--out", samples, "--profile", "quick", "--no-report")
    with tempfile.TemporaryDirectory(dir=samples.parent) as temporary:  # beside the samples, for the links
        folder = Path(temporary)
        page = folder / "page"
        cpu_s, _ = costs("report", "--out", samples, "--dest", page, "--base", MANIFEST.parent)
        size = sum(file.stat().st_size for file in page.rglob("*") if file.is_file())
        alone = ("--objects", "0", "--worst", "0")
        found: dict[int, tuple[float, float]] = {}
        for n in (1000, 10_000):
            out = many(samples, folder / f"{n}", n)
            found[n] = costs("report", "--out", out, "--dest", folder / f"page-{n}", *alone)
            if "Not on this page" in (folder / f"page-{n}" / "index.html").read_text():
                raise SystemExit(f"{samples}: its shards cannot be read; it was made by other code, so delete it")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(BROWSER))
            tab = browser.new_page(viewport={"width": 1200, "height": 900})
            times = gallery(tab, folder / "page-10000" / "index.html")
            psnr = viewer_psnr(tab, samples, page, "spot")
            browser.close()
    keep(
        "page",
        {
            "cpu_s_samples": cpu_s,
            "mb_samples": size / 1e6,
            "cpu_ms_per_object_10k": 1e3 * found[10_000][0] / 10_000,
            "peak_mb_1k": found[1000][1],
            "peak_mb_10k": found[10_000][1],
            **times,
            "viewer_psnr_db": psnr,
        },
    )


if __name__ == "__main__":
    main()
