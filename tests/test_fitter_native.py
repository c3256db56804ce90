"""The native kernels: the same bits from every instruction set, and errors that name what is missing."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from test_fitter_rasterize import run, scene

from gaussianverse.fitter.errors import BackendUnavailable
from gaussianverse.fitter.native import library
from gaussianverse.fitter.native.sources import INSTRUCTION_SETS, library_path
from gaussianverse.fitter.photometric import l1_ssim


def runnable() -> list[str]:
    """Instruction sets that this processor has."""
    return list(INSTRUCTION_SETS[: INSTRUCTION_SETS.index(library.instruction_set()) + 1])


def arrays(name: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Results of a function of all kernels' libraries for float32 values, and the values, as doubles."""
    values = np.resize(values.astype(np.float32), -(-len(values) // 16) * 16)
    results = []
    for instruction_set in runnable():
        out = np.empty_like(values)
        getattr(library.load(instruction_set), name)(len(values), values.ctypes.data, out.ctypes.data)
        results.append(out)
    assert all(np.array_equal(results[0], other) for other in results)
    return results[0].astype(np.float64), values.astype(np.float64)


def test_exp2() -> None:
    found, x = arrays("gv_exp2", np.concatenate([np.linspace(-126, 126, 200_001), np.linspace(-1, 1, 200_001)]))
    np.testing.assert_allclose(found, np.exp2(x), rtol=3e-7)


@pytest.mark.parametrize(("low", "high"), [(1e-3, 1.0), (0.9, 1.1), (1e-37, 1e37)])
def test_log2(low: float, high: float) -> None:
    found, x = arrays("gv_log2", np.geomspace(low, high, 200_001))
    expected = np.log2(x)
    assert (np.abs(found - expected) / (1 + np.abs(expected))).max() < 2e-7
    # also near 1, where the logarithm vanishes, in relative terms
    near = np.abs(x - 1) < 0.1
    np.testing.assert_allclose(found[near], expected[near], rtol=5e-7)


def test_this_machine_tests_more_than_one_instruction_set() -> None:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if platform.machine() != "x86_64" or " avx2 " not in flags or " fma " not in flags:
        pytest.skip("the processor has neither AVX2 nor AVX-512")
    assert len(runnable()) == 3 if " avx512bw " in flags else 2


@pytest.mark.parametrize(
    ("n", "opacity", "size"),
    [(600, (0.3, 0.98), 0.05), (300, (0.97, 0.9999), 0.08), (800, (0.001, 0.3), 0.04), (40, (0.5, 0.9), 0.5)],
)
def test_all_instruction_sets_draw_the_same_bits(
    n: int, opacity: tuple[float, float], size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for instruction_set in runnable():
        monkeypatch.setattr(library, "instruction_set", lambda name=instruction_set: name)
        results.append(run("cpu", scene(n, n, opacity, size), 61, 45))
    for other in results[1:]:
        for name, value in other.items():
            assert torch.equal(value, results[0][name]), name


def test_all_instruction_sets_compute_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    image, target = torch.rand((2, 1, 53, 47, 3), generator=g)
    results = []
    for instruction_set in runnable():
        monkeypatch.setattr(library, "instruction_set", lambda name=instruction_set: name)
        render = image.clone().requires_grad_()
        l1, ssim = l1_ssim(render, target)
        (l1 - ssim).backward()
        results.append((l1.detach(), ssim.detach(), render.grad))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder in which the libraries are looked for."""
    monkeypatch.setattr(library, "library_path", lambda name: tmp_path / f"kernels_{name}.so")
    library.load.cache_clear()
    yield tmp_path
    library.load.cache_clear()


def test_kernels_that_are_not_compiled_are_named_with_the_mend(elsewhere: Path) -> None:
    with pytest.raises(BackendUnavailable, match=r"there is no .*kernels_portable\.so; compile them by `make setup`"):
        library.load("portable")
    with pytest.raises(BackendUnavailable, match="compile them by"):
        run("cpu", scene(5, 0), 20, 20)


def test_a_library_that_does_not_load_is_named_with_the_mend(elsewhere: Path) -> None:
    (elsewhere / "kernels_avx2.so").write_bytes(b"\x7fELF and nothing more")
    with pytest.raises(BackendUnavailable, match=r"cannot be loaded: .*kernels_avx2\.so.*compile them by"):
        library.load("avx2")


def test_a_library_of_other_sources_is_refused(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(library_path("portable"), elsewhere)
    assert library.load("portable").gv_instruction_set() == b"portable"
    library.load.cache_clear()
    monkeypatch.setattr(library, "digest", lambda: "other")
    with pytest.raises(BackendUnavailable, match="compiled of other sources than lie beside it; compile them by"):
        library.load("portable")
    library.load.cache_clear()
    monkeypatch.setattr(library, "digest", lambda: "")  # an installation without sources
    library.load("portable")
