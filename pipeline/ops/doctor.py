"""doctor: checks whether this machine or a cluster, a store and the inputs can do the work of a run."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, replace

from gaussianverse.atlas.store.errors import StoreError
from gaussianverse.fitter.threads import available_cores
from gaussianverse.manifests import runform
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.pipeline.arguments import add_config, add_json, building_config_of
from gaussianverse.pipeline.config import RunConfig
from gaussianverse.pipeline.dataset import provenance
from gaussianverse.pipeline.errors import PipelineError, message
from gaussianverse.pipeline.node import clock, ray_doors
from gaussianverse.pipeline.node.gpu import Finding
from gaussianverse.pipeline.run import examining, inputs, ray_nodes
from gaussianverse.pipeline.run.examining import Asked
from gaussianverse.pipeline.run.manifest import read_manifest
from gaussianverse.pipeline.run.ray_start import connected
from gaussianverse.pipeline.run.splat_files import split_address


def examine(config: RunConfig, out: str = "", *, manifest: str = "", render: bool = False) -> Iterator[Finding]:
    """Check everything that a run needs, one finding after the other.

    With `config.ray.address` the cluster's nodes do the work, so each is checked in place of this machine.

    Args:
        config: of the run.
        out: address of the output; "" = check no store.
        manifest: address of the manifest, whose first and last object must have views; "" = none.
        render: whether meshes are to be drawn.
    """
    system = f"{platform.python_version()} on {platform.machine()}, {available_cores()} cores"
    yield Finding("python", True, system)
    versions = {**provenance.versions(), "ray": importlib.metadata.version("ray")}
    listed = ", ".join(f"{name} {version or 'not installed'}" for name, version in sorted(versions.items()))
    yield Finding("versions", True, listed)
    yield ray_doors.examine()
    asked = Asked(config, out, render=render)
    if manifest:
        finding, views = _manifest(manifest, config)
        yield finding
        asked = replace(asked, views=views)
    if not config.ray.address:
        yield from examining.work(asked)
    yield from examining.stores(asked)
    if config.ray.address:
        yield from _cluster(asked)


def _manifest(address: str, config: RunConfig) -> tuple[Finding, tuple[str, ...]]:
    """Whether a manifest can be read, and the addresses of its first and last objects' views."""
    try:
        found = read_manifest(address, config.run.shard_size, config.store)
    except (ManifestError, PipelineError, StoreError, OSError) as error:
        return Finding("manifest", False, message(error)), ()
    with runform.opened(found.data) as file:
        ends = [file.read(k, k + 1, ["views", "fault"]) for k in (0, len(file) - 1)]
        count = file.rows
    good = [row["views"] for table in ends for row in table.to_pylist() if not row["fault"]]
    addresses = [inputs.resolve(split_address(views)[0], found.base) for views in (good[:1] + good[-1:])]
    text = f"{address}: {count} objects, {len(found.faults)} of them in faulty rows"
    return Finding("manifest", True, text), tuple(dict.fromkeys(addresses))


def _cluster(asked: Asked) -> Iterator[Finding]:
    """Join the cluster, and check each of its nodes."""
    config = asked.config
    try:
        with connected(config) as ray:
            nodes = ray_nodes.living(ray)
            fitting = [node for node in nodes if ray_nodes.can_fit(node, config.gpus_per_fit)]
            needs = f"a core and {config.gpus_per_fit:g} GPUs" if config.gpus_per_fit else "a core"
            yield Finding(
                "cluster", True, f"{config.ray.address}: {len(nodes)} nodes, {len(fitting)} of them with {needs} for "
                "fits; those that join later are not checked",
            )  # fmt: skip
            before = clock.now()
            for address, told in ray_nodes.on_each(ray, nodes, clock.now, cpus=0):
                if isinstance(told, float):
                    judged = clock.judge("its clock", told, before, clock.now())
                    if not judged.ok:
                        yield replace(judged, text=f"node {address}: {judged.text}")
            for address, found in ray_nodes.on_each(
                ray, fitting, examining.faults, asked, gpus=config.gpus_per_fit
            ):  # fmt: skip
                if isinstance(found, PipelineError):
                    found = [Finding("node", False, message(found))]
                yield from (replace(one, text=f"node {address}: {one.text}") for one in found)
                if not found:
                    yield Finding("node", True, f"{address}: can do the work")
    except PipelineError as error:
        yield Finding("cluster", False, message(error))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse doctor`."""
    parser.add_argument("--out", default="", help="also check this store: its clock, and whether it may be written")
    parser.add_argument(
        "--manifest", default="", help="also check this manifest, and the views of two of its objects"
    )
    parser.add_argument("--render", action="store_true", help="also check that meshes can be drawn (EGL)")
    add_config(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print every finding; returns the exit code, 1 if there is a fault."""
    findings = []
    for finding in examine(building_config_of(args), args.out, manifest=args.manifest, render=args.render):
        findings.append(finding)
        if not args.json:
            print(f"{'ok   ' if finding.ok else 'FAULT'} {finding.name}: {finding.text}", flush=True)
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings]))
    return 0 if all(finding.ok for finding in findings) else 1
