import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pipeline_runs import TINY, tiny_arguments, write_inputs
from servers.fault_proxy import proxying
from servers.moto_server import BUCKET

from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.fitter.native import library
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.node import gpu, hardware
from gaussianverse.pipeline.ops import doctor
from gaussianverse.pipeline.run import examining
from gaussianverse.pipeline.run.examining import Asked


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


def test_a_store_whose_clock_differs_by_an_hour_is_named(s3_endpoint: str) -> None:
    with proxying(s3_endpoint) as proxy:
        config = load("test", [*TINY, f"store.endpoint_url={proxy.url}", "store.region=us-east-1"])
        for ahead_s, said in ((0.0, "agree"), (3600.0, "60 minutes ahead of"), (-3600.0, "60 minutes behind")):
            proxy.ahead_s = ahead_s
            (found,) = [f for f in examining.stores(Asked(config, f"s3://{BUCKET}/out")) if f.name == "clock"]
            assert found.ok == (ahead_s == 0)
            assert said in found.text
            assert found.ok or "set the clock, by NTP" in found.text


def test_views_that_are_not_there_are_named_before_the_run(tmp_path: Path) -> None:
    manifest = write_inputs(tmp_path, ["a", "b"])
    (tmp_path / "views" / "b").rename(tmp_path / "moved")
    findings = {f.name: f for f in doctor.examine(load("test", TINY), manifest=manifest)}
    assert findings["manifest"].text == f"{manifest}: 2 objects, 0 of them in faulty rows"
    assert not findings["views"].ok
    assert findings["views"].text == f"{tmp_path}/views/b: no views at this address on this machine"
    (missing,) = [f for f in doctor.examine(load("test", TINY), manifest=f"{manifest}.gone") if f.name == "manifest"]
    assert not missing.ok


def test_a_machine_that_draws_meshes(egl: None) -> None:
    (found,) = [f for f in doctor.examine(load("test", TINY), render=True) if f.name == "rendering"]
    assert (found.ok, found.text) == (True, "meshes can be drawn")


def test_a_machine_without_egl_is_named_with_the_mend(tmp_path: Path) -> None:
    """In a process of its own, which finds no driver: EGL reads once which there are."""
    (tmp_path / "none.json").write_text("{}")
    environment = {**os.environ, "__EGL_VENDOR_LIBRARY_FILENAMES": str(tmp_path / "none.json")}
    command = [sys.executable, "-m", "gaussianverse.pipeline.cli", "doctor", *tiny_arguments(), "--render", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    found = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert [name for name, finding in found.items() if not finding["ok"]] == ["rendering"]
    assert "apt-get install libegl1 libgl1-mesa-dri" in found["rendering"]["text"]
    assert done.returncode == 1
