"""plan: predicts the cost of a run from its manifest and configuration alone. It runs and writes nothing."""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import ATLAS, CHANNELS, OK, SPLATS
from gaussianverse.atlas.store import is_s3, open_storage
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.fitter.threads import available_cores
from gaussianverse.manifests import runform
from gaussianverse.pipeline.arguments import add_config, add_json, add_manifest, config_of
from gaussianverse.pipeline.config import RunConfig
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.shards import committed_shards, journal_rows, read_commit
from gaussianverse.pipeline.dataset.versions import open_version
from gaussianverse.pipeline.errors import UsageError
from gaussianverse.pipeline.run.costs import OF_ATLAS, OF_REDUCTION, Cost, costs, settings_of
from gaussianverse.pipeline.run.inputs import resolve
from gaussianverse.pipeline.run.manifest import manifest_of
from gaussianverse.terminal import columns, folded

ON_GPUS, ON_CORES = "paper", "cpu"
"""Profiles whose kept seconds stand for those of profiles that have none, on GPUs and on cores."""

_FLOATS = 14  # means 3, scales 3, quats 4, opacity 1, colours 3
_OVERHEAD = 6 << 10  # bytes of tar headers, padding, facts, caption
_PUTS_PER_OBJECT, _GETS_PER_OBJECT = 4, 6
_PUTS_PER_SHARD = 9
_VIEWS = 40  # per object, as GObjaverse has them; a manifest does not say
_PUTS_PER_RUN = 8 + len(dataset_format.FINAL)  # run.json, the manifest, and two probes of three puts


@dataclass(frozen=True)
class Measured:
    """Means per object of another run: seconds of a stage and bytes of a sample."""

    fit_s: float
    atlas_s: float
    splats_nbytes: float
    atlas_nbytes: float
    objects: int
    device: str
    """Device of the fits."""


@dataclass(frozen=True)
class Plan:
    """Predicted cost. Hours are those of one GPU or one core; bytes are those in the store.

    `price` is in the unit of the price per hour; -1 without one.
    """

    objects: int
    shards: int
    slots: int
    seconds_per_fit: float
    seconds_per_atlas: float
    basis: str
    gpu_hours: float
    cpu_hours: float
    days: float
    price: float
    splats_bytes: int
    atlas_bytes: int
    work_bytes: int
    """Fragments, which `clean-work` deletes."""
    puts: int
    gets: int
    input_requests: int
    """To fetch views from S3, each once; 0 for views on disks."""
    requests_per_s: float
    """Puts, gets and those, while all slots are busy."""


