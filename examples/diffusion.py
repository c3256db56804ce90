"""UNet with 16 channels, caption embeddings and noise schedule, shared by training and sampling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gaussianverse.atlas.dataset_format import CHANNELS
from gaussianverse.fitter.vision import import_torchvision

import_torchvision()  # which diffusers and transformers import

from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel  # noqa: E402

_TINY_WIDTH, _TINY_TOKENS = 16, 32


class Embed(Protocol):
    """Embedding of captions, to which the UNet attends."""

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Embed B captions as [B, T, D]."""


def load_unet(folder: Path) -> Any:
    """Load the UNet of a diffusers checkpoint on disk, `FOLDER/unet`, without network access."""
    return UNet2DConditionModel.from_pretrained(folder, subfolder="unet", local_files_only=True)


def tiny_unet(size: int) -> Any:
    """Make a small UNet with random weights and the 4 channels of an image model, for trials."""
    return UNet2DConditionModel(
        sample_size=size, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=_TINY_WIDTH, norm_num_groups=8, attention_head_dim=4,
    )  # fmt: skip


def widened(unet: Any) -> Any:
    """Widen a UNet to 16 channels in and out by repeating its first and last layers (paper section 5).

    From 4 channels, each layer is repeated four times. The first layer's weights are divided by four, so that four
    equal groups of channels give the original result; the last layer's are not, so that each group equals the
    original output. (`ignore_mismatched_sizes` would initialise both layers at random.)

    Raises:
        ValueError: the checkpoint's channels do not divide 16.
    """
    old_in, old_out = unet.config.in_channels, unet.config.out_channels
    if CHANNELS % old_in or CHANNELS % old_out:
        raise ValueError(f"the UNet has {old_in} channels in and {old_out} out, expected divisors of {CHANNELS}")
    times_in, times_out = CHANNELS // old_in, CHANNELS // old_out
    first, last = unet.conv_in, unet.conv_out
    unet.conv_in = _like(first, CHANNELS, first.out_channels)
    unet.conv_out = _like(last, last.in_channels, CHANNELS)
    with torch.no_grad():
        unet.conv_in.weight.copy_(first.weight.repeat(1, times_in, 1, 1) / times_in)
        unet.conv_in.bias.copy_(first.bias)
        unet.conv_out.weight.copy_(last.weight.repeat(times_out, 1, 1, 1))
        unet.conv_out.bias.copy_(last.bias.repeat(times_out))
    unet.register_to_config(in_channels=CHANNELS, out_channels=CHANNELS)
    return unet


def _like(layer: nn.Conv2d, channels_in: int, channels_out: int) -> nn.Conv2d:
    new = nn.Conv2d(channels_in, channels_out, layer.kernel_size, padding=layer.padding)  # type: ignore[arg-type]
    return new.to(layer.weight)


def noise_schedule() -> Any:
    """Forward process: 1000 steps, v-prediction, zero signal at the last step."""
    return DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction",
        rescale_betas_zero_snr=True, clip_sample=False, timestep_spacing="trailing",
    )  # fmt: skip


def solver(schedule: Any, steps: int) -> Any:
    """Second-order DPM-Solver++ for the same process."""
    made = DPMSolverMultistepScheduler.from_config(schedule.config, algorithm_type="dpmsolver++", solver_order=2)
    made.set_timesteps(steps)
    return made


def clip_embeddings(folder: Path, device: torch.device) -> Embed:
    """Load the text encoder of a checkpoint on disk, `FOLDER/tokenizer` and `FOLDER/text_encoder`."""
    from transformers import CLIPTextModel, CLIPTokenizer  # extra `train`

    tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)
    encoder: Any = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", local_files_only=True)
    encoder = encoder.to(device).eval().requires_grad_(False)

    def embed(captions: Sequence[str]) -> Tensor:
        tokens = tokenizer(
            list(captions), padding="max_length", truncation=True, max_length=tokenizer.model_max_length,
            return_tensors="pt",
        )  # fmt: skip
        with torch.no_grad():
            states: Tensor = encoder(tokens.input_ids.to(device))[0]
        return states

    return embed


def byte_embeddings(device: torch.device) -> Embed:
    """Embed each byte of a caption as a fixed random vector, instead of a text encoder."""
    table = torch.randn(256, _TINY_WIDTH, generator=torch.Generator().manual_seed(0))

    def embed(captions: Sequence[str]) -> Tensor:
        rows = torch.zeros(len(captions), _TINY_TOKENS, _TINY_WIDTH)
        for row, caption in zip(rows, captions, strict=True):
            letters = torch.tensor(list(caption.encode()[:_TINY_TOKENS]), dtype=torch.long)
            row[: len(letters)] = table[letters]
        return rows.to(device)

    return embed
