"""Batches of 64 standardised atlases from other projects' readers, each in a process of its own.

`python reader_batches.py read KIND PLACE STATISTICS EPOCHS` prints a JSON line: CPU milliseconds per sample of the
process and of its one worker. `write KIND DATASET FOLDER` writes a dataset in another project's format. It imports
nothing of this project, so that it also runs in an environment of others' pins.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

BATCH = 64
_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


def cpu_of(process: int) -> float:
    """CPU seconds of a process and all its threads."""
    return time.clock_gettime((~process << 3) | 2)


class Standardised:
    """Batches of float32 [B, 128, 128, 16] less their mean, over their deviation."""

    def __init__(self, statistics: str) -> None:
        arrays = np.load(statistics)
        self.mean, self.std = torch.from_numpy(arrays["mean"]), torch.from_numpy(arrays["std"])

    def __call__(self, arrays: list[Any]) -> torch.Tensor:
        return torch.stack([torch.as_tensor(array) for array in arrays]).sub_(self.mean).div_(self.std)


def webdataset_loader(urls: str, standardised: Standardised) -> Any:
    """webdataset: its own decoder, its own batches; `urls` are separated by spaces."""
    import webdataset as wds

    wds.gopen_schemes["s3"] = open_s3
    # there is no shuffle in the way of its sequential reads
    dataset = wds.WebDataset(urls.split(), shardshuffle=False).decode().to_tuple("atlas.npy", "txt", "json")
    dataset = dataset.batched(BATCH, collation_fn=partial(_triples, standardised))
    return wds.WebLoader(dataset, batch_size=None, num_workers=1, persistent_workers=True)


def open_s3(url: str, mode: str = "rb", bufsize: int = 8192) -> Any:
    """An object of S3 as a stream: webdataset has no handler of its own."""
    import boto3

    client = boto3.session.Session().client("s3", endpoint_url=os.environ["BENCH_S3"], region_name="us-east-1")
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return client.get_object(Bucket=bucket, Key=key)["Body"]


def raw_loader(folder: str, standardised: Standardised) -> Any:
    """The bytes of each sample as they lie in the tars, read at their offsets, and nothing checked or parsed."""
    places = []
    for path in sorted(Path(folder).glob("atlas/*.tar")):
        with tarfile.open(path) as tar:
            places += [(str(path), m.offset_data, m.size) for m in tar if m.name.endswith(".npy")]
    how = {"num_workers": 1, "persistent_workers": True}
    return DataLoader(places, BATCH, collate_fn=partial(_raw, standardised), **how)  # type: ignore[arg-type]


def _raw(standardised: Standardised, places: list[Any]) -> tuple[torch.Tensor, list[Any]]:
    arrays = []
    for path, offset, nbytes in places:
        with open(path, "rb", buffering=0) as file:
            file.seek(offset + 128)
            arrays.append(torch.frombuffer(bytearray(file.read(nbytes - 128)), dtype=torch.float32))
    return standardised([array.view(128, 128, 16) for array in arrays]), places


def _triples(standardised: Standardised, samples: list[Any]) -> tuple[torch.Tensor, list[str], list[Any]]:
    arrays, captions, rows = zip(*samples, strict=True)
    return standardised(list(arrays)), list(captions), list(rows)


def _dicts(standardised: Standardised, samples: list[dict[str, Any]]) -> tuple[torch.Tensor, list[str], list[Any]]:
    arrays = [sample["atlas"] for sample in samples]
    return standardised(arrays), [s["caption"] for s in samples], [s["row"] for s in samples]


def mds_loader(folder: str, standardised: Standardised) -> Any:
    """mosaicml-streaming: MDS shards, arrays in its own encoding."""
    _prepare_torchvision()
    from streaming import StreamingDataset

    dataset = StreamingDataset(local=folder, shuffle=False, batch_size=BATCH)
    how = {"num_workers": 1, "persistent_workers": True}
    return DataLoader(dataset, BATCH, collate_fn=partial(_dicts, standardised), **how)


def litdata_loader(folder: str, standardised: Standardised) -> Any:
    """litdata: its own chunks and its own loader."""
    from litdata import StreamingDataLoader, StreamingDataset

    how = {"num_workers": 1, "persistent_workers": True}
    return StreamingDataLoader(
        StreamingDataset(folder), batch_size=BATCH, collate_fn=partial(_dicts, standardised), **how
    )


def _prepare_torchvision() -> None:
    """mosaicml-streaming imports torchvision, whose import fails beside a CPU build of torch for want of `nms`."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        for operator in ("nms", "qnms"):
            _LIBRARY.define(f"{operator}(Tensor boxes, Tensor scores, float threshold) -> Tensor")