def plan_of(
    manifest: runform.Source,
    config: RunConfig,
    *,
    slots: int,
    profile: str = "",
    seconds: float | None = None,
    measured: Measured | None = None,
    price_per_hour: float | None = None,
    base: str = "",
) -> Plan:
    """Predict the cost of a whole manifest.

    Args:
        manifest: objects.parquet.
        config: configuration of the run.
        slots: number of fits that run at once.
        profile: name of the profile that `config` comes from.
        seconds: seconds per fit, if known.
        measured: means of another run, used for seconds and bytes.
        price_per_hour: of one GPU with a share of cores, where fits run on GPUs, or else of one core.
        base: folder or prefix that relative `views` are relative to.

    Raises:
        UsageError: `slots`, `seconds` or the price is not positive.
    """
    if slots < 1:
        raise UsageError(f"slots {slots}: expected a number of at least 1")
    if seconds is not None and not 0 < seconds < math.inf:
        raise UsageError(f"seconds {seconds}: expected a number above 0")
    if price_per_hour is not None and not 0 <= price_per_hour < math.inf:
        raise UsageError(f"price per hour {price_per_hour}: expected a number of at least 0")
    extent = runform.extent_of(manifest)
    n_shards, objects = extent.shards, extent.objects
    last = runform.read_shard(manifest, n_shards - 1)
    fetches = statistics.fmean(_requests(resolve(one.views, base), one.format) for one in last)
    gpus = config.gpus_per_fit
    kept = costs()
    fit_s, basis = _known(kept, profile, config, gpus > 0)
    reduction_s = kept[OF_REDUCTION].seconds if _reduces(config) else 0.0
    fit_s += reduction_s  # a fit is measured as its atlas will hold it
    atlas_s = kept[OF_ATLAS].seconds + reduction_s
    basis += f", and {reduction_s:.0f} s of reduction on a core" if reduction_s else ""
    splat = config.fit.tau * _FLOATS * 4 + _OVERHEAD
    atlas = config.atlas.size**2 * CHANNELS * (2 if config.atlas.dtype == "float16" else 4) + _OVERHEAD
    if measured is not None:
        fit_s, atlas_s = measured.fit_s, measured.atlas_s
        splat, atlas = round(measured.splats_nbytes), round(measured.atlas_nbytes)
        basis = f"the mean of {measured.objects} objects on {measured.device}"
    if seconds is not None:
        fit_s, basis = seconds, "as given"
    per_object = fit_s + (0.0 if gpus else atlas_s)  # with GPUs, atlases run on cores that fits leave idle
    gpu_hours = objects * fit_s / 3600 * gpus
    cpu_hours = objects * (atlas_s + (0.0 if gpus else fit_s)) / 3600
    paid = gpu_hours if gpus else cpu_hours
    return Plan(
        objects=objects,
        shards=n_shards,
        slots=slots,
        seconds_per_fit=fit_s,
        seconds_per_atlas=atlas_s,
        basis=basis,
        gpu_hours=gpu_hours,
        cpu_hours=cpu_hours,
        days=objects * per_object / slots / 86400,
        price=-1.0 if price_per_hour is None else paid * price_per_hour,
        splats_bytes=objects * splat,
        atlas_bytes=objects * atlas,
        work_bytes=objects * (splat + atlas),
        puts=objects * _PUTS_PER_OBJECT + n_shards * _PUTS_PER_SHARD + _PUTS_PER_RUN,
        gets=objects * _GETS_PER_OBJECT,
        input_requests=round(objects * fetches),
        requests_per_s=slots * (_PUTS_PER_OBJECT + _GETS_PER_OBJECT + fetches) / per_object,
    )


def _requests(address: str, format: str) -> int:
    """Requests that fetch an object's views, taken for `_VIEWS` of them; see `run.fetching`."""
    if not is_s3(address):
        return 0
    if "." in address.rpartition("/")[2]:
        return 1
    return 1 + _VIEWS if format == "transforms" else 1 + 2 * _VIEWS


def _reduces(config: RunConfig) -> bool:
    """Whether fits may have more Gaussians than an atlas has cells, and are refined to them."""
    return config.fit.tau > config.atlas.size**2 and config.reduce.rule == "refine"


def _known(kept: Mapping[str, Cost], profile: str, config: RunConfig, on_gpus: bool) -> tuple[float, str]:
    """Seconds per fit from the kept costs, and a sentence of what they are of."""
    name = profile if profile in kept and profile else ON_GPUS if on_gpus else ON_CORES
    cost = kept[name]
    basis = f"profile {name} on {cost.device}, {cost.source}"
    if name != profile:
        return cost.seconds, f"{basis}; profile {profile or 'default'} was not measured, --like OUT takes a run's own"
    if config.fit != settings_of(name):
        return cost.seconds, f"{basis}; with other settings, which --like OUT takes from a run"
    return cost.seconds, basis


