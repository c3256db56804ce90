"""Small planned runs: made-up fragments for tests that need no fits, tiny objects for those that do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from analytic import ball_views
from PIL import Image

from gaussianverse.atlas import AtlasConfig, Gaussians, pack
from gaussianverse.atlas.configuration import from_table
from gaussianverse.atlas.dataset_format import ATLAS, OK, SPLATS, VIEWS
from gaussianverse.atlas.gaussians import canonical_quats
from gaussianverse.atlas.store import StoreOptions
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.manifests import runform
from gaussianverse.manifests.schema import Row
from gaussianverse.pipeline.config import RunConfig, load
from gaussianverse.pipeline.dataset import layout, members, records, run_file
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.policy import seed_of
from gaussianverse.pipeline.run import job, tasks
from gaussianverse.pipeline.run.executor import FIT, PACK, Job, Task

PATIENCE_S = 900.0
"""After this long a test gives up waiting: on a machine that others use, a run of seconds may take minutes."""


def manifest_row(index: int, uid: str, shard: int = 0) -> dict[str, Any]:
    return {
        "index": index, "uid": uid, "shard": shard, "views": f"views/{uid}", "format": "auto", "category": "",
        "license": "CC0-1.0", "caption": f"caption of {uid}: é", "caption_source": "hand", "source_id": "",
        "captions": [f"caption of {uid}: é"], "caption_sources": ["hand"], "split": "", "attribution": "",
        "fault": "",
    }  # fmt: skip


def planned(storage: Storage, uids: list[str], shard_size: int = 256) -> Run:
    """Plan a run whose objects do not exist."""
    rows = [Row(uid, f"views/{uid}", license="CC0-1.0", caption=f"caption of {uid}") for uid in uids]
    manifest = runform.encode(rows, shard_size=shard_size)
    config = from_table(RunConfig, {"run": {"shard_size": shard_size}, "atlas": {"size": 8}})
    frozen = run_file.identity_of(manifest, config, members.representation(config.atlas))
    return run_file.establish(storage, manifest, frozen)


@cache
def data_of(stage: str, uid: str) -> bytes:
    """The main member of a made-up object: real Gaussians, and an atlas of 8 x 8 cells that unpacks."""
    rng = np.random.default_rng(list(uid.encode()))
    gaussians = Gaussians(
        rng.uniform(-1, 1, (40, 3)), rng.uniform(0.01, 0.1, (40, 3)), canonical_quats(rng.normal(size=(40, 4))),
        rng.uniform(0.1, 1, 40), rng.uniform(0, 1, (40, 3)),
    )  # fmt: skip
    splats = bytes(gaussians.to_bytes())
    return splats if stage == SPLATS else atlas_of(splats)


@cache
def atlas_of(splats: bytes) -> bytes:
    """The .npy file of the atlas, 8 x 8 cells, of these Gaussians."""
    return bytes(pack(Gaussians.from_bytes(splats), AtlasConfig(size=8, min_smoothness=0.0)).to_bytes())


def publish_one(
    storage: Storage, run: Run, stage: str, row: dict[str, Any], *, data: bytes | None, attempts: int = 1
) -> None:
    """Publish a sample with these bytes, or a quarantine if `data` is None."""
    watch = records.Stopwatch(attempts)
    if data is None:
        why = {"reason": "bad_input", "error_class": "BadInput", "error_message": "it is bad"}
        records.publish_quarantine(storage, stage, row, run, why, watch)
    else:
        facts = records.facts_of(stage, row, run, status=OK, **_facts_about(stage, run, row, data))
        records.publish_sample(storage, stage, facts, data, watch, {"peak_mb": 1.0})


def _facts_about(stage: str, run: Run, row: dict[str, Any], data: bytes) -> dict[str, Any]:
    """The facts that `verify` compares with settings and arrays, where these are of a made-up object."""
    if stage == VIEWS or not data.startswith((b"PK", b"\x93NUMPY")):
        return {}
    if stage == ATLAS:
        return {"n_gaussians": 40, "n_padded": 24, "n_dropped": 0, "size": 8}
    seed = seed_of(run.settings.seed, str(row["uid"]), 0)
    return {"n_gaussians": 40, "steps": run.fit.steps, "seed": seed, **Gaussians.from_bytes(data).bounds()}


def publish_all(
    storage: Storage, run: Run, stage: str, *, quarantined: set[str] | None = None, attempts: int = 1
) -> None:
    """Publish a fragment of every object of every shard."""
    for shard in range(run.n_shards):
        for row in shard_rows(storage, run, shard):
            data = None if row["uid"] in (quarantined or set()) else data_of(stage, row["uid"])
            publish_one(storage, run, stage, {**row, "shard": shard}, data=data, attempts=attempts)


TINY = (
    "fit.size=32", "fit.start_size=0", "fit.tau=200", "fit.initial_anchors=60", "fit.steps=100",
    "fit.relocate_every=10", "fit.growth.adjust_every=10", "atlas.size=16", "atlas.min_smoothness=0.0",
)  # fmt: skip
"""Overrides that make profile `test` take a fraction of a second per object; the result shows nothing."""


def tiny_arguments() -> list[str]:
    return ["--profile", "test", *(part for override in TINY for part in ("--set", override))]


def write_views(folder: Path, seed: int = 0, count: int = 10, size: int = 32) -> Path:
    """Write views of a ball, in colours that depend on the seed, in GObjaverse's layout."""
    views = ball_views(count, size)
    images = views.images.copy()
    images[..., :3] = np.roll(images[..., :3], seed, axis=-1) ^ (255 * (seed // 3 % 2))
    for name, image, c2w in zip(views.names, images, views.c2w, strict=True):
        (folder / name).mkdir(parents=True)
        Image.fromarray(image).save(folder / name / f"{name}.png")
        columns = dict(zip(("x", "y", "z", "origin"), c2w[:3].T.tolist(), strict=True))
        camera = {**columns, "x_fov": 0.6911503, "y_fov": 0.6911503}
        (folder / name / f"{name}.json").write_text(json.dumps(camera))
    return folder


def write_manifest(folder: Path, uids: Iterable[str], **fields: str) -> Path:
    """Write a manifest of objects whose views are in views/<uid> beside it."""
    path = folder / "objects.jsonl"
    rows = [
        {"uid": uid, "views": f"views/{uid}", "license": "CC0-1.0", "caption": f"a ball: {uid}", **fields}
        for uid in uids
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _ignored(*args: Any, **options: Any) -> None: ...


class InProcess:
    """An `Executor` without Ray that runs the real tasks one after the other, at submission."""

    metrics = SimpleNamespace(
        **{
            kind: lambda *args, **options: SimpleNamespace(**dict.fromkeys(("inc", "set", "observe"), _ignored))
            for kind in ("Counter", "Gauge", "Histogram")
        }
    )

    def __init__(self, given: Job) -> None:
        self._job, self._ended = given, dict[int, Facts]()
        self.names: list[str] = []

    def slots(self) -> int:
        return 1

    def shares(self) -> dict[str, float]:
        return {}

    def submit(self, task: Task) -> int:
        attempt = task.history.attempts + 1
        if task.kind == PACK:
            result = tasks.pack_shard(self._job, task.stage, task.shard)
        elif task.kind == FIT:
            result = tasks.fit_object(self._job, task.row, attempt, task.history.count("nan_loss"))
        else:
            result = tasks.atlas_object(self._job, task.row, attempt)
        self.names.append(task.name)
        self._ended[len(self.names)] = result
        return len(self.names)

    def wait(self, handles: Sequence[Hashable], timeout_s: float) -> list[Hashable]:
        return list(handles)

    def result(self, handle: Hashable) -> Facts:
        return self._ended.pop(handle)  # type: ignore[arg-type]

    def cancel(self, handle: Hashable) -> None:
        raise AssertionError("nothing runs long enough here")


@contextmanager
def in_process(config: RunConfig, given: Job) -> Iterator[InProcess]:
    """Stands in for `pipeline.run.ray_start.ray_executor`."""
    yield InProcess(given)


def build_in_process(*args: Any, executor: Any = in_process, **options: Any) -> job.Outcome:
    """`job.build` without Ray."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(job, "ray_executor", executor)
        return job.build(*args, **options)


def dataset(storage: Storage) -> dict[str, bytes]:
    """All files that SHA256SUMS covers."""
    return {e.key: storage.get(e.key) for e in storage.list("") if layout.in_dataset(e.key)}


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """Keys under which two datasets differ; their bytes would fill many screens."""
    return sorted(key for key in {*one, *other} if one.get(key) != other.get(key))


def write_inputs(folder: Path, uids: Iterable[str], **fields: str) -> str:
    """Write views of a ball for each object, in different colours, and their manifest; returns its path."""
    uids = list(uids)
    for seed, uid in enumerate(uids):
        write_views(folder / "views" / uid, seed)
    return str(write_manifest(folder, uids, **fields))


def finished(out: Path | str, manifest: str, *overrides: str, store: StoreOptions | None = None) -> str:
    """Build a dataset of tiny fits, overrides after those of `TINY`, in this process; returns where it is."""
    config = load("test", [*TINY, *overrides])
    if store:
        config = replace(config, store=store)
    storage, run, base = job.plan(str(out), manifest, config)
    assert build_in_process(storage, run, config, base).finalized
    return str(out)


def undisturbed_dataset(out: Path, manifest: str, config: RunConfig) -> dict[str, bytes]:
    """The dataset that one undisturbed process makes of a manifest, in a folder."""
    storage, run, base = job.plan(str(out), manifest, config)
    build_in_process(storage, run, config, base)
    return dataset(storage)


def until(condition: Callable[[], Any]) -> Any:
    """Wait until `condition` is true; returns its value."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("it never came to that")
