"""Checks of a node with a GPU, without one: the facts are made up, in the forms that real machines give."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaussianverse.fitter.rasterize import BackendUnavailable, gsplat_build
from gaussianverse.pipeline.node import gpu, hardware
from gaussianverse.pipeline.node.hardware import Architectures, Build, Compilers, Device, Toolkit

H100 = Device("NVIDIA H100 80GB HBM3", (9, 0), 85 << 30)
L4 = Device("NVIDIA L4", (8, 9), 24 << 30)
V100 = Device("Tesla V100", (7, 0), 16 << 30)
TORCH = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
"""Architectures that torch 2.13.0+cu130 reports."""
TOOLKIT = Toolkit("/usr/local/cuda", "13.0", (), tuple(f"compute_{n}" for n in (75, 80, 86, 89, 90, 100, 120)))
COMPILERS = Compilers("/venv/bin/ninja", "c++", "13.3.0", ((6, 0, 0), (16, 0)))
LIST = Architectures("8.9;9.0", ("sm_89", "sm_90"))
BUILT = Build(True, directory="/cache/gsplat_cuda", compiled=True, code=("sm_89", "sm_90"))
WELL: dict[str, Any] = {
    "torch_version": ("2.13.0+cu130", "13.0"),
    "devices": [H100, L4],
    "torch_code": TORCH,
    "driver_version": "580.159.04",
    "torch_error": "No CUDA GPUs are available",
    "toolkit": TOOLKIT,
    "compilers": COMPILERS,
    "architectures": LIST,
    "build": BUILT,
}
ALL = ["torch", "driver", "gpu", "nvcc", "compilers", "architectures", "gsplat"]


def found(monkeypatch: pytest.MonkeyPatch, **changed: Any) -> dict[str, gpu.Finding]:
    """Findings of `examine` on a node without faults, apart from the changed facts."""
    for name, fact in {**WELL, **changed}.items():
        monkeypatch.setattr(hardware, name, lambda *_, fact=fact: fact)
    return {finding.name: finding for finding in gpu.examine()}


def faults(findings: dict[str, gpu.Finding]) -> list[str]:
    return [name for name, finding in findings.items() if not finding.ok]


def test_a_node_without_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = found(monkeypatch)
    assert list(findings) == ALL
    assert faults(findings) == []
    assert gpu.first_fault() is None
    assert "H100" in findings["gpu"].text
    assert "9.0, 85 GiB" in findings["gpu"].text
    assert "minutes" not in findings["gsplat"].text


NO_DEVICES: dict[str, Any] = {"devices": []}
ANYTHING = {
    "architectures": Architectures("7.0+PTX", ("compute_70", "sm_70")),
    "toolkit": replace(TOOLKIT, architectures=()),
}


@pytest.mark.parametrize(
    ("changed", "first", "words"),
    [
        ({"torch_version": ("2.13.0+cpu", None)}, "torch", ["not a CUDA build", "torch==2.13.0`"]),
        ({**NO_DEVICES, "driver_version": ""}, "driver", ["no NVIDIA driver", "580", "container"]),
        ({**NO_DEVICES, "driver_version": "570.86.15"}, "driver", ["570.86.15 is too old", "580"]),
        ({**NO_DEVICES}, "driver", ["No CUDA GPUs are available", "nvidia-smi"]),
        ({"devices": [H100, V100], **ANYTHING}, "gpu", ["Tesla V100", "7.0", "another CUDA version"]),
        ({"toolkit": Toolkit("")}, "nvcc", ["CUDA_HOME is not set", "toolkit of CUDA 13.0"]),
        ({"toolkit": Toolkit("/opt/x")}, "nvcc", ["no nvcc runs in /opt/x/bin", "CUDA_HOME"]),
        ({"toolkit": replace(TOOLKIT, release="12.8")}, "nvcc", ["12.8", "torch is built for 13.0"]),
        ({"toolkit": replace(TOOLKIT, missing=("lib/libcudart.so",))}, "nvcc", ["lacks lib/libcudart.so"]),
        ({"compilers": replace(COMPILERS, ninja="")}, "compilers", ["pip install", "ninja"]),
        ({"compilers": replace(COMPILERS, version="")}, "compilers", ["no C++ compiler", "g++"]),
        ({"compilers": replace(COMPILERS, version="16.1.0")}, "compilers", ["16.1.0", "before 16.0", "CXX"]),
        ({"architectures": Architectures("8.9", ("sm_89",))}, "architectures", ["leaves out", "H100", "add 9.0"]),
        ({"architectures": Architectures("x", error="Unknown CUDA arch (x)")}, "architectures", ["'x'", "Unkn"]),
        (
            {"architectures": Architectures("7.0;8.9+PTX", ("sm_70", "sm_89", "compute_89"))},
            "architectures",
            ["does not compile for sm_70", "remove it from TORCH_CUDA_ARCH_LIST"],
        ),
        ({"build": Build(False)}, "gsplat", ["not installed", "pip install"]),
        ({"build": Build(True, error="Permission denied: '/ro'")}, "gsplat", ["/ro", "TORCH_EXTENSIONS_DIR"]),
    ],
)
def test_one_fault_is_found_and_named_with_its_remedy(
    changed: dict[str, Any], first: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    findings = found(monkeypatch, **changed)
    assert faults(findings) == [first]
    for word in words:
        assert word in findings[first].text
    assert gpu.first_fault() == findings[first]


def test_the_page_on_gpus_has_every_finding() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "gpu.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.M) == ALL


def test_nothing_is_asked_of_a_torch_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(found(monkeypatch, torch_version=("2.13.0+cpu", None))) == ["torch"]


def test_without_a_device_the_tools_are_still_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where an image is built: devices that the list leaves out are unknown, but a missing list is a fault."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    findings = found(monkeypatch, devices=[], architectures=Architectures("8.9", ("sm_89",)))
    assert list(findings) == [name for name in ALL if name != "gpu"]
    assert faults(findings) == ["driver"]
    none = Architectures("", error="no device is seen to compile for")
    assert faults(found(monkeypatch, devices=[], architectures=none)) == ["driver", "architectures"]
    assert "is not set" in found(monkeypatch, devices=[], architectures=none)["architectures"].text


@pytest.mark.parametrize(("visible", "by_ray"), [("", True), ("7", False), ("-1", False)])
def test_devices_that_are_hidden(visible: str, by_ray: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    text = found(monkeypatch, devices=[])["driver"].text
    assert f"CUDA_VISIBLE_DEVICES={visible!r}" in text
    assert ("gpus_per_fit" in text) == by_ray
    assert "too old" in found(monkeypatch, devices=[], driver_version="535.54.03")["driver"].text
    assert faults(found(monkeypatch)) == []


def test_a_driver_that_torch_works_with_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's packages for forward compatibility let old drivers run new programs."""
    assert faults(found(monkeypatch, driver_version="535.54.03")) == []
    assert "unknown version" in found(monkeypatch, driver_version="")["driver"].text


