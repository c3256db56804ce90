"""doctor: checks whether this machine and a store can do the work of a run."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict

from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.errors import NotFound, StoreError
from gaussianverse.fitter.errors import BackendUnavailable
from gaussianverse.fitter.native import library
from gaussianverse.fitter.threads import available_cores
from gaussianverse.pipeline.arguments import add_config, add_json, config_of
from gaussianverse.pipeline.config import RunConfig
from gaussianverse.pipeline.dataset import provenance
from gaussianverse.pipeline.errors import PipelineError, message
from gaussianverse.pipeline.node import gpu, hardware, machine, ray_doors
from gaussianverse.pipeline.node.gpu import Finding
from gaussianverse.pipeline.store.probes import prove_conditional_puts


def examine(config: RunConfig, out: str = "") -> Iterator[Finding]:
    """Check everything that a run needs, one finding after the other; also the store of `out`, if it is given."""
    system = f"{platform.python_version()} on {platform.machine()}, {available_cores()} cores"
    yield Finding("python", True, system)
    versions = {**provenance.versions(), "ray": importlib.metadata.version("ray")}
    listed = ", ".join(f"{name} {version or 'not installed'}" for name, version in sorted(versions.items()))
    yield Finding("versions", True, listed)
    yield ray_doors.examine()
    if config.fit.backend == "gsplat":
        yield from gpu.examine()
    elif devices := hardware.devices():
        yield Finding("gpu", True, ", ".join(device.name for device in devices))
    else:
        yield Finding("gpu", True, "none that torch can see; profiles `quick`, `cpu` and `test` need none")
    yield _check("fitting", lambda: machine.check_machine(config.fit), f"backend {config.fit.backend} can run here")
    yield _native()
    yield _check("kernels", lambda: machine.warm_up(config.fit, config.atlas), "run here; those of Numba are cached")
    if out:
        storage = open_storage(out, config.store)
        yield _check("store", lambda: prove_conditional_puts(storage), f"{storage.url}: conditional puts hold")


def _native() -> Finding:
    try:
        return Finding("native", True, f"CPU kernels for {library.instruction_set()}")
    except BackendUnavailable as error:
        return Finding("native", False, message(error))


def _check(name: str, check: Callable[[], object], text: str) -> Finding:
    try:
        check()
    except (PipelineError, StoreError, NotFound) as error:
        return Finding(name, False, message(error))
    return Finding(name, True, text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse doctor`."""
    parser.add_argument("--out", default="", help="also check this store")
    add_config(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print every finding; returns the exit code, 1 if there is a fault."""
    findings = []
    for finding in examine(config_of(args), args.out):
        findings.append(finding)
        if not args.json:
            print(f"{'ok   ' if finding.ok else 'FAULT'} {finding.name}: {finding.text}")
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings]))
    return 0 if all(finding.ok for finding in findings) else 1
