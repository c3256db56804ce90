"""What gsplat needs of a node, asked in the order in which one thing rests on another, without importing gsplat.

`hardware` finds out what is there; the functions here are pure, but for `examine`. docs/gpu.md lists every finding.
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
    """One thing that was looked at."""

    name: str
    ok: bool
    text: str


def examine() -> Iterator[Finding]:
    """Look at everything that gsplat needs; the first fault explains those that follow."""
    version, cuda = hardware.torch_version()
    finding = judge_torch(version, cuda)
    yield finding
    if not finding.ok or cuda is None:
        return
    seen = hardware.devices()
    said = "" if seen else hardware.said_by_torch()
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    yield judge_driver(version, cuda, hardware.driver_version(), len(seen), hidden, said)
    if seen:
        yield judge_devices(version, seen, hardware.torch_code())
    built = hardware.build()
    if built.packaged:
        yield judge_build(built, ())
        return
    tools, asked = hardware.toolkit(), hardware.architectures()
    yield judge_toolkit(cuda, tools)
    yield judge_compilers(tools.release, hardware.compilers(tools.release))
    yield judge_architectures(asked, seen, tools)
    yield judge_build(built, asked.code or ())


def first_fault() -> Finding | None:
    """What keeps gsplat from drawing here, if anything does."""
    return next((finding for finding in examine() if not finding.ok), None)


def main() -> int:
    """Compile gsplat's kernels, also on a machine without a GPU, such as one that builds an image.

    Returns:
        0, or 1 with what keeps them from being compiled on stderr.
    """
    faults = [f"{f.name}: {f.text}" for f in examine() if not f.ok and f.name not in ("driver", "gpu")]
    if not faults:
        try:
            gsplat_build.extension()
        except BackendUnavailable as fault:
            faults = [str(fault)]
    sys.stderr.writelines(f"error: {fault}\n" for fault in faults)
    return 1 if faults else 0


def judge_torch(version: str, cuda: str | None) -> Finding:
    """Whether torch is a build for CUDA."""
    if cuda is None:
        return Finding(
            "torch",
            False,
            f"torch {version} is not a CUDA build; `pip uninstall -y torch`, then `pip install -c constraints.txt "
            f"torch=={version.split('+')[0]}` from an index that has its CUDA builds",
        )
    return Finding("torch", True, f"{version}, built for CUDA {cuda}")


def judge_driver(version: str, cuda: str, driver: str, count: int, visible: str | None, said: str) -> Finding:
    """Why torch sees no device: no driver, one too old for its CUDA, devices hidden, or what torch says."""
    if count:
        return Finding("driver", True, f"{driver or 'of unknown version'}, {count} device(s)")
    oldest = _DRIVER_OF_CUDA.get(int(cuda.split(".")[0]), 0)
    if not driver:
        text = (
            f"no NVIDIA driver is loaded; torch {version} is built for CUDA {cuda}, whose drivers begin at "
            f"{oldest or 'a version not known here'}. A container must be started with its GPUs (--gpus all, or "
            "--device nvidia.com/gpu=all)"
        )
    elif int(driver.split(".")[0]) < oldest:
        text = (
            f"driver {driver} is too old for CUDA {cuda}: update it to {oldest} or newer, or install the build of "
            f"torch {version.split('+')[0]} for an older CUDA"
        )
    elif visible is not None:
        text = (
            f"driver {driver} is there, and CUDA_VISIBLE_DEVICES={visible!r} leaves torch no device; unset it, or "
            "name devices that `nvidia-smi -L` lists"
        )
        if not visible:
            text += " (Ray empties it for tasks without a GPU: ray.gpus_per_fit must be above 0)"
    else:
        text = (
            f"driver {driver} is there and torch sees no device: {said or 'it says nothing'}. `nvidia-smi -L` must "
            "list the devices; a container must be started with them"
        )
    return Finding("driver", False, text)


def judge_devices(version: str, seen: Sequence[Device], built_for: Sequence[str]) -> Finding:
    """Whether torch itself has code for every device."""
    strange = [d for d in seen if built_for and not any(runs_on(code, d.capability) for code in built_for)]
    if strange:
        return Finding(
            "gpu",
            False,
            f"torch {version} has code for {' '.join(built_for)} and so not for {strange[0]}; install the build of "
            "the same torch for another CUDA version, or hide that device with CUDA_VISIBLE_DEVICES",
        )
    return Finding("gpu", True, ", ".join(map(str, seen)))


def judge_toolkit(cuda: str, tools: Toolkit) -> Finding:
    """Whether there is a whole CUDA toolkit of torch's own major version."""
    mend = f"install the toolkit of CUDA {cuda} and set CUDA_HOME to it (docs/gpu.md has a way that needs no root)"
    if not tools.home:
        fault = "no CUDA toolkit: CUDA_HOME is not set, no nvcc is on PATH, and there is no /usr/local/cuda"
    elif not tools.release:
        fault = f"no nvcc runs in {tools.home}/bin, which torch takes for the CUDA toolkit"
    elif tools.release.split(".")[0] != cuda.split(".")[0]:
        fault = f"nvcc in {tools.home} is of CUDA {tools.release}, torch is built for {cuda}"
    elif tools.lacks:
        fault = f"{tools.home}, which torch takes for the CUDA toolkit, lacks {' and '.join(tools.lacks)}"
    else:
        return Finding("nvcc", True, f"{tools.release} in {tools.home}")
    return Finding("nvcc", False, f"{fault}; {mend}")