def measure(storage: Storage, shards: Iterable[int], most: int = 8) -> Measured:
    """Measure a run over up to `most` of these of its shards that are committed.

    Raises:
        UsageError: no shard is committed in both stages with a sample.
    """
    seconds: dict[str, list[float]] = {stage: [] for stage in layout.STAGES}
    nbytes: dict[str, list[int]] = {stage: [] for stage in layout.STAGES}
    devices: Counter[str] = Counter()
    committed = committed_shards(storage)
    complete = [k for k in shards if all((stage, k) in committed for stage in layout.STAGES)]
    for shard in complete[:most]:
        for stage in layout.STAGES:
            commit, tar = read_commit(storage, stage, shard), dataset_format.shard_tar(stage, shard)
            if tar not in commit["files"]:
                raise UsageError(
                    f"{storage.url}: a part without {stage}; give --seconds, or --like the whole dataset"
                )
            size = commit["files"][tar]["nbytes"]
            nbytes[stage] += [size // max(1, commit["samples"])] * commit["samples"]
            entries = [
                e
                for e in journal_rows(storage, stage, shard)
                if e["status"] == OK and e["seconds"] > 0 and e["attempts"] != 0  # 0: taken over
            ]
            seconds[stage] += [float(e["seconds"]) for e in entries]
            devices.update(str(e["device"]) or "unknown" for e in entries if stage == SPLATS)
    if not all((*seconds.values(), *nbytes.values())):
        raise UsageError(f"{storage.url}: no finished shard to measure; give --seconds instead of --like")
    return Measured(
        fit_s=statistics.fmean(seconds[SPLATS]),
        atlas_s=statistics.fmean(seconds[ATLAS]),
        splats_nbytes=statistics.fmean(nbytes[SPLATS]),
        atlas_nbytes=statistics.fmean(nbytes[ATLAS]),
        objects=len(seconds[SPLATS]),
        device=" and ".join(sorted(devices)),
    )


def plan_text(plan: Plan) -> str:
    """Format a plan for people."""
    return "\n".join(
        [
            f"{plan.objects} objects in {plan.shards} shards, {plan.slots} fits at once",
            f"  a fit     {_amount(plan.seconds_per_fit):>10} s ({plan.basis})",
            *([f"  GPUs      {_amount(plan.gpu_hours):>10} GPU-hours"] if plan.gpu_hours else []),
            f"  cores     {_amount(plan.cpu_hours):>10} core-hours",
            *([f"  price     {_amount(plan.price):>10}"] if plan.price >= 0 else []),
            f"  wall      {_wall(plan.days)}, without pauses or retries",
            f"  splats    {_amount(plan.splats_bytes / 1e9):>10} GB",
            f"  atlases   {_amount(plan.atlas_bytes / 1e9):>10} GB",
            f"  scratch   {_amount(plan.work_bytes / 1e9):>10} GB, until clean-work",
            f"  requests  {plan.puts:>10,} puts, {plan.gets:,} gets"
            + (f", and {plan.input_requests:,} for views" if plan.input_requests else "")
            + f"; {_amount(plan.requests_per_s)} a second",
        ]
    )


def _amount(value: float) -> str:
    """A number of three digits or more, so that small ones do not become 0."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 1e-3 or not value else f"{value:.3f}".replace("0.000", "under 0.001")


def _wall(days: float) -> str:
    for unit, of_a_day in (("days", 1), ("hours", 24), ("minutes", 1440)):
        if days * of_a_day >= 2:
            return f"{_amount(days * of_a_day):>10} {unit}"
    return f"{_amount(days * 86400):>10} seconds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse plan`."""
    add_manifest(parser)
    parser.add_argument("--slots", type=int, help="fits that run at once; default: the cores of this machine")
    parser.add_argument("--seconds", type=float, help="seconds per fit, if known")
    parser.add_argument(
        "--price-per-hour",
        type=float,
        metavar="MONEY",
        help="price of one GPU with its cores for an hour or, where fits run on cores, of one core",
    )
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
        measured = measure(storage, open_version(storage).shards)
    slots = args.slots if args.slots is not None else config.ray.workers or available_cores()
    made = plan_of(
        manifest.data,
        config,
        slots=slots,
        profile=args.profile,
        seconds=args.seconds,
        measured=measured,
        price_per_hour=args.price_per_hour,
        base=manifest.base,
    )
    print(json.dumps(asdict(made)) if args.json else folded(plan_text(made), columns()))
    return 0
