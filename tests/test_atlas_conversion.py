"""The pass that writes a stored atlas into a batch has the bits of `Standard`."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.conversion import Conversion, channels_of
from gaussianverse.atlas.standard import Standard

ALL = list(range(16))
SIZE = 80
"""Of several blocks, the last of which is shorter."""


@pytest.fixture(scope="module")
def standard() -> Standard:
    rng = np.random.default_rng(1)
    return Standard(rng.normal(size=(SIZE, SIZE, 16)), rng.random((SIZE, SIZE, 16)) + 1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [ALL, [12, 3, 4], [7], ALL[::-1]])
@pytest.mark.parametrize("stored", [np.float32, np.float16])
def test_the_bits_are_those_of_the_module(
    standard: Standard, stored: type[np.floating], channels: list[int], dtype: torch.dtype
) -> None:
    array = (np.random.default_rng(0).normal(size=(SIZE, SIZE, 16)) * 3).astype(stored)
    plain = torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1)
    for module, expected in ((standard, standard(plain)), (None, plain)):
        conversion = Conversion(module, channels, dtype)
        found = conversion(array)
        assert (found.dtype, found.shape) == (dtype, (len(channels), SIZE, SIZE))
        # bfloat16 is rounded once, from float32
        assert torch.equal(found, expected[channels].to(dtype))
        batch = torch.full((3, SIZE, SIZE, len(channels)), -7.0, dtype=dtype)
        conversion.write(array, batch[1])
        assert torch.equal(batch[1].permute(2, 0, 1), found)
        assert bool((batch[::2] == -7).all())
        assert torch.equal(standard.select(channels)(plain[channels]), standard(plain)[channels])


def test_nothing_is_copied_where_nothing_changes() -> None:
    array = np.zeros((8, 8, 16), np.float32)
    found = Conversion(None, ALL, torch.float32)(array)
    array[1, 2, 3] = 5
    assert found[3, 1, 2] == 5
    assert Conversion(None, ALL, torch.float32)(array.astype(np.float16)).dtype == torch.float32


def test_channels_by_number_and_name() -> None:
    assert channels_of(None) == ALL
    assert channels_of(["red", 0, "opacity", "quat_z"]) == [4, 0, 3, 15]


@pytest.mark.parametrize(
    ("channels", "fault"),
    [
        ([], "one or more different"), ([1, 1], "one or more different"), (["opacity", 3], "one or more different"),
        ("red", "expected a list"), ([16], "no channel 16: expected 0 to 15"), ([-1], "no channel -1"),
        (["alpha"], "no channel 'alpha'.* offset_x, offset_y, offset_z, opacity, red"), ([1.5], "no channel 1.5"),
        ([True], "no channel True"),
    ],
)  # fmt: skip
def test_channels_that_are_none(channels: list[int | str], fault: str) -> None:
    with pytest.raises(DatasetError, match=fault):
        channels_of(channels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.int8, "float32", None])
def test_unknown_types(dtype: torch.dtype) -> None:
    with pytest.raises(DatasetError, match=r"is none of torch\.float32, torch\.bfloat16"):
        Conversion(None, ALL, dtype)


def test_float16_is_read_by_its_values() -> None:
    """Every finite float16 there is."""
    words = np.array([w for w in range(1 << 16) if (w >> 10) & 31 < 31], np.uint16).view(np.float16)
    array = np.resize(words, (64, 64, 16))
    found = Conversion(None, ALL, torch.float32)(array).permute(1, 2, 0).numpy()
    assert all((a == b).all() for a, b in itertools.zip_longest(found, array.astype(np.float32)))
