"""A machine that cannot do the work says so before anything runs."""

from __future__ import annotations

import pytest
import torch
from pipeline_runs import TINY

from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.errors import PipelineError
from gaussianverse.pipeline.node import gpu, machine

CONFIG = load("test", TINY)


def test_a_machine_that_cannot_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    machine.check_machine(load("cpu").fit)
    with pytest.raises(PipelineError, match="--profile cpu"):
        machine.check_machine(load("fast").fit)
    with pytest.raises(PipelineError, match="weights"):
        machine.check_machine(load("test", ["fit.loss.lpips_net=alex"]).fit)


def test_what_keeps_gsplat_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        gpu.Finding("torch", True, "2.13.0+cu130"),
        gpu.Finding("driver", False, "driver 535.54.03 is too old for CUDA 13.0"),
        gpu.Finding("nvcc", False, "no CUDA toolkit"),
    ]
    monkeypatch.setattr(gpu, "examine", lambda: iter(found))
    with pytest.raises(PipelineError, match=r"driver 535.54.03 is too old.*--profile cpu.*--ray-address") as raised:
        machine.check_machine(load("fast").fit)
    assert "no CUDA toolkit" not in str(raised.value)
    assert "535.54.03" in machine.examine_node(load("paper"))
    monkeypatch.setattr(gpu, "examine", lambda: iter(found[:1]))
    machine.check_machine(load("fast").fit)


def test_warming_up_runs_what_a_fit_needs() -> None:
    machine.warm_up(CONFIG.fit, CONFIG.atlas)


def test_a_node_says_what_it_lacks() -> None:
    assert machine.examine_node(load("test")) == ""
    assert "CUDA" in machine.examine_node(load("paper"))


def test_kernels_that_do_not_run_are_a_finding_of_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(machine, "rasterization", fails)
    with pytest.raises(PipelineError, match="the kernels do not run here: CUDA error: no kernel image"):
        machine.warm_up(CONFIG.fit, CONFIG.atlas)
    assert "no kernel image" in machine.examine_node(CONFIG)
