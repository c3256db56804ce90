from pathlib import Path

import pytest
import torch
from pipeline_runs import TINY

from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.fitter.native import library
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.node import doctor, gpu, hardware


def test_a_machine_that_can(tmp_path: Path) -> None:
    findings = {f.name: f for f in doctor.examine(load("test", TINY), str(tmp_path / "out"))}
    assert list(findings) == ["python", "versions", "ray", "gpu", "fitting", "native", "kernels", "store"]
    assert all(f.ok for f in findings.values())
    assert f"torch {torch.__version__}" in findings["versions"].text
    assert findings["native"].text == f"CPU kernels for {library.instruction_set()}"
    assert list(LocalStorage(tmp_path / "out").list("")) == []


def test_kernels_that_are_not_compiled_are_a_finding_with_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "library_path", lambda name: tmp_path / f"kernels_{name}.so")
    library.load.cache_clear()
    library.instruction_set.cache_clear()
    try:
        findings = {f.name: f for f in doctor.examine(load("test", TINY))}
    finally:
        library.load.cache_clear()
    for name in ("native", "kernels"):
        assert not findings[name].ok
        assert "kernels_portable.so; compile them by `make setup`" in findings[name].text


def test_each_fault_is_a_finding_and_the_rest_is_still_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "file").write_text("in the way")
    config = load("test", [*TINY, "fit.loss.lpips_net=alex"])
    findings = {f.name: f for f in doctor.examine(config, str(tmp_path / "file" / "out"))}
    assert {name for name, f in findings.items() if not f.ok} == {"fitting", "store"}
    assert "lpips" in findings["fitting"].text.lower()
    assert "choose an output" in findings["store"].text


def test_a_gpu_profile_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    findings = {f.name: f for f in doctor.examine(load("fast"))}
    assert not findings["fitting"].ok
    assert not findings["kernels"].ok
    assert "CUDA" in findings["kernels"].text


def test_a_gpu_profile_looks_at_all_that_gsplat_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    well, ill = gpu.Finding("driver", True, "580"), gpu.Finding("nvcc", False, "no toolkit; install it")
    monkeypatch.setattr(gpu, "examine", lambda: iter([well, ill]))
    findings = {f.name: f for f in doctor.examine(load("fast"))}
    assert list(findings) == ["python", "versions", "ray", "driver", "nvcc", "fitting", "native", "kernels"]
    assert "no toolkit; install it" in findings["fitting"].text
    assert "no toolkit; install it" in findings["kernels"].text


def test_a_profile_without_a_gpu_asks_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> None:
        raise AssertionError("a profile for CPUs looked for what gsplat needs")

    for probe in ("torch_version", "toolkit", "build"):
        monkeypatch.setattr(hardware, probe, asked)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (found,) = [f for f in doctor.examine(load("test", TINY)) if f.name == "gpu"]
    assert (found.ok, found.text) == (True, "none that torch can see; profiles `quick`, `cpu` and `test` need none")
