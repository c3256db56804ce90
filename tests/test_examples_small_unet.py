"""The small UNet: what its inputs change, and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gaussianverse.examples.small_unet import SmallUNet

SMALL: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 19,
    "widths": (8, 16),
    "tokens": 4,
    "cross_attention_dim": 5,
}


pytestmark = pytest.mark.usefixtures("one_thread")


def made(**changes: Any) -> SmallUNet:
    """A network whose zero-initialised layers are random as well, so that all inputs matter."""
    torch.manual_seed(0)
    network = SmallUNet(**SMALL | changes)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return network.eval()


def inputs(seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    noisy = torch.randn(2, 19, 16, 16, generator=generator)
    return noisy, torch.tensor([10, 900]), torch.randn(2, 4, 5, generator=generator)


@torch.no_grad()
def test_every_input_changes_the_prediction_of_its_own_atlas() -> None:
    network, (noisy, times, captions) = made(), inputs()
    before = network(noisy, times, captions).sample
    assert before.shape == (2, 16, 16, 16)
    other = inputs(2)
    for changed in (
        (torch.stack([other[0][0], noisy[1]]), times, captions),
        (noisy, torch.tensor([500, 900]), captions),
        (noisy, times, torch.stack([other[2][0], captions[1]])),
    ):
        after = network(*changed).sample
        assert (after[0] - before[0]).abs().max() > 1e-3
        torch.testing.assert_close(after[1], before[1])


@torch.no_grad()
def test_captions_differ_by_the_order_of_their_tokens_and_tokens_beyond_are_dropped() -> None:
    network, (noisy, times, captions) = made(), inputs()
    before = network(noisy, times, captions).sample
    assert (network(noisy, times, captions.flip(1)).sample - before).abs().max() > 1e-3
    torch.testing.assert_close(network(noisy, times, torch.cat([captions, captions], 1)).sample, before)
    # shorter captions are those that end with zeros
    padded = torch.cat([captions[:, :2], torch.zeros(2, 2, 5)], 1)
    torch.testing.assert_close(network(noisy, times, captions[:, :2]).sample, network(noisy, times, padded).sample)


@torch.no_grad()
def test_learned_maps_tell_places_apart() -> None:
    """Far from the border a constant input gives a constant prediction, but for learned maps."""
    noisy = torch.ones(1, 19, 64, 64)
    spread = {}
    variants: dict[str, dict[str, Any]] = {
        "none": {"learned_maps": False, "rank": 0},
        "one": {"rank": 0},
        "mixed": {"rank": 2},
    }
    for name, changes in variants.items():
        network = made(sample_size=64, summary=0, widths=(8,), patch=2, **changes)
        patches = network(noisy, 500, torch.zeros(1, 4, 5)).sample[0, :, 24:40:2, 24:40:2]
        spread[name] = float(patches.std((1, 2)).max())
    assert spread["none"] < 1e-5
    assert min(spread["one"], spread["mixed"]) > 1e-2


@torch.no_grad()
def test_the_caption_mixes_the_maps_of_the_output() -> None:
    network, (noisy, times, captions) = made(output_rank=3), inputs()
    with_maps = network(noisy, times, captions).sample
    other = network(noisy, times, captions.flip(0)).sample
    network.output_positions.fixed.zero_()
    network.output_positions.mixed.zero_()
    maps = with_maps - network(noisy, times, captions).sample
    assert maps[0].std((1, 2)).min() > 1e-3, "a map is no constant"
    assert (maps[0] - (other - network(noisy, times, captions.flip(0)).sample)[0]).abs().max() > 1e-3
    assert (maps[0] - maps[1]).abs().max() > 1e-3


@torch.no_grad()
def test_the_condition_of_the_way_up_knows_the_noisy_atlas_where_there_is_a_summary() -> None:
    for summary, known in ((0, False), (4, True)):
        network, seen = made(summary=summary), []
        network.up[-1].register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[1]))
        noisy, times, captions = inputs()
        network(noisy, times, captions)
        network(noisy.flip(3), times, captions)
        assert bool((seen[0] - seen[1]).abs().max() > 1e-3) is known


@torch.no_grad()
def test_files_keep_configuration_and_weights(tmp_path: Path) -> None:
    network = made(rank=3, output_rank=2)
    network.save_pretrained(tmp_path)
    loaded = SmallUNet.from_pretrained(tmp_path, local_files_only=True)
    torch.testing.assert_close(loaded(*inputs()).sample, network(*inputs()).sample, rtol=0, atol=0)
    assert loaded(*inputs(), return_dict=False)[0].shape == (2, 16, 16, 16)


def test_arguments_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match="sample_size 20 is no multiple of 8"):
        SmallUNet(**SMALL | {"sample_size": 20})
    with pytest.raises(ValueError, match="rank 3, output_rank 0 without learned_maps"):
        SmallUNet(**SMALL | {"learned_maps": False, "rank": 3})
    with pytest.raises(ValueError, match="output_rank 2 without learned_maps"):
        SmallUNet(**SMALL | {"learned_maps": False, "rank": 0, "output_rank": 2})
