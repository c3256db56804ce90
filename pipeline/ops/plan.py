"""plan: predicts the cost of a run from its manifest and configuration alone. It runs and writes nothing."""

from __future__ import annotations

import argparse
import io
import json
import statistics
from dataclasses import asdict, dataclass

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import ATLAS, CHANNELS, OK, SPLATS
from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.fitter.threads import available_cores
from gaussianverse.manifests import runform
from gaussianverse.pipeline.arguments import add_config, add_json, add_manifest, config_of
from gaussianverse.pipeline.config import RunConfig
from gaussianverse.pipeline.dataset import layout, run_file
from gaussianverse.pipeline.dataset.shards import committed_shards, journal_rows, read_commit
from gaussianverse.pipeline.errors import UsageError
from gaussianverse.pipeline.run.manifest import manifest_of

# seconds per object if nothing was measured
PAPER_FIT_S = 600.0
"""On one GPU, from the paper."""
CPU_FIT_S = 90.0
"""Profile `cpu` on one laptop core."""
ATLAS_S = 4.0
"""Two exact transports and the packing, on one core."""

_FLOATS = 14  # means 3, scales 3, quats 4, opacity 1, colours 3
_OVERHEAD = 6 << 10  # bytes of tar headers, padding, facts, caption
_PUTS_PER_OBJECT, _GETS_PER_OBJECT = 4, 6
_PUTS_PER_SHARD = 9
_PUTS_PER_RUN = 8 + len(dataset_format.FINAL)  # run.json, the manifest, and two probes of three puts


@dataclass(frozen=True)
class Measured:
    """Means per object of another run: seconds of a stage and bytes of a sample."""

    fit_s: float
    atlas_s: float
    splats_nbytes: float
    atlas_nbytes: float
    objects: int


@dataclass(frozen=True)
class Plan:
    """Predicted cost. Hours are those of one GPU or one core; bytes are those in the store."""

    objects: int
    shards: int
    slots: int
    seconds_per_fit: float
    seconds_per_atlas: float
    basis: str
    gpu_hours: float
    cpu_hours: float
    days: float
    splats_bytes: int
    atlas_bytes: int
    work_bytes: int
    """Fragments, which `clean-work` deletes."""
    puts: int
    gets: int


def plan_of(
    manifest: bytes, config: RunConfig, *, slots: int, seconds: float | None = None, measured: Measured | None = None
) -> Plan:
    """Predict the cost of a whole manifest.

    Args:
        manifest: bytes of objects.parquet.
        config: configuration of the run.
        slots: number of fits that run at once.
        seconds: seconds per fit, if known.
        measured: means of another run, used for seconds and bytes.

    Raises:
        UsageError: `slots` or `seconds` is not positive.
    """
    if slots < 1 or (seconds is not None and seconds <= 0):
        raise UsageError(f"slots {slots}, seconds {seconds}: both must be positive")
    n_shards = runform.count_shards(io.BytesIO(manifest))
    objects = runform.read_shard(io.BytesIO(manifest), n_shards - 1)[-1].index + 1
    gpus = config.gpus_per_fit
    fit_s, basis = (PAPER_FIT_S, "the paper's") if gpus else (CPU_FIT_S, "profile cpu on a laptop core")
    atlas_s = ATLAS_S
    splat = config.fit.tau * _FLOATS * 4 + _OVERHEAD
    atlas = config.atlas.size**2 * CHANNELS * (2 if config.atlas.dtype == "float16" else 4) + _OVERHEAD
    if measured is not None:
        fit_s, atlas_s = measured.fit_s, measured.atlas_s
        splat, atlas = round(measured.splats_nbytes), round(measured.atlas_nbytes)
        basis = f"the mean of {measured.objects} objects"
    if seconds is not None:
        fit_s, basis = seconds, "as given"
    per_object = fit_s + (0.0 if gpus else atlas_s)  # with GPUs, atlases run on cores that fits leave idle
    hours = objects * fit_s / 3600
    return Plan(
        objects=objects,
        shards=n_shards,
        slots=slots,
        seconds_per_fit=fit_s,
        seconds_per_atlas=atlas_s,
        basis=basis,
        gpu_hours=hours * gpus,
        cpu_hours=objects * (atlas_s + (0.0 if gpus else fit_s)) / 3600,
        days=objects * per_object / slots / 86400,
        splats_bytes=objects * splat,
        atlas_bytes=objects * atlas,
        work_bytes=objects * (splat + atlas),
        puts=objects * _PUTS_PER_OBJECT + n_shards * _PUTS_PER_SHARD + _PUTS_PER_RUN,
        gets=objects * _GETS_PER_OBJECT,
    )


