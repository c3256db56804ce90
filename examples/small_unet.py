"""A small UNet for training on CPUs, with the call of diffusers' UNet2DConditionModel.

It differs from the UNet of an image model in what makes a few CPU minutes enough (docs/learning.md): it works on
patches of cells; a caption acts on all channels by scale and shift, not by attention; and learned maps, some of them
mixed by the caption, tell cells apart, which unlike the pixels of an image are always the same places of the sphere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gaussianverse.atlas.dataset_format import CHANNELS
from gaussianverse.fitter.vision import import_torchvision

import_torchvision()  # which diffusers imports

from diffusers import ModelMixin  # noqa: E402
from diffusers.configuration_utils import ConfigMixin, register_to_config  # noqa: E402
from diffusers.models.embeddings import get_timestep_embedding  # noqa: E402
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput  # noqa: E402

_GROUPS, _TIME_WIDTH, _MAP_SCALE = 8, 64, 0.5


def _start_at_zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class _Captions(nn.Module):
    """One vector of a caption's tokens [B, T, D] -> [B, width]; all zeros, a dropped caption, is one as well."""

    def __init__(self, tokens: int, token_width: int, width: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.first = nn.Linear(tokens * token_width, width)
        # normalised last: captions differ by as much as random vectors do, from the first step on
        self.second = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width), nn.LayerNorm(width))

    def forward(self, states: Tensor) -> Tensor:
        states = states[:, : self.tokens]
        states = nn.functional.pad(states, (0, 0, 0, self.tokens - states.shape[1]))
        result: Tensor = self.second(self.first(states.flatten(1)))
        return result


class _Block(nn.Module):
    """Two convolutions with a shortcut; `condition` [B, E] scales and shifts what is between them."""

    def __init__(self, channels_in: int, channels_out: int, condition: int) -> None:
        super().__init__()
        self.first_norm = nn.GroupNorm(_GROUPS, channels_in)
        self.first = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.second_norm = nn.GroupNorm(_GROUPS, channels_out)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.scale_shift = nn.Linear(condition, 2 * channels_out)
        same = channels_in == channels_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)
        _start_at_zero(self.second)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.first(nn.functional.silu(self.first_norm(x)))
        scale, shift = self.scale_shift(condition)[:, :, None, None].chunk(2, 1)
        h = self.second(nn.functional.silu(self.second_norm(h) * (1 + scale) + shift))
        result: Tensor = self.shortcut(x) + h
        return result


class _Positions(nn.Module):
    """Adds a learned map [C, side, side], and `rank` others in a mixture that the condition gives."""

    def __init__(self, rank: int, channels: int, side: int, condition: int) -> None:
        super().__init__()
        self.fixed = nn.Parameter(_MAP_SCALE * torch.randn(1, channels, side, side))
        self.mix = nn.Linear(condition, rank) if rank else None
        if rank:
            self.mixed = nn.Parameter(_MAP_SCALE * rank**-0.5 * torch.randn(rank, channels * side * side))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = x + self.fixed.to(x.dtype)
        if self.mix is not None:
            x = x + (self.mix(condition) @ self.mixed).view(-1, *self.fixed.shape[1:]).to(x.dtype)
        return x


