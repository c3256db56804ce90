"""A machine that cannot do the work says so before anything runs."""

from __future__ import annotations

import pytest
import torch
from pipeline_runs import TINY

from pipeline import machine
from pipeline.config import load
from pipeline.errors import PipelineError

CONFIG = load("test", TINY)


def test_a_machine_that_cannot_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    machine.check_machine(load("cpu").fit)
    with pytest.raises(PipelineError, match="--profile cpu"):
        machine.check_machine(load("fast").fit)
    with pytest.raises(PipelineError, match="weights"):
        machine.check_machine(load("test", ["fit.loss.lpips_net=alex"]).fit)


def test_warming_up_runs_what_a_fit_needs() -> None:
    machine.warm_up(CONFIG.fit, CONFIG.atlas)


def test_a_node_says_what_it_lacks() -> None:
    assert machine.examine_node(load("test")) == ""
    assert "CUDA" in machine.examine_node(load("paper"))