def test_an_extension_within_the_package_needs_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = Build(True, packaged="/site/gsplat/csrc.so")
    findings = found(monkeypatch, build=packaged, toolkit=Toolkit(""), compilers=Compilers("", "c++", ""))
    assert list(findings) == ["torch", "driver", "gpu", "gsplat"]
    assert faults(findings) == []
    assert "csrc.so" in findings["gsplat"].text


@pytest.mark.parametrize(
    ("change", "words", "minutes"),
    [
        ({}, ["built in /cache/gsplat_cuda for sm_89 sm_90"], False),
        ({"code": ("sm_90",)}, ["built in", "for sm_90;", "again"], True),
        ({"compiled": False, "code": ()}, ["not built yet", "/cache/gsplat_cuda"], True),
        ({"compiled": False, "interrupted": True}, ["interrupted"], True),
        ({"compiled": False, "under_way": True}, ["another process"], False),
    ],
)
def test_what_the_first_start_will_do(
    change: dict[str, Any], words: list[str], minutes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = found(monkeypatch, build=replace(BUILT, **change))["gsplat"]
    assert finding.ok
    for word in words:
        assert word in finding.text
    assert ("minutes" in finding.text) == minutes


def test_kernels_are_compiled_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built = []
    monkeypatch.setattr(gsplat_build, "extension", lambda: built.append("kernels"))
    found(monkeypatch, devices=[], driver_version="")
    assert (gpu.main(), built) == (0, ["kernels"])
    found(monkeypatch, devices=[], driver_version="", toolkit=replace(TOOLKIT, release="12.8"))
    assert (gpu.main(), built) == (1, ["kernels"])
    assert "12.8" in capsys.readouterr().err


def test_a_build_that_fails_ends_with_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused() -> None:
        raise BackendUnavailable("nvcc fatal: no")

    monkeypatch.setattr(gsplat_build, "extension", refused)
    found(monkeypatch)
    assert gpu.main() == 1
    assert capsys.readouterr().err == "error: nvcc fatal: no\n"


def test_facts_that_torch_does_not_report_are_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    untold = found(
        monkeypatch,
        torch_code=[],
        architectures=Architectures("9.0"),
        compilers=replace(COMPILERS, bounds=None, version="99.0"),
        toolkit=replace(TOOLKIT, architectures=()),
    )
    assert faults(untold) == []


@pytest.mark.parametrize(
    ("code", "capability", "runs"),
    [
        ("sm_90", (9, 0), True),
        ("sm_86", (8, 9), True),
        ("sm_89", (8, 6), False),
        ("sm_80", (9, 0), False),
        ("compute_80", (9, 0), True),
        ("compute_90", (8, 9), False),
        ("compute_120", (12, 1), True),
        ("sm_90a", (9, 0), True),
        ("compute_90a", (10, 0), False),
        ("sm_100f", (10, 3), True),
        ("compute_100f", (12, 0), False),
        ("gfx90a", (9, 0), False),
    ],
)
def test_what_runs_on_what(code: str, capability: tuple[int, int], runs: bool) -> None:
    assert gpu.runs_on(code, capability) == runs


CAPABILITIES = st.tuples(st.integers(5, 13), st.integers(0, 9))


@given(CAPABILITIES, CAPABILITIES)
def test_machine_code_runs_nowhere_that_its_ptx_does_not(target: tuple[int, int], device: tuple[int, int]) -> None:
    number = f"{target[0]}{target[1]}"
    assert gpu.runs_on(f"compute_{number}", device) == (device >= target)
    if gpu.runs_on(f"sm_{number}", device):
        assert gpu.runs_on(f"compute_{number}", device)
    if gpu.runs_on(f"sm_{number}a", device):
        assert device == target