class SmallUNet(ModelMixin, ConfigMixin):
    """UNet over patches of an atlas, conditioned on a caption by scale and shift.

    Args:
        sample_size: side of the atlas in cells, a multiple of patch * 2^(number of widths - 1).
        in_channels: of the input; those beyond out_channels are positional inputs.
        out_channels: of the prediction.
        cross_attention_dim: D of encoder_hidden_states.
        tokens: tokens of encoder_hidden_states that are read; further ones are dropped.
        widths: channels at each resolution, multiples of 8, finest first.
        condition: width of the vector of caption and time.
        patch: side of a patch in cells.
        learned_maps: whether learned maps are added at each resolution; "position" is in their parameters' names.
        rank: learned maps that the condition mixes, at each resolution of the way up but the finest, and before the
            last layer; they need `learned_maps`.
        output_rank: learned maps at the resolution of the atlas that the condition mixes and adds to the prediction;
            0 = none. As many as there are objects can store each of them whole: a look-up by the caption.
        head_width: channels from which the last layer makes a patch. They bound what can be learnt: 64 numbers per
            patch of the four sample objects make at best 21.5 dB, 192 make 41 dB (by principal components).
        summary: channels of the coarsest resolution that tell the way up what the noisy atlas shows as a whole, by
            its condition; 0: that depends on caption and time alone.

    Raises:
        ValueError: these do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 128,
        in_channels: int = CHANNELS,
        out_channels: int = CHANNELS,
        cross_attention_dim: int = 16,
        tokens: int = 32,
        widths: Sequence[int] = (64, 128, 192),
        condition: int = 256,
        patch: int = 4,
        learned_maps: bool = True,
        rank: int = 8,
        output_rank: int = 0,
        head_width: int = 192,
        summary: int = 16,
    ) -> None:
        super().__init__()
        last = len(widths) - 1
        if sample_size % (patch << last):
            raise ValueError(
                f"sample_size {sample_size} is no multiple of {patch << last}: patches of {patch} cells, halved "
                f"{last} times"
            )
        if (rank or output_rank) and not learned_maps:
            raise ValueError(f"rank {rank}, output_rank {output_rank} without learned_maps: set both to 0")
        self.time = nn.Sequential(nn.Linear(_TIME_WIDTH, condition), nn.SiLU(), nn.Linear(condition, condition))
        self.captions = _Captions(tokens, cross_attention_dim, condition)
        self.conv_in = nn.Conv2d(in_channels * patch**2, widths[0], 1)
        sides = [(sample_size // patch) >> level for level in range(len(widths))]
        levels = list(zip(widths, sides, strict=True)) if learned_maps else []
        self.positions = nn.ModuleList(_Positions(0, width, side, condition) for width, side in levels)
        self.down = nn.ModuleList(_Block(widths[max(i - 1, 0)], width, condition) for i, width in enumerate(widths))
        self.middle = _Block(widths[-1], widths[-1], condition)
        if summary:
            self.reduce = nn.Conv2d(widths[-1], summary, 1)
            self.overview = nn.Linear(summary * sides[-1] ** 2, condition)
            _start_at_zero(self.overview)
        self.up = nn.ModuleList(
            _Block(widths[i] + widths[min(i + 1, last)], widths[i], condition) for i in range(last, -1, -1)
        )
        if rank:
            self.up_positions = nn.ModuleList(_Positions(rank, *level, condition) for level in reversed(levels[1:]))
        self.norm_out = nn.GroupNorm(_GROUPS, widths[0])
        self.head = nn.Conv2d(widths[0], head_width, 1)
        if learned_maps:
            self.head_positions = _Positions(rank, head_width, sides[0], condition)
        self.conv_out = nn.Conv2d(head_width, out_channels * patch**2, 1)
        _start_at_zero(self.conv_out)
        if output_rank:
            self.output_positions = _Positions(output_rank, out_channels, sample_size, condition)
            nn.init.zeros_(self.output_positions.fixed)
            nn.init.zeros_(self.output_positions.mixed)

    def forward(
        self, sample: Tensor, timestep: Tensor | float, encoder_hidden_states: Tensor, return_dict: bool = True
    ) -> Any:
        """Predict from noisy atlases.

        Args:
            sample: [B, in_channels, S, S].
            timestep: of the noise, [B] or one for all.
            encoder_hidden_states: embedded captions, [B, T, D].
            return_dict: whether to return an object with `sample`, as diffusers' pipelines expect, or a tuple.

        Returns:
            The prediction, [B, out_channels, S, S].
        """
        times = torch.as_tensor(timestep, device=sample.device).expand(len(sample))
        embedded = get_timestep_embedding(times, _TIME_WIDTH).to(self.conv_in.weight.dtype)
        state = self.time(embedded) + self.captions(encoder_hidden_states)
        condition = nn.functional.silu(state)
        h = nn.functional.pixel_unshuffle(sample, self.config["patch"])
        h = self.conv_in(h.contiguous(memory_format=torch.channels_last))
        skips = []
        for level, block in enumerate(self.down):
            h = block(nn.functional.avg_pool2d(h, 2) if level else h, condition)
            if self.config["learned_maps"]:
                h = self.positions[level](h, condition)
            skips.append(h)
        h = self.middle(h, condition)
        if self.config["summary"]:
            condition = nn.functional.silu(state + self.overview(nn.functional.silu(self.reduce(h)).flatten(1)))
        for level, block in enumerate(self.up):
            h = nn.functional.interpolate(h, scale_factor=2) if level else h
            h = block(torch.cat([h, skips.pop()], 1), condition)
            if self.config["rank"] and level < len(self.up) - 1:
                h = self.up_positions[level](h, condition)
        h = self.head(nn.functional.silu(self.norm_out(h)))
        if self.config["learned_maps"]:
            h = self.head_positions(h, condition)
        h = self.conv_out(nn.functional.silu(h))
        result = nn.functional.pixel_shuffle(h, self.config["patch"]).to(sample.dtype)
        if self.config["output_rank"]:
            result = self.output_positions(result, condition)
        return UNet2DConditionOutput(sample=result) if return_dict else (result,)