def measure(storage: Storage, n_shards: int, most: int = 8) -> Measured:
    """Measure a run over up to `most` of its committed shards.

    Raises:
        UsageError: no shard is committed in both stages with a sample.
    """
    seconds: dict[str, list[float]] = {stage: [] for stage in layout.STAGES}
    nbytes: dict[str, list[int]] = {stage: [] for stage in layout.STAGES}
    committed = committed_shards(storage)
    complete = [k for k in range(n_shards) if all((stage, k) in committed for stage in layout.STAGES)]
    for shard in complete[:most]:
        for stage in layout.STAGES:
            commit = read_commit(storage, stage, shard)
            size = commit["files"][dataset_format.shard_tar(stage, shard)]["nbytes"]
            nbytes[stage] += [size // max(1, commit["samples"])] * commit["samples"]
            spent = [float(e["seconds"]) for e in journal_rows(storage, stage, shard) if e["status"] == OK]
            seconds[stage] += [value for value in spent if value > 0]
    if not all((*seconds.values(), *nbytes.values())):
        raise UsageError(f"{storage.url}: no finished shard to measure; give --seconds instead of --like")
    return Measured(
        fit_s=statistics.fmean(seconds[SPLATS]),
        atlas_s=statistics.fmean(seconds[ATLAS]),
        splats_nbytes=statistics.fmean(nbytes[SPLATS]),
        atlas_nbytes=statistics.fmean(nbytes[ATLAS]),
        objects=len(seconds[SPLATS]),
    )


def plan_text(plan: Plan) -> str:
    """Format a plan for people."""
    return "\n".join(
        [
            f"{plan.objects} objects in {plan.shards} shards, {plan.slots} fits at once",
            f"  a fit     {plan.seconds_per_fit:>10.1f} s ({plan.basis})",
            f"  GPUs      {plan.gpu_hours:>10.1f} hours",
            f"  cores     {plan.cpu_hours:>10.1f} hours",
            f"  wall      {plan.days:>10.2f} days, without pauses or retries",
            f"  splats    {plan.splats_bytes / 1e9:>10.2f} GB",
            f"  atlases   {plan.atlas_bytes / 1e9:>10.2f} GB",
            f"  scratch   {plan.work_bytes / 1e9:>10.2f} GB, until clean-work",
            f"  requests  {plan.puts:>10} puts, {plan.gets} gets",
        ]
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse plan`."""
    add_manifest(parser)
    parser.add_argument(
        "--slots", type=int, default=0, help="fits that run at once; default: the cores of this machine"
    )
    parser.add_argument("--seconds", type=float, help="seconds per fit, if known")
    parser.add_argument("--like", default="", help="output of another run to take seconds and bytes from")
    add_config(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the plan; returns the exit code."""
    config = config_of(args)
    manifest = manifest_of(args, config)
    measured = None
    if args.like:
        storage = open_storage(args.like, config.store)
        measured = measure(storage, run_file.load(storage).n_shards)
    slots = args.slots or config.ray.workers or available_cores()
    made = plan_of(manifest.data, config, slots=slots, seconds=args.seconds, measured=measured)
    print(json.dumps(asdict(made)) if args.json else plan_text(made))
    return 0