def samples_of(folder: str) -> Iterator[dict[str, Any]]:
    """The samples of all shards of this project, to be written again."""
    for path in sorted(Path(folder).glob("atlas/*.tar")):
        members: dict[str, bytes] = {}
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                members[member.name.partition(".")[2]] = file.read()
                if len(members) == 3:
                    array = np.load(io.BytesIO(members["atlas.npy"]))
                    yield {"atlas": array, "caption": members["txt"].decode(), "row": json.loads(members["json"])}
                    members = {}


def write_mds(folder: str, out: str) -> None:
    """Write the samples as MDS shards of 256 MB."""
    _prepare_torchvision()
    from streaming import MDSWriter

    columns = {"atlas": "ndarray:float32:128,128,16", "caption": "str", "row": "json"}
    with MDSWriter(out=out, columns=columns, size_limit=1 << 28) as writer:
        for sample in samples_of(folder):
            writer.write(sample)


def write_litdata(folder: str, out: str) -> None:
    """Write the samples as litdata chunks of 256 MB."""
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(out, chunk_bytes=1 << 28)
    for number, sample in enumerate(samples_of(folder)):
        row = json.dumps(sample["row"])
        writer.add_item(number, {**sample, "atlas": torch.from_numpy(sample["atlas"]), "row": row})
    writer.done()
    writer.merge(1)


WRITERS: dict[str, Callable[[str, str], None]] = {"mds": write_mds, "litdata": write_litdata}
LOADERS: dict[str, Callable[[str, Standardised], Any]] = {
    "raw": raw_loader, "webdataset": webdataset_loader, "mds": mds_loader, "litdata": litdata_loader,
}  # fmt: skip


def children() -> dict[int, float]:
    """CPU seconds of each process that this one started, by its number."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(") ")[2].split()[1])
            if parent == os.getpid():
                found[int(path.parent.name)] = cpu_of(int(path.parent.name))
        except OSError:
            continue
    return found


def measured(batches: Callable[[], Any], epochs: int) -> dict[str, Any]:
    """Milliseconds of CPU time per sample, of this process and of its workers, which stay from epoch to epoch.

    Returns:
        Those of the median epoch; the first one, in which the workers start, does not count.
    """
    found: list[dict[str, Any]] = []
    for _ in range(epochs + 1):
        count, before, own, wall = 0, children(), time.process_time(), time.perf_counter()
        for batch in batches():
            count += len(batch[1])
        workers = sum(seconds - before.get(process, 0.0) for process, seconds in children().items())
        times = {"main_ms": time.process_time() - own, "workers_ms": workers}
        found.append({name: 1e3 * value / count for name, value in times.items()})
        found[-1] |= {"samples": count, "samples_per_s": count / (time.perf_counter() - wall)}
        found[-1]["ms"] = found[-1]["main_ms"] + found[-1]["workers_ms"]
    return sorted(found[1:], key=lambda one: float(one["ms"]))[epochs // 2]


if __name__ == "__main__":
    what, kind, source, target = sys.argv[1:5]
    if what == "write":
        WRITERS[kind](source, target)
    else:
        torch.set_num_threads(1)
        loader = LOADERS[kind](source, Standardised(target))
        epochs = sys.argv[5]
        sys.stdout.write(json.dumps(measured(lambda: loader, int(epochs))) + "\n")
