"""Samples per second of one worker: `AtlasDataset` against webdataset's `.decode()` and raw reads of whole shards.

All read the same shards in the same run, in turn, from the page cache, so the work per byte is measured and not the
disk. Samples are dropped as they come, so the reader's memory stays hot too; `reader_batches_of_8` holds eight.
`raw` is `file.read()` of a whole shard, `raw_into_memory` reads it into memory that exists already, and
`ratio_to_raw` compares with the faster of the two. `raw_in_pieces` reads it in pieces into one hot megabyte.

The S3 test server limits every reader (moto copies the whole object for each range), so compare the client's CPU time
per sample.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import boto3
import webdataset as wds

from bench.datasets import publish_dataset
from bench.record import interleaved, keep
from gaussianverse.atlas import AtlasDataset, AtlasLoader, StoreOptions
from gaussianverse.atlas.store.s3 import S3Storage

ROUNDS = 7
BUCKET = "bench"
_SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").disabled = True
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


def all_of(samples: Any) -> int:
    """Read all samples and return their number."""
    return sum(1 for _ in samples)


def local(root: Path, shards: list[Path]) -> dict[str, float]:
    """Median thread CPU milliseconds for all shards, by way of reading."""
    names = [str(path) for path in shards]

    def raw() -> None:
        for name in names:
            with open(name, "rb") as file:
                file.read()

    memory = bytearray(max(path.stat().st_size for path in shards))

    def raw_into_memory() -> None:
        for name in names:
            with open(name, "rb", buffering=0) as file:
                file.readinto(memory)

    def raw_in_pieces() -> None:
        for name in names:
            with open(name, "rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass

    def of(**how: Any) -> Callable[[], object]:
        dataset = AtlasDataset(root, **how)
        return lambda: all_of(dataset)

    runs: dict[str, Callable[[], object]] = {
        "raw": raw,
        "raw_into_memory": raw_into_memory,
        "raw_in_pieces": raw_in_pieces,
        "reader": of(),
        "webdataset_decode": lambda: all_of(wds.WebDataset(names, shardshuffle=False).decode()),
        "webdataset_bytes": lambda: all_of(wds.WebDataset(names, shardshuffle=False)),
        "reader_in_shard_order": of(shuffle=False),
        "reader_standardised": of(standardise=True),
        "reader_hashes": of(hashes=True),
        "reader_batches_of_8": (lambda loader: lambda: all_of(loader))(AtlasLoader(AtlasDataset(root), 8)),
    }
    return interleaved(runs, dict.fromkeys(runs, ROUNDS))


@contextmanager
def s3_server() -> Iterator[str]:
    """Run moto's server in a separate process; yields its URL."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait(10)


def process_cpu() -> float:
    """CPU seconds of this process and all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def from_s3(root: Path, shards: list[Path]) -> dict[str, Any]:
    """Samples per second and the client's CPU milliseconds per sample, for one shard."""
    with s3_server() as endpoint:
        options = StoreOptions(endpoint_url=endpoint, region="us-east-1")
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        for path in [p for p in root.iterdir() if p.is_file()] + shards:
            client.put_object(Bucket=BUCKET, Key=f"set/{path.relative_to(root)}", Body=path.read_bytes())
        dataset = AtlasDataset(f"s3://{BUCKET}/set", s3=options)
        places = [dataset.catalogue.byte_range(i) for i in range(len(dataset))]
        store = S3Storage(f"s3://{BUCKET}/set", options)
        runs: dict[str, Callable[[], object]] = {
            "reader": lambda: all_of(dataset),
            "range_reads": lambda: [store.read(p.key, p.offset, p.nbytes, p.total) for p in places],
            "raw_whole_shard": lambda: store.get(places[0].key),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for _ in range(3):
            for name, run in runs.items():
                wall, cpu = time.perf_counter(), process_cpu()
                run()
                found[name].append((time.perf_counter() - wall, process_cpu() - cpu))
        n = len(places)
        return {
            name: {
                "samples_per_s": n / median(w for w, _ in times),
                "client_cpu_ms_per_sample": 1e3 * median(c for _, c in times) / n,
            }
            for name, times in found.items()
        }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--per-shard", type=int, default=96)
    options = parser.parse_args(arguments)
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "bench")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "bench")
    with tempfile.TemporaryDirectory() as folder:
        count = options.shards * options.per_shard
        uids = [f"object{i:05d}" for i in range(count)]
        root = publish_dataset(Path(folder, "large"), uids, shard_size=options.per_shard, size=128)
        shards = sorted(root.glob("atlas/*.tar"))
        nbytes = sum(path.stat().st_size for path in shards)
        ms = local(root, shards)
        # a small shard: moto copies all of it for each range
        small = publish_dataset(Path(folder, "small"), uids[:16], shard_size=16, size=128)
        s3 = from_s3(small, sorted(small.glob("atlas/*.tar")))
    result = {
        "samples": count,
        "bytes_per_sample": nbytes / count,
        "time": "thread CPU",
        "ratio_to_decode": ms["webdataset_decode"] / ms["reader"],
        "ratio_to_raw": min(ms["raw"], ms["raw_into_memory"]) / ms["reader"],
        "samples_per_s": 1e3 * count / ms["reader"],
        "local": {
            name: {"samples_per_s": 1e3 * count / value, "gb_per_s": nbytes / value / 1e6}
            for name, value in ms.items()
        },
        "s3_test_server": s3,
    }
    keep("reader", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