def judge_compilers(release: str, found: Compilers) -> Finding:
    """Whether ninja and a C++ compiler that nvcc takes are there."""
    if not found.ninja:
        return Finding("compilers", False, "no ninja; `pip install -c constraints.txt ninja`")
    if not found.version:
        return Finding("compilers", False, f"no C++ compiler: {found.cxx} does not run; install g++")
    number = tuple(int(part) for part in re.findall(r"\d+", found.version))
    if found.bounds and not found.bounds[0] <= number < found.bounds[1]:
        low, high = (".".join(map(str, bound)) for bound in found.bounds)
        return Finding(
            "compilers",
            False,
            f"{found.cxx} is g++ {found.version}, nvcc {release} takes {low} and newer, before {high}; install one "
            "and name it in CXX and CC",
        )
    return Finding("compilers", True, f"{found.cxx} {found.version}, ninja at {found.ninja}")


def judge_architectures(asked: Architectures, seen: Sequence[Device], tools: Toolkit) -> Finding:
    """Whether the kernels will be compiled for every device that is here."""
    name = "TORCH_CUDA_ARCH_LIST"
    if asked.refused:
        value = f"{name}={asked.asked!r}" if asked.asked else f"{name} is not set"
        fault = f"{value}: {asked.refused}; name what to compile for, such as '8.0;8.9;9.0+PTX'"
        return Finding("architectures", False, fault)
    if asked.code is None:
        return Finding(
            "architectures", True, f"{name}={asked.asked!r}; this torch does not tell how it reads it"
        )
    known = {text.removeprefix("compute_") for text in tools.architectures}
    foreign = [c for c in asked.code if known and c.partition("_")[2].rstrip("af") not in known]
    if foreign:
        mend = (
            f"take it out of {name}" if asked.asked else "install a newer toolkit of the same major version"
        )
        fault = f"nvcc {tools.release} does not compile for {' '.join(foreign)}; {mend}"
        return Finding("architectures", False, fault)
    left_out = [d for d in seen if not any(runs_on(code, d.capability) for code in asked.code)]
    if left_out:
        major, minor = left_out[0].capability
        fault = f"{name}={asked.asked!r} leaves out {left_out[0]}; add {major}.{minor}, or unset it"
        return Finding("architectures", False, fault)
    source = f"{name}={asked.asked!r}" if asked.asked else "the devices that are here"
    return Finding("architectures", True, f"{' '.join(asked.code)}, by {source}")


def judge_build(found: Build, code: Sequence[str]) -> Finding:
    """Whether the extension is there or can be compiled, and whether the first start will take minutes."""
    if not found.installed:
        return Finding(
            "gsplat", False, "gsplat is not installed; `pip install -c constraints.txt '.[build]'`"
        )
    if found.refused:
        fault = (
            f"gsplat's build folder cannot be made: {found.refused}; set TORCH_EXTENSIONS_DIR to one that can"
        )
        return Finding("gsplat", False, fault)
    if found.packaged:
        text = f"built with the package: {found.packaged}"
    elif found.under_way:
        text = f"another process is building or loading it in {found.directory}"
    elif found.compiled and set(found.code) == set(code):
        text = f"built in {found.directory} for {' '.join(found.code)}"
    elif found.compiled:
        text = (
            f"built in {found.directory} for {' '.join(found.code)}; the first start builds it again: minutes"
        )
    else:
        text = f"not built yet: the first start compiles it in {found.directory}, which takes minutes"
        if found.interrupted:
            text += "; what a build that was interrupted left there is removed"
    return Finding("gsplat", True, text)


def runs_on(code: str, capability: tuple[int, int]) -> bool:
    """Whether a device runs compiled code: "sm_86" within its major version, "compute_86" (PTX) on all later ones.

    "sm_90a" is for that one alone, "sm_100f" for its family.
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
