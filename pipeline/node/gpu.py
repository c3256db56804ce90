"""Checks of everything that gsplat needs of a node, each after what it depends on, without importing gsplat.

`hardware` collects the facts; the functions that judge them are pure. docs/gpu.md lists every finding.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gaussianverse.fitter.rasterize import BackendUnavailable, gsplat_build
from gaussianverse.pipeline.node import hardware
from gaussianverse.pipeline.node.hardware import Architectures, Build, Compilers, Device, Toolkit

_DRIVER_OF_CUDA = {11: 450, 12: 525, 13: 580}
"""The oldest driver that runs programs of a CUDA version (NVIDIA, "CUDA Compatibility", table 1)."""


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    name: str
    ok: bool
    text: str


def examine() -> Iterator[Finding]:
    """Check everything that gsplat needs; the first fault explains those that follow."""
    version, cuda = hardware.torch_version()
    finding = judge_torch(version, cuda)
    yield finding
    if not finding.ok or cuda is None:
        return
    seen = hardware.devices()
    error = "" if seen else hardware.torch_error()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    yield judge_driver(version, cuda, hardware.driver_version(), len(seen), visible, error)
    if seen:
        yield judge_devices(version, seen, hardware.torch_code())
    built = hardware.build()
    if built.packaged:
        yield judge_build(built, ())
        return
    tools, targets = hardware.toolkit(), hardware.architectures()
    yield judge_toolkit(cuda, tools)
    yield judge_compilers(tools.release, hardware.compilers(tools.release))
    yield judge_architectures(targets, seen, tools)
    yield judge_build(built, targets.code or ())


def first_fault() -> Finding | None:
    """The first finding that keeps gsplat from rendering here; None if there is none."""
    return next((finding for finding in examine() if not finding.ok), None)


def main() -> int:
    """Compile gsplat's kernels, also on a machine without a GPU, such as one that builds an image.

    Returns:
        0, or 1 after printing the faults to stderr.
    """
    faults = [f"{f.name}: {f.text}" for f in examine() if not f.ok and f.name not in ("driver", "gpu")]
    if not faults:
        try:
            gsplat_build.extension()
        except BackendUnavailable as error:
            faults = [str(error)]
    sys.stderr.writelines(f"error: {fault}\n" for fault in faults)
    return 1 if faults else 0


def judge_torch(version: str, cuda: str | None) -> Finding:
    """Check that torch is a build for CUDA."""
    if cuda is not None:
        return Finding("torch", True, f"{version}, built for CUDA {cuda}")
    text = (
        f"torch {version} is not a CUDA build; `pip uninstall -y torch`, then `pip install -c constraints.txt "
        f"torch=={version.split('+')[0]}` from an index with its CUDA builds"
    )
    return Finding("torch", False, text)


def judge_driver(version: str, cuda: str, driver: str, count: int, visible: str | None, error: str) -> Finding:
    """Check that torch sees a device; if not, say why: no driver, an old one, hidden devices, or its own error."""
    if count:
        return Finding("driver", True, f"{driver or 'of unknown version'}, {count} device(s)")
    oldest = _DRIVER_OF_CUDA.get(int(cuda.split(".")[0]), 0)
    if not driver:
        text = (
            f"no NVIDIA driver is loaded; torch {version} is built for CUDA {cuda}, which needs driver "
            f"{oldest or 'of a version not known here'} or newer. A container must be started with its GPUs "
            "(--gpus all, or --device nvidia.com/gpu=all)"
        )
    elif int(driver.split(".")[0]) < oldest:
        text = (
            f"driver {driver} is too old for CUDA {cuda}: update it to {oldest} or newer, or install the build of "
            f"torch {version.split('+')[0]} for an older CUDA"
        )
    elif visible is not None:
        text = (
            f"driver {driver} is loaded, but CUDA_VISIBLE_DEVICES={visible!r} hides every device from torch; unset "
            "it, or name devices that `nvidia-smi -L` lists"
        )
        if not visible:
            text += " (Ray empties it for tasks without a GPU: ray.gpus_per_fit must be above 0)"
    else:
        text = (
            f"driver {driver} is loaded, but torch sees no device: {error or 'no error is reported'}. `nvidia-smi "
            "-L` must list the devices; a container must be started with them"
        )
    return Finding("driver", False, text)


def judge_devices(version: str, seen: Sequence[Device], built_for: Sequence[str]) -> Finding:
    """Check that torch itself has code for every device."""
    unsupported = [d for d in seen if built_for and not any(runs_on(code, d.capability) for code in built_for)]
    if not unsupported:
        return Finding("gpu", True, ", ".join(map(str, seen)))
    text = (
        f"torch {version} has code for {' '.join(built_for)} and not for {unsupported[0]}; install the build of "
        "the same torch for another CUDA version, or hide that device with CUDA_VISIBLE_DEVICES"
    )
    return Finding("gpu", False, text)


def judge_toolkit(cuda: str, tools: Toolkit) -> Finding:
    """Check for a complete CUDA toolkit of torch's own major version."""
    remedy = f"install the toolkit of CUDA {cuda} and set CUDA_HOME to it (docs/gpu.md shows how without root)"
    if not tools.home:
        fault = "no CUDA toolkit: CUDA_HOME is not set, no nvcc is on PATH, and there is no /usr/local/cuda"
    elif not tools.release:
        fault = f"no nvcc runs in {tools.home}/bin, which torch takes for the CUDA toolkit"
    elif tools.release.split(".")[0] != cuda.split(".")[0]:
        fault = f"nvcc in {tools.home} is of CUDA {tools.release}, torch is built for {cuda}"
    elif tools.missing:
        fault = f"{tools.home}, which torch takes for the CUDA toolkit, lacks {' and '.join(tools.missing)}"
    else:
        return Finding("nvcc", True, f"{tools.release} in {tools.home}")
    return Finding("nvcc", False, f"{fault}; {remedy}")


