"""What it costs to fetch the views of small objects, and how long fits wait for them.

    python -m bench.inputs                  with fits of profile quick (a quarter of an hour)
    python -m bench.inputs --sleep 12       with pauses in their place

The object is the sample `spot`, 40 views of 256 px and 0.9 MB. Servers run in processes of their own: Ceph radosgw,
and for `waits` a link to it that adds 5 ms to each request and passes 50 MB/s.

`objects`, by how the views lie: `folder` (GObjaverse's layout in a bucket), `folder_with_maps` (the same with the
albedo, material and normal maps that a fit does not read), `transforms` (a folder with transforms.json), `tar`, and
`local`, the folder on disk. `everything` is `folder_with_maps` fetched as a loader without a selection does: all of
its files, one after the other.

    requests, bytes         to and from the store, for one object
    fetch_cpu_ms            of this process with all its threads, until the files are here (median)
    load_cpu_ms             from these files to decoded views, which costs the same wherever they lie
    requests_per_s_1024     requests a second of 1,024 slots whose fits take `fit_s`

`waits`, for one slot that fits object after object, by how the views lie and whether they are fetched ahead:

    share                   seconds from asking for the views until their files are here, of all seconds of the slot;
                            the first object, which nothing was fitted before, is left out
    first_s                 what the first one waited
    fit_s                   mean seconds between the views and the end of the fit
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median
from typing import Any

import boto3
from servers import radosgw, slow_link

from bench.record import keep
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.fitter.fit import fit_prepared
from gaussianverse.fitter.prepare import files_to_fit, load_to_fit, prepare
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.run import ahead, fetching, inputs
from gaussianverse.pipeline.run.costs import costs

SAMPLE = Path(__file__).parents[1] / "manifests" / "sample" / "spot"
BUCKET, REGION = "bench", "us-east-1"
LATENCY_S, BYTES_PER_S = 0.005, 50e6
SLOTS = 1024
COPIES = {"folder": 5, "folder_with_maps": 2, "transforms": 2, "tar": 5}
"""Objects of each layout, all alike."""
FORMATS = {"folder": "gobjaverse", "folder_with_maps": "gobjaverse", "transforms": "transforms", "tar": "gobjaverse"}
_TO_OPENGL = (1.0, -1.0, -1.0)


def sample() -> dict[str, bytes]:
    """Files of the sample, by their names in its folder."""
    return {p.relative_to(SAMPLE).as_posix(): p.read_bytes() for p in sorted(SAMPLE.rglob("*.*"))}


def layouts(files: dict[str, bytes]) -> dict[str, dict[str, bytes]]:
    """The objects to put below each object's name; the tar is of the name itself."""
    images = {name: data for name, data in files.items() if name.endswith(".png")}
    maps = {
        name.replace(".png", suffix): data for name, data in images.items() for suffix in ("_albedo.png", "_mr.png")
    }
    frames = []
    for name in images:
        camera = json.loads(files[name.replace(".png", ".json")])
        columns = [[sign * v for v in camera[axis]] for sign, axis in zip(_TO_OPENGL, "xyz", strict=True)]
        rows = [list(row) for row in zip(*columns, camera["origin"], strict=True)]
        frames.append({"file_path": name, "transform_matrix": rows, "camera_angle_x": camera["x_fov"]})
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"spot/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    transforms = {"transforms.json": json.dumps({"frames": frames}).encode(), **images}
    return {
        "folder": files,
        "folder_with_maps": files | maps,
        "transforms": transforms,
        "tar": {"": packed.getvalue()},
    }


def address(layout: str, copy: int) -> str:
    """Address of one of the copies of the object."""
    return f"s3://{BUCKET}/{layout}/{copy}{'.tar' if layout == 'tar' else ''}"


def upload(client: Any, found: dict[str, dict[str, bytes]]) -> None:
    for layout, files in found.items():
        for copy in range(COPIES[layout]):
            key = address(layout, copy).removeprefix(f"s3://{BUCKET}/")
            for name, data in files.items():
                client.put_object(Bucket=BUCKET, Key=f"{key}/{name}" if name else key, Body=data)


