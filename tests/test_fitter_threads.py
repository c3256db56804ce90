"""Ranges over threads; a fit's bytes do not depend on whether its kernels came from the cache."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from fresh_and_cached import fresh_and_cached
from hypothesis import given, settings
from hypothesis import strategies as st

from gaussianverse.fitter.threads import available_cores, over_range, set_threads

FIT = """
import hashlib
from analytic import ball_views
from gaussianverse.atlas.configuration import from_table
from gaussianverse.fitter.config import FitConfig, load_profile
from gaussianverse.fitter.fit import fit_object
tables = {**load_profile("test")["fit"], "size": 48, "start_size": 0, "steps": 40, "min_psnr": 0.0}
fit = fit_object(ball_views(8), from_table(FitConfig, tables), seed=1)
print(hashlib.sha256(fit.gaussians.to_bytes()).hexdigest())
"""


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 200), st.integers(1, 5))
def test_every_index_is_covered_once(count: int, threads: int) -> None:
    seen: list[int] = []
    lock = threading.Lock()

    def kernel(first: int, last: int, offset: int) -> None:
        with lock:
            seen.extend(offset + k for k in range(first, last))

    before = set_threads(threads)
    try:
        over_range(kernel, count, 7)
    finally:
        set_threads(before)
    assert sorted(seen) == list(range(7, 7 + count))


def test_an_exception_in_a_thread_comes_out() -> None:
    def kernel(first: int, _last: int) -> None:
        if first > 0:
            raise ArithmeticError("here")

    before = set_threads(2)
    try:
        with pytest.raises(ArithmeticError, match="here"):
            over_range(kernel, 10)
    finally:
        set_threads(before)


@pytest.mark.parametrize(
    ("limits", "cores"),
    [("max 100000", 6), ("250000 100000", 2), ("50000 100000", 1), ("1600000 100000", 6), ("nonsense", 6), (None, 6)],
)
def test_a_container_has_fewer_cores_than_its_machine(
    limits: str | None, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    if limits is not None:
        (tmp_path / "cpu.max").write_text(limits + "\n")
    assert available_cores(tmp_path / "cpu.max") == cores


def test_less_than_one_thread_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        set_threads(0)


def test_compiled_now_or_before_a_fit_has_the_same_bytes(tmp_path: Path) -> None:
    fresh, cached = fresh_and_cached(FIT, tmp_path)
    assert len(fresh) == 65
    assert fresh == cached