def judge_compilers(release: str, found: Compilers) -> Finding:
    """Check for ninja and a C++ compiler that nvcc accepts."""
    if not found.ninja:
        return Finding("compilers", False, "no ninja; `pip install -c constraints.txt ninja`")
    if not found.version:
        return Finding("compilers", False, f"no C++ compiler: {found.cxx} does not run; install g++")
    number = tuple(int(part) for part in re.findall(r"\d+", found.version))
    if found.bounds and not found.bounds[0] <= number < found.bounds[1]:
        low, high = (".".join(map(str, bound)) for bound in found.bounds)
        text = (
            f"{found.cxx} is g++ {found.version}, nvcc {release} accepts {low} and newer, before {high}; install one "
            "and name it in CXX and CC"
        )
        return Finding("compilers", False, text)
    return Finding("compilers", True, f"{found.cxx} {found.version}, ninja at {found.ninja}")


def judge_architectures(targets: Architectures, seen: Sequence[Device], tools: Toolkit) -> Finding:
    """Check that the kernels will be compiled for every device of this node."""
    setting = f"TORCH_CUDA_ARCH_LIST={targets.requested!r}"
    if targets.error:
        value = setting if targets.requested else "TORCH_CUDA_ARCH_LIST is not set"
        fault = f"{value}: {targets.error}; list architectures, such as '8.0;8.9;9.0+PTX'"
        return Finding("architectures", False, fault)
    if targets.code is None:
        return Finding("architectures", True, f"{setting}; this torch does not say how it reads it")
    known = {text.removeprefix("compute_") for text in tools.architectures}
    unknown = [c for c in targets.code if known and c.partition("_")[2].rstrip("af") not in known]
    if unknown:
        remedy = (
            "remove it from TORCH_CUDA_ARCH_LIST"
            if targets.requested
            else "install a newer toolkit of the same major version"
        )
        fault = f"nvcc {tools.release} does not compile for {' '.join(unknown)}; {remedy}"
        return Finding("architectures", False, fault)
    left_out = [d for d in seen if not any(runs_on(code, d.capability) for code in targets.code)]
    if left_out:
        major, minor = left_out[0].capability
        fault = f"{setting} leaves out {left_out[0]}; add {major}.{minor}, or unset it"
        return Finding("architectures", False, fault)
    source = setting if targets.requested else "the devices of this node"
    return Finding("architectures", True, f"{' '.join(targets.code)}, from {source}")


def judge_build(found: Build, code: Sequence[str]) -> Finding:
    """Check that the extension is built or can be, and say if the first start will take minutes."""
    if not found.installed:
        return Finding("gsplat", False, "gsplat is not installed; `pip install -c constraints.txt '.[build]'`")
    if found.error:
        fault = f"gsplat's build folder cannot be created: {found.error}; set TORCH_EXTENSIONS_DIR to another"
        return Finding("gsplat", False, fault)
    if found.packaged:
        text = f"built with the package: {found.packaged}"
    elif found.under_way:
        text = f"another process is building or loading it in {found.directory}"
    elif found.compiled and set(found.code) == set(code):
        text = f"built in {found.directory} for {' '.join(found.code)}"
    elif found.compiled:
        text = f"built in {found.directory} for {' '.join(found.code)}; the first start builds it again, in minutes"
    else:
        text = f"not built yet: the first start compiles it in {found.directory}, which takes minutes"
        if found.interrupted:
            text += "; it also removes what an interrupted build left there"
    return Finding("gsplat", True, text)


def runs_on(code: str, capability: tuple[int, int]) -> bool:
    """True if a device runs compiled code: "sm_86" within its major version, "compute_86" (PTX) on all later ones.

    "sm_90a" runs on that version alone, "sm_100f" on its family.
    """
    found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", code)
    if found is None:
        return False
    target = int(found[2]), int(found[3])
    if found[4] == "a":
        return capability == target
    if found[1] == "compute" and not found[4]:
        return capability >= target
    return capability[0] == target[0] and capability >= target


if __name__ == "__main__":
    sys.exit(main())