def cpu() -> float:
    """CPU seconds of this process and all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def one_after_the_other(store: StoreOptions, copy: int) -> None:
    """Fetch all files of an object, as a loader that knows nothing of it."""
    storage = fetching.place_of(address("folder_with_maps", copy), store)[0]
    with tempfile.TemporaryDirectory() as folder:
        for entry in fetching.files(storage, str(copy), fetching.MAX_BYTES):
            path = Path(folder) / entry.key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(storage.get(entry.key))


def per_object(link: slow_link.SlowLink, store: StoreOptions, rounds: int, fit_s: float) -> dict[str, Any]:
    """The table `objects`."""
    config = load("quick").fit
    spent: dict[str, list[tuple[float, float, int, int]]] = {}
    for round in range(rounds + 1):  # the first warms up
        for layout in (*FORMATS, "local", "everything"):
            link.took()
            started = cpu()
            copy = round % COPIES.get(layout, 2)
            if layout == "everything":
                one_after_the_other(store, copy)
                fetched = loaded = cpu()
            else:
                format = FORMATS.get(layout, "gobjaverse")
                place = str(SAMPLE) if layout == "local" else address(layout, copy)
                with inputs.local(place, store, files_to_fit(format, config)) as path:
                    fetched = cpu()
                    load_to_fit(path, format, config)
                    loaded = cpu()
            spent.setdefault(layout, []).append((fetched - started, loaded - fetched, *link.took()))
    found = {}
    for layout, taken in spent.items():
        fetch_s, load_s, requests, nbytes = (median(one[k] for one in taken[1:]) for k in range(4))
        found[layout] = {
            "requests": requests,
            "bytes": nbytes,
            "fetch_cpu_ms": 1e3 * fetch_s,
            "load_cpu_ms": 1e3 * load_s,
            "requests_per_s_1024": SLOTS * requests / fit_s,
        }
    return found


def waited(
    layout: str, store: StoreOptions, count: int, fit: Callable[[Any], None], *, before: bool
) -> dict[str, float]:
    """One slot that fits `count` objects, with views fetched ahead unless `before`."""
    config, format = load("quick").fit, FORMATS[layout]
    selection = files_to_fit(format, config)
    waits, fits = [], []
    with tempfile.TemporaryDirectory() as place:
        for k in range(count):
            started = time.perf_counter()
            with inputs.local(address(layout, k), store, selection, place) as path:
                there = time.perf_counter()
                views = load_to_fit(path, format, config)
            if not before and k + 1 < count:
                ahead.begin(address(layout, k + 1), store, selection, place)
            fit(prepare(views, config))
            waits.append(there - started)
            fits.append(time.perf_counter() - there)
    return {"share": sum(waits[1:]) / sum(waits[1:] + fits[1:]), "first_s": waits[0], "fit_s": fmean(fits)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--fits", type=int, default=5, help="objects of each slot of `waits`, at most 5")
    parser.add_argument("--sleep", type=float, default=0.0, help="seconds of a pause in place of each fit; 0 = fit")
    options = parser.parse_args(arguments)
    if reason := radosgw.why_not():
        print(f"bench-inputs measures on Ceph radosgw: {reason}", file=sys.stderr)
        return 1
    os.environ.update(AWS_ACCESS_KEY_ID=radosgw.ACCESS_KEY, AWS_SECRET_ACCESS_KEY=radosgw.SECRET_KEY)
    config, fit_s = load("quick").fit, costs()["quick"].seconds

    def fit(prepared: Any) -> None:
        if options.sleep:
            time.sleep(options.sleep)
        else:
            fit_prepared(prepared, config, seed=0)

    with tempfile.TemporaryDirectory() as folder, radosgw.serving(Path(folder)) as endpoint:
        client = boto3.session.Session().client("s3", endpoint_url=endpoint, region_name=REGION)
        client.create_bucket(Bucket=BUCKET)
        upload(client, layouts(sample()))
        with slow_link.linked(endpoint) as plain:
            objects = per_object(plain, StoreOptions(endpoint_url=plain.url, region=REGION), options.rounds, fit_s)
        with slow_link.linked(endpoint, latency_s=LATENCY_S, bytes_per_s=BYTES_PER_S) as slow:
            store = StoreOptions(endpoint_url=slow.url, region=REGION)
            waits = {
                layout: {
                    name: waited(layout, store, options.fits, fit, before=name == "without_ahead")
                    for name in ("without_ahead", "ahead")
                }
                for layout in ("folder", "tar")
            }
    keep(
        "inputs",
        {
            "time": "process CPU, wall for waits",
            "server": "Ceph radosgw",
            "fits": f"pauses of {options.sleep:g} s" if options.sleep else "profile quick",
            "fit_s": fit_s,
            "objects": objects,
            "waits": waits,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
