"""CPU milliseconds per sample of batches of 64 standardised atlases: `AtlasLoader` and other projects' readers.

Each reads the same 1,024 atlases of 1 MiB, in a process of its own with one worker, in turn; the CPU time is that of
the process and its worker, with all their threads. The gigabyte lies in the page cache, so that the work per byte is
measured and not the disk, and in no processor's cache. `raw` reads the arrays at their offsets, checks nothing, and
makes the same batches with torch. webdataset decodes with `.decode()` and does not shuffle. MDS and litdata read
their own formats, written from the same samples, with the interpreter of `--others`: their pins clash with ours.

S3 is Ceph's radosgw, in processes of its own that do not count. Reference views are 8 of 256 px; 4 are drawn.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import boto3
import numpy as np
import torch
import webdataset as wds
from PIL import Image
from servers import radosgw

from bench.datasets import publish_dataset
from bench.decoders import decoders, stored_views
from bench.reader_batches import BATCH, children, measured
from bench.record import keep
from gaussianverse import AtlasDataset, AtlasLoader
from gaussianverse.atlas import StoreOptions
from gaussianverse.atlas.reader.views import ReferenceViews

ROUNDS, EPOCHS = 3, 1
BUCKET = "bench"
VIEWS, DRAWN, PIXELS = 8, 4, 256
_SCRIPT = Path(__file__).with_name("reader_batches.py")
_EMPTY = "import torch, torch.utils.data; print(open('/proc/self/statm').read())"


def ours(url: str, epochs: int, workers: int, views: int, views_dtype: str) -> dict[str, Any]:
    """Times of `AtlasLoader`, as `measured` takes them, and the memory of a worker."""
    torch.set_num_threads(1)
    s3 = StoreOptions(endpoint_url=os.environ.get("BENCH_S3", ""), region="us-east-1")
    dataset = AtlasDataset(
        url, standardise=True, views=views or False, views_dtype=getattr(torch, views_dtype), s3=s3
    )
    loader = AtlasLoader(dataset, BATCH, num_workers=workers, persistent_workers=True)
    found = measured(lambda: ((None, batch["uid"]) for batch in loader), epochs)
    return {**found, "worker_mb": max(map(resident_mb, children()))}


def resident_mb(process: int) -> float:
    """Memory that a process uses."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def parts(root: Path) -> dict[str, float]:
    """CPU milliseconds per sample of reading with its checks, and of the arithmetic, each by itself."""
    torch.set_num_threads(1)
    dataset = AtlasDataset(root, standardise=True)
    source: Any = dataset.source
    draws = dataset.samples.epoch(0)
    batch = torch.empty(BATCH, 128, 128, 16)
    for _ in range(2):  # the first one warms up
        read, written = 0.0, 0.0
        for number, fetched in enumerate(source._fetched(source._ranges(draws))):
            start = time.process_time()
            for one in fetched:
                source.conversion.write(one.array, batch[number % BATCH])
            written += time.process_time() - start
        begun = time.process_time()
        for _ in source._fetched(source._ranges(draws)):
            pass
        read = time.process_time() - begun
    return {"read_ms": 1e3 * read / len(draws), "arithmetic_ms": 1e3 * written / len(draws)}


def decoded_alone(root: Path) -> float:
    """CPU milliseconds per sample of webdataset's `.decode()`, in this process and without batches."""
    urls, times = [str(path) for path in sorted(root.glob("atlas/*.tar"))], []
    for _ in range(ROUNDS):
        start = time.process_time()
        count = sum(1 for _ in wds.WebDataset(urls, shardshuffle=False).decode())
        times.append(1e3 * (time.process_time() - start) / count)
    return median(times)


def run(*command: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """The last line of a program's output, as JSON."""
    shown = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, **(environment or {})}
    )
    result: dict[str, Any] = json.loads(shown.stdout.splitlines()[-1])
    return result


