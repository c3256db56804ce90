"""The GPU benchmark without a GPU: gsplat's own torch code in the place of its kernels, on small inputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import gsplat_oracle
from bench.gpu import fits, parity
from bench.gpu.__main__ import SECTIONS, begun, main
from bench.gpu.clock import Clock
from bench.gpu.settings import Weights, levers, profile
from bench.gpu.target import Target, standing_in
from bench.objects import SAMPLE
from gaussianverse.fitter import FitConfig
from gaussianverse.fitter.rasterize import BackendUnavailable, rasterization

DRY = Target(dry=True)


@pytest.fixture
def stand_in() -> Iterator[None]:
    pytest.importorskip("gsplat")
    with standing_in(DRY):
        yield


pytestmark = pytest.mark.usefixtures("one_thread")


def test_parity_of_the_two_backends_that_are_here() -> None:
    cpu = torch.device("cpu")
    found = parity.parity("cpu", "reference", 300, 48, (cpu, cpu))
    assert found["ok"]
    assert 0 < max(found["relative"].values()) < 1e-5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_parity_of_gsplat(tmp_path: Path) -> None:
    assert not [name for name, found in parity.section(Target(dry=False), tmp_path).items() if not found.get("ok", 1)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_the_stand_in_is_there_only_in_a_dry_run() -> None:
    pytest.importorskip("gsplat")
    inputs = parity.scene(20, 16)
    with standing_in(DRY):
        rasterization(**inputs, width=16, height=16, backend="gsplat")
    with standing_in(Target(dry=False)), pytest.raises(BackendUnavailable):
        rasterization(**inputs, width=16, height=16, backend="gsplat")


@pytest.mark.usefixtures("stand_in")
def test_a_dry_run_writes_sections_marked_dry_and_a_golden_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--dry", "--only", "parity", "batch", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == result
    assert result["dry"]
    assert result["device"].startswith("dry")
    assert set(result["sections"]) == {"parity", "batch"}
    assert [row["scenes"] for row in result["batch"]["table"]] == list(DRY.sizes.batches)
    assert result["parity"]["golden"]["judged"] > 1 - parity.FLIPPED_MOST
    assert (tmp_path / "golden.npz").stat().st_size == result["parity"]["golden"]["bytes"]


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("wrong", ["image", "gradient"])
def test_a_rasteriser_that_differs_is_an_error(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = gsplat_oracle.rasterization

    def differing(means: torch.Tensor, quats: torch.Tensor, scales: torch.Tensor, *more: Any) -> Any:
        if wrong == "image":
            return right(means, quats, 1.02 * scales, *more)
        return right(means, quats, scales.detach() + 1.002 * (scales - scales.detach()), *more)

    monkeypatch.setattr(gsplat_oracle, "rasterization", differing)
    assert main(["--dry", "--only", "parity", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "parity.gsplat_cpu failed" in said
    assert "parity.cpu_reference" not in said


@pytest.mark.usefixtures("stand_in")
def test_a_section_that_fails_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setitem(SECTIONS, "parity", (1.0, breaks))
    assert main(["--dry", "--only", "parity", "batch", "--out", str(tmp_path)]) == 1
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert result["parity"] == {"error": "RuntimeError: out of memory"}
    assert result["batch"]["table"]


@pytest.mark.usefixtures("stand_in")
def test_fits_are_kept_and_added_to() -> None:
    config, folder = profile("fast", Weights()), SAMPLE / "spot"
    rows: list[fits.Row] = []

    def added(seeds: int, seconds: float, pace: float = 0.0) -> int:
        wanted = (("fast", config, folder, seed) for seed in range(seeds))
        return len(list(fits.add(rows, wanted, DRY, Weights(), Clock(seconds), {"": pace})))

    assert added(1, 600) == 1
    assert added(2, 600) == 1
    assert [row["seed"] for row in rows] == [0, 1]
    assert all(row["psnr"] > 5 and row["seconds"] > 0 and row["gaussians"] > 0 for row in rows)
    assert rows[0]["metrics_on"] == "heldout"
    # what it took is known now, and is more than is left
    assert added(3, 0.5 * rows[0]["seconds"]) == 0
    rows.clear()
    assert added(1, 5.0, pace=60.0) == 0


def row(setting: str, name: str, seed: int, seconds: float, psnr: float) -> fits.Row:
    return {
        "setting": setting, "object": name, "seed": seed, "seconds": seconds, "psnr": psnr, "gaussians": 100,
        "steps_per_s": 10.0, "gpu_mb": 5.0,
    }  # fmt: skip


def test_levers_are_compared_on_the_same_objects_and_seeds() -> None:
    rows = [
        row("fast", "spot", 0, 10.0, 30.0),
        row("fast", "avocado", 0, 20.0, 40.0),
        row("paper", "spot", 0, 99.0, 31.0),
        row("steps_1500", "spot", 0, 6.0, 29.5),
        {**row("steps_1500", "avocado", 0, 1.0, 9.0), "error": "nan_loss: x"},
        row("steps_1500", "boombox", 0, 1.0, 9.0),
    ]
    (found,) = fits.levers_table(rows)
    assert found == {
        "lever": "steps_1500", "fits": 1, "seconds": 6.0, "saved_s": 4.0, "lost_db": 0.5, "gaussians": 100.0
    }  # fmt: skip
    table = fits.profiles_table(rows)
    assert table["paper_minus_fast_db"] == 1.0
    assert table["pairs"] == 1
    assert table["fast"]["seconds"] == 15.0
    assert table["fast"]["objects"] == 2


def test_results_of_another_device_are_not_added_to(tmp_path: Path) -> None:
    (tmp_path / "gpu.json").write_text(json.dumps({"device": "one", "fits": [1]}))
    assert begun("one", tmp_path)["fits"] == [1]
    assert begun("another", tmp_path) == {}


def test_every_lever_is_one_change_of_fast() -> None:
    base = profile("fast", Weights())
    made = levers(Weights(alex="/weights/alexnet.npz"))
    assert len({fits.digest(config) for config in (base, *made.values())}) == len(made) + 1
    assert made["lpips_bf16"].loss.lpips_bf16
    assert not [name for name in levers(Weights()) if name.startswith("lpips")]


def test_lpips_is_on_only_with_weights() -> None:
    assert profile("paper", Weights()).loss.lpips_net == "none"
    assert profile("paper", Weights(alex="/weights/alex.npz")).loss.lpips_net == "alex"
    assert profile("paper", Weights("/weights/vgg16.pth", "/weights/alex.npz")).loss.lpips_net == "vgg"
    assert profile("fast", Weights("/weights/vgg16.pth")).loss.lpips_net == "none"


def test_where_weights_lie_is_no_setting() -> None:
    one, other = (profile("paper", Weights(alex=f"/{folder}/alex.npz")) for folder in "ab")
    assert fits.digest(one) == fits.digest(other) != fits.digest(FitConfig())


@pytest.mark.slow
def test_a_whole_dry_run_leaves_nothing_out(tmp_path: Path) -> None:
    pytest.importorskip("gsplat")
    assert main(["--dry", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert set(result["sections"]) == set(SECTIONS)
    assert all("error" not in row for row in result["fits"])
    settings = {row["setting"] for row in result["fits"]}
    assert {"fast", "paper", *levers(Weights())} <= settings
    assert len(result["levers"]) == len(settings) - 2
    assert result["profiles"]["pairs"] == DRY.sizes.objects[0]
    assert len(result["at_once"]["processes"]["table"]) == len(DRY.sizes.at_once)
    assert result["memory"]["fits"] == DRY.sizes.fits
