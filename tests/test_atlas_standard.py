from dataclasses import fields

import numpy as np
import pytest
import torch
from atlas_objects import cloud, gaussians

from gaussianverse.atlas import AtlasConfig, Standard, pack, unpack, unpack_tensor
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.plane import points_of

SIZE = 16


@pytest.fixture(scope="module")
def array() -> np.ndarray:
    return pack(gaussians(cloud("shell", 200)), AtlasConfig(size=SIZE, min_smoothness=0.0)).array


def test_unpacked_tensors_are_the_unpacked_gaussians(array: np.ndarray) -> None:
    expected = unpack(array, AtlasConfig(size=SIZE))
    found = unpack_tensor(torch.from_numpy(array).permute(2, 0, 1))
    live = found.opacities != 0
    assert int(live.sum()) == len(expected) == 200
    for field in fields(found):
        value = getattr(found, field.name)
        assert len(value) == SIZE * SIZE
        np.testing.assert_allclose(value[live].numpy(), getattr(expected, field.name), atol=2e-7)


def test_another_layout_brings_its_points() -> None:
    config = AtlasConfig(size=SIZE, layout="ring", min_smoothness=0.0)
    array = pack(gaussians(cloud("shell", 200)), config).array
    points = torch.from_numpy(points_of(config)).reshape(SIZE, SIZE, 3)
    found = unpack_tensor(torch.from_numpy(array).permute(2, 0, 1), points=points)
    live = found.opacities != 0
    np.testing.assert_allclose(found.means[live].numpy(), unpack(array, config).means, atol=2e-7)
    with pytest.raises(AtlasError, match="points have shape"):
        unpack_tensor(torch.from_numpy(array).permute(2, 0, 1), points=points[:4])


def test_gradients_are_those_of_finite_differences() -> None:
    rng = torch.Generator().manual_seed(0)
    atlas = torch.rand(16, 8, 8, generator=rng, dtype=torch.float64).requires_grad_()

    def outputs(atlas: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = unpack_tensor(atlas)
        return tuple(getattr(found, f.name).sum(dim=0) for f in fields(found))

    assert torch.autograd.gradcheck(outputs, (atlas,), atol=1e-6)


def test_every_channel_has_a_gradient(array: np.ndarray) -> None:
    atlas = torch.from_numpy(array).permute(2, 0, 1).clone().requires_grad_()
    found = unpack_tensor(atlas)
    weights = torch.arange(1.0, 5.0)
    total = sum((getattr(found, n).double() ** 2 * weights[: getattr(found, n).shape[-1]]).sum()
                for n in ("means", "scales", "quats", "colors")) + (found.opacities**2).sum()  # fmt: skip
    total.backward()
    assert atlas.grad is not None
    assert (atlas.grad.abs().amax(dim=(1, 2)) > 0).all()


def test_clamped_values_are_in_their_ranges() -> None:
    found = unpack_tensor(torch.randn(16, 8, 8, generator=torch.Generator().manual_seed(1)) * 3, clamp=True)
    assert 0 <= float(found.opacities.min()) <= float(found.opacities.max()) <= 1
    assert 0 <= float(found.colors.min()) <= float(found.colors.max()) <= 1
    assert float(found.scales.min()) > 0
    assert torch.allclose(found.quats.norm(dim=1), torch.ones(64))


def test_standardising_and_back() -> None:
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=(8, 8, 16)), rng.uniform(0.1, 2, (8, 8, 16))
    standard = Standard(mean, std)
    atlases = torch.from_numpy(rng.normal(size=(5, 16, 8, 8)).astype(np.float32))
    z = standard(atlases)
    expected = (atlases.permute(0, 2, 3, 1).numpy() - mean) / std
    np.testing.assert_allclose(z.permute(0, 2, 3, 1).numpy(), expected, atol=2e-5)
    assert torch.allclose(standard.inverse(z), atlases, atol=1e-6)
    assert torch.equal(standard(atlases[0]), z[0])
    again = Standard(np.zeros((8, 8, 16)), np.ones((8, 8, 16)))
    again.load_state_dict(standard.state_dict())
    assert torch.equal(again(atlases), z)


@pytest.mark.parametrize("shape", [(16, 8, 8), (1, 16, 8, 8), (15, 8, 8), (16, 8, 9)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    if shape != (16, 8, 8):
        with pytest.raises(AtlasError, match=r"\[16, size, size\]"):
            unpack_tensor(torch.zeros(shape))
    with pytest.raises(AtlasError, match=r"\[size, size, 16\]"):
        Standard(np.zeros(shape), np.ones(shape))


@pytest.mark.parametrize("std", [np.zeros((8, 8, 16)), np.ones((4, 4, 16)), np.full((8, 8, 16), np.nan)])
def test_a_deviation_that_cannot_divide_is_refused(std: np.ndarray) -> None:
    with pytest.raises(AtlasError, match="above 0"):
        Standard(np.zeros((8, 8, 16)), std)