def in_turn(runs: dict[str, Callable[[], dict[str, Any]]], rounds: int) -> dict[str, dict[str, Any]]:
    """The median round of each, which run in turn; the reason where one fails."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}
    failed = {}
    for _ in range(rounds):
        for name, read in runs.items():
            try:
                found[name].append({**read(), "load": os.getloadavg()[0]})
            except subprocess.CalledProcessError as error:
                failed[name] = {"error": error.stderr.strip().splitlines()[-1]}
    return failed | {
        name: sorted(times, key=lambda one: float(one["ms"]))[len(times) // 2]
        for name, times in found.items()
        if times
    }


def program(url: str, *, workers: int = 1, epochs: int = EPOCHS, **views: Any) -> Callable[[], dict[str, Any]]:
    command = ["-m", "bench.reader", "--ours", url, "--workers", str(workers), "--epochs", str(epochs)]
    shown = [text for name, value in views.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    return lambda: run(sys.executable, *command, *shown)


def other(python: str, kind: str, place: str, statistics: Path) -> Callable[[], dict[str, Any]]:
    return lambda: run(python, str(_SCRIPT), "read", kind, place, str(statistics), str(EPOCHS))


def upload(root: Path, endpoint: str) -> None:
    """Upload the atlases and what a reader needs besides."""
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    for path in [p for p in root.iterdir() if p.is_file()] + sorted(root.glob("atlas/*.tar")):
        client.put_object(Bucket=BUCKET, Key=f"set/{path.relative_to(root)}", Body=path.read_bytes())


def reference_views() -> list[ReferenceViews]:
    """Sets of views of the sample objects."""
    images = [np.asarray(Image.open(io.BytesIO(data))) for data in stored_views(PIXELS, 24)]
    poses = np.broadcast_to(np.eye(4, dtype=np.float32), (VIEWS, 4, 4)).copy()
    Ks = np.broadcast_to(np.eye(3, dtype=np.float32), (VIEWS, 3, 3)).copy()
    return [ReferenceViews(np.stack(np.roll(images, k, axis=0)[:VIEWS]), poses, Ks) for k in range(len(images))]


def made(folder: Path, objects: int) -> tuple[Path, Path]:
    """The datasets, unless they are there."""
    uids = [f"object{i:05d}" for i in range(objects)]
    large, shown = folder / "large", folder / "views"
    if not (large / "_SUCCESS").exists():
        publish_dataset(large, uids, shard_size=256, size=128)
    if not (shown / "_SUCCESS").exists():
        publish_dataset(shown, uids[: objects // 4], shard_size=64, size=128, views=reference_views())
    return large, shown


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--others", help="Python that has litdata and mosaicml-streaming, beside torch")
    parser.add_argument(
        "--data", help="folder to keep the datasets in for the next time (4 GB); else they are deleted"
    )
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--views", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--views-dtype", default="float32", help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.ours:
        sys.stdout.write(
            json.dumps(ours(options.ours, options.epochs, options.workers, options.views, options.views_dtype)) + "\n"
        )
        return 0
    if reason := radosgw.why_not():
        sys.stderr.write(f"bench-reader measures S3 on Ceph radosgw: {reason}\n")
        return 1
    os.environ.update(AWS_ACCESS_KEY_ID=radosgw.ACCESS_KEY, AWS_SECRET_ACCESS_KEY=radosgw.SECRET_KEY)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.data or temporary)
        large, shown = made(folder, options.objects)
        shards = sorted(large.glob("atlas/*.tar"))
        statistics = Path(temporary, "statistics.npz")
        np.savez(statistics, mean=np.load(large / "atlas_mean.npy"), std=np.load(large / "atlas_std.npy"))
        runs = {
            "ours": program(str(large)),
            "webdataset": other(sys.executable, "webdataset", " ".join(map(str, shards)), statistics),
            "raw": other(sys.executable, "raw", str(large), statistics),
            "ours_two_workers": program(str(large), workers=2),
            # a fourth of the objects, and batches of 335 MB: it takes more epochs until all memory was used once
            "ours_views": program(str(shown), views=DRAWN, epochs=4 * EPOCHS),
            "ours_views_uint8": program(str(shown), views=DRAWN, views_dtype="uint8", epochs=4 * EPOCHS),
        }
        for kind in ("mds", "litdata") if options.others else ():
            target = folder / kind
            if not target.exists():
                subprocess.run([options.others, str(_SCRIPT), "write", kind, str(large), str(target)], check=True)
            runs[kind] = other(options.others, kind, str(target), statistics)
        local = in_turn(runs, options.rounds)
        split, decode_ms = parts(large), decoded_alone(large)
        with radosgw.serving(Path(temporary, "radosgw")) as endpoint:
            os.environ["BENCH_S3"] = endpoint
            upload(large, endpoint)
            urls = " ".join(f"s3://{BUCKET}/set/{path.relative_to(large)}" for path in shards)
            s3 = in_turn(
                {
                    "ours": program(f"s3://{BUCKET}/set"),
                    "webdataset": other(sys.executable, "webdataset", urls, statistics),
                },
                options.rounds,
            )
    own, torch_mb = local["ours"], _torch_mb()
    result = {
        "local_ms": own["ms"],
        "s3_ms": s3["ours"]["ms"],
        "views_ms": local["ours_views"]["ms"],
        "views_uint8_ms": local["ours_views_uint8"]["ms"],
        "local_ratio_to_webdataset": local["webdataset"]["ms"] / own["ms"],
        "s3_ratio_to_webdataset": s3["webdataset"]["ms"] / s3["ours"]["ms"],
        "ratio_to_decode": decode_ms / own["ms"],
        "ratio_to_raw": local["raw"]["ms"] / own["ms"],
        "samples_per_s": own["samples_per_s"],
        "two_workers_ratio": local["ours_two_workers"]["samples_per_s"] / own["samples_per_s"],
        "split": {
            "transport_ms": own["main_ms"],
            **{name: split[name] for name in ("read_ms", "arithmetic_ms")},
            "rest_ms": own["workers_ms"] - split["read_ms"] - split["arithmetic_ms"],
        },
        "memory": {"worker_mb": own["worker_mb"], "torch_mb": torch_mb, "over_torch_mb": own["worker_mb"] - torch_mb},
        "time": "CPU of the process and its worker, per sample",
        "rounds": options.rounds,
        "samples": own["samples"],
        "bytes_per_sample": sum(path.stat().st_size for path in shards) / own["samples"],
        "local": local,
        "s3": s3,
        "decoders_ms": decoders(),
    }
    keep("reader", result)
    return 0


def _torch_mb() -> float:
    """Memory of a process that has imported torch and its DataLoader."""
    shown = subprocess.run([sys.executable, "-c", _EMPTY], check=True, capture_output=True, text=True).stdout
    return int(shown.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    sys.exit(main())
