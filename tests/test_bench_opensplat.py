"""Parts of the comparison with OpenSplat that run without it: exports, the number of iterations, the measure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bench.objects import spiral
from bench.opensplat import (
    OWN,
    WITHIN,
    Setting,
    at_budget,
    colours_at,
    composited,
    export,
    heldout_psnr,
    main,
    run,
    write_points,
)
from gaussianverse.atlas import Gaussians
from gaussianverse.atlas.interchange.harmonics import ViewDependent, constant
from gaussianverse.atlas.interchange.ply import write_ply
from gaussianverse.fitter import load_views
from gaussianverse.fitter.metrics import render
from gaussianverse.fitter.scene import make_scene
from gaussianverse.fitter.views import Views

SIZE = 32
K = np.array([[40.0, 0, SIZE / 2], [0, 40.0, SIZE / 2], [0, 0, 1]])


def views(images: NDArray[np.uint8], count: int = 4) -> Views:
    return Views(images, spiral(count, -0.5, 1.0, 0.0), np.repeat(K[None], count, 0), tuple("abcdefgh"[:count]))


def blank(count: int = 4) -> Views:
    return views(np.zeros((count, SIZE, SIZE, 4), np.uint8), count)


def some() -> Gaussians:
    rng = np.random.default_rng(0)
    return Gaussians(
        means=rng.uniform(-0.4, 0.4, (30, 3)).astype(np.float32),
        scales=np.full((30, 3), 0.08, np.float32),
        quats=np.tile(np.float32([1, 0, 0, 0]), (30, 1)),
        opacities=np.full(30, 0.9, np.float32),
        colors=rng.uniform(0.2, 0.6, (30, 3)).astype(np.float32),
    )


def drawn(gaussians: Gaussians) -> Views:
    """Opaque views of Gaussians on white."""
    scene = make_scene(blank(), torch.device("cpu"))
    images = np.full((len(scene), SIZE, SIZE, 4), 255, np.uint8)
    for v in range(len(scene)):
        image = render(gaussians, scene, v, "cpu", torch.ones(3))
        images[v, ..., :3] = (255 * image.numpy()).round()
    return views(images)


@pytest.mark.parametrize("arguments", [[], ["--opensplat", "/nowhere/opensplat"]])
def test_without_the_program_it_says_so(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    assert "no program of OpenSplat" in capsys.readouterr().err


@pytest.mark.parametrize(("start", "each"), [(0.5, 0.1), (9.0, 0.01), (0.0, 2.0)])
def test_iterations_of_equal_cost_are_found(start: float, each: float) -> None:
    tried: list[int] = []

    def attempt(iterations: int) -> float:
        tried.append(iterations)
        return start + each * iterations

    iterations, cost = at_budget(20.0, attempt)
    assert tried[-1] == iterations
    assert cost == start + each * iterations
    assert WITHIN[0] <= cost / 20.0 <= WITHIN[1]


def test_a_cost_that_no_number_of_iterations_has_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"costs 20.0 CPU s"):
        at_budget(20.0, lambda _iterations: 30.0)


def test_exported_views_are_read_back(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 4), dtype=np.uint8)
    images[:, :4, :, 3] = 0
    images[:, :4, :, :3] = 0
    given = views(images)
    export(tmp_path / "out", given, given.images)
    found = load_views(tmp_path / "out")
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_allclose(found.c2w, given.c2w, atol=1e-12)
    np.testing.assert_allclose(found.Ks, given.Ks)


def test_images_lie_over_the_background() -> None:
    images = np.zeros((4, SIZE, SIZE, 4), np.uint8)
    images[0, 0, 0] = (10, 20, 30, 255)
    images[0, 0, 1] = (10, 20, 30, 51)
    over = composited(views(images), OWN)
    assert over[0, 0, 0].tolist() == [10, 20, 30]
    assert over[0, 0, 1].tolist() == [127, 6, 87]
    assert over[0, 1, 1].tolist() == [156, 3, 102]


def test_points_lie_in_the_object_and_have_its_colour(tmp_path: Path) -> None:
    images = np.zeros((4, SIZE, SIZE, 4), np.uint8)
    images[:, 8:24, 8:24] = (200, 100, 50, 255)
    write_points(tmp_path / "points.ply", views(images), 500)
    header, _, body = (tmp_path / "points.ply").read_bytes().partition(b"end_header\n")
    assert b"element vertex 500" in header
    table = np.frombuffer(body, [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    assert len(table) == 500
    assert (table["rgb"] == (200, 100, 50)).all()
    assert 0.2 < np.median(np.linalg.norm(table["xyz"], axis=1)) < 1


def test_a_point_has_the_colours_of_its_pixels_by_alpha() -> None:
    images = np.zeros((4, SIZE, SIZE, 4), np.uint8)
    images[0, 15:17, 15:17] = (100, 0, 0, 255)  # the origin is the corner of these four
    images[1, 15:17, 15:17] = (200, 0, 0, 85)
    assert colours_at(np.zeros((1, 3)), views(images)).tolist() == [[125, 0, 0]]


def test_gaussians_are_measured_from_the_views_on_white() -> None:
    gaussians, heldout = some(), drawn(some())
    seen = constant(gaussians)
    assert heldout_psnr(seen, heldout) > 50  # the images are bytes
    assert heldout_psnr(seen, heldout, OWN) < 10
    shifted = replace(gaussians, means=gaussians.means + np.float32(0.05))
    assert heldout_psnr(constant(shifted), heldout) < 30
    harmonics = np.concatenate([seen.harmonics, np.full((30, 3, 3), 0.6)], axis=1)
    assert heldout_psnr(ViewDependent(gaussians, harmonics), heldout) < 30


def test_a_setting_scales_the_schedule_with_the_iterations() -> None:
    options = Setting(100, halvings=2, full_from=0.5).options(200)
    assert {"--num-iters=200", "--num-downscales=2", "--resolution-schedule=50"} <= set(options)
    assert "--warmup-length=10" in options
    assert "--warmup-length=200" in Setting(100, densify=False).options(200)
    assert "--num-downscales=0" in Setting(100).options(200)


def _program(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_a_run_returns_the_gaussians_in_the_views_world(tmp_path: Path) -> None:
    (tmp_path / "given.ply").write_bytes(write_ply(some(), sh_rest=45))
    body = f'echo "$@" > {tmp_path}/asked; cp {tmp_path}/given.ply {tmp_path}/splat.ply'
    cost, seen = run(_program(tmp_path / "opensplat", body), tmp_path, ["--num-iters=7"])
    assert cost >= 0
    np.testing.assert_allclose(seen.gaussians.means, some().means, atol=1e-6)
    asked = (tmp_path / "asked").read_text().split()
    assert asked[0] == str(tmp_path)
    assert {"--cpu", "--keep-crs", "--num-iters=7"} <= set(asked)


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"exit code 3: no such images"):
        run(_program(tmp_path / "opensplat", "echo no such images >&2; exit 3"), tmp_path, [])
