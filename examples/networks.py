"""Networks that predict atlases: Stable Diffusion's UNet, widened to an atlas's channels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gaussianverse.atlas.dataset_format import CHANNELS
from gaussianverse.examples.captions import Embed
from gaussianverse.examples.errors import TrainingError
from gaussianverse.examples.representation import Representation
from gaussianverse.examples.small_unet import SmallUNet
from gaussianverse.fitter.vision import import_torchvision

import_torchvision()  # which diffusers imports

from diffusers import UNet2DConditionModel  # noqa: E402

_CLASSES = {"UNet2DConditionModel": UNet2DConditionModel, "SmallUNet": SmallUNet}


def widened(unet: Any, channels_in: int = CHANNELS) -> Any:
    """Widen a UNet to 16 channels out and 16 or more in by repeating its first and last layers (paper section 5).

    From 4 channels, each layer is repeated four times. The first layer's weights are divided by four, so that four
    equal groups of channels give the original result; the last layer's are not, so that each group equals the
    original output. (`ignore_mismatched_sizes` would initialise both layers at random.) What is read beyond the
    sixteen, such as sphere points, has no influence at first.

    Args:
        unet: diffusers' UNet2DConditionModel; changed in place. One that has these channels already stays as it is.
        channels_in: channels that it is to read.

    Raises:
        TrainingError: the checkpoint's channels do not divide 16.
    """
    old_in, old_out = unet.config.in_channels, unet.config.out_channels
    if (old_in, old_out) == (channels_in, CHANNELS):
        return unet
    if CHANNELS % old_in or CHANNELS % old_out:
        raise TrainingError(
            f"the UNet has {old_in} channels in and {old_out} out, expected divisors of {CHANNELS}: an inpainting, "
            "depth or upscaling checkpoint cannot be widened; take one of plain text to image"
        )
    times_in, times_out = CHANNELS // old_in, CHANNELS // old_out
    first, last = unet.conv_in, unet.conv_out
    unet.conv_in = _like(first, channels_in, first.out_channels)
    unet.conv_out = _like(last, last.in_channels, CHANNELS)
    with torch.no_grad():
        unet.conv_in.weight.zero_()
        unet.conv_in.weight[:, :CHANNELS] = first.weight.repeat(1, times_in, 1, 1) / times_in
        unet.conv_in.bias.copy_(first.bias)
        unet.conv_out.weight.copy_(last.weight.repeat(times_out, 1, 1, 1))
        unet.conv_out.bias.copy_(last.bias.repeat(times_out))
    unet.register_to_config(in_channels=channels_in, out_channels=CHANNELS)
    return unet


def _like(layer: nn.Conv2d, channels_in: int, channels_out: int) -> nn.Conv2d:
    new = nn.Conv2d(channels_in, channels_out, layer.kernel_size, padding=layer.padding)  # type: ignore[arg-type]
    return new.to(layer.weight)


@torch.no_grad()
def check_network(network: Any, representation: Representation, embed: Embed) -> None:
    """Raise TrainingError if the network does not take these atlases and captions."""
    size, channels = representation.size, representation.channels_in
    values = torch.zeros(1, channels, size, size, device=representation.mean.device)
    captions = embed([""]).to(values.device)
    about = f"atlases [{channels}, {size}, {size}] and captions {list(captions.shape[1:])}"
    try:
        made = network(values, torch.zeros(1, dtype=torch.long, device=values.device), captions).sample
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"the network cannot take {about}: {error}. The side must be divisible as often as the network halves "
            "it, channels must be those of the representation, and captions of the text encoder that it was made for"
        ) from error
    if list(made.shape) != [1, CHANNELS, size, size]:
        raise TrainingError(
            f"the network makes {list(made.shape)} of {about}, expected [1, {CHANNELS}, {size}, {size}]"
        )


def keep_fewer_activations(network: Any) -> None:
    """Turn on gradient checkpointing; TrainingError if the network has none."""
    try:
        network.enable_gradient_checkpointing()
    except (AttributeError, ValueError) as error:
        raise TrainingError(
            f"{type(network).__name__} has no gradient checkpointing: leave --gradient-checkpointing out, and lower "
            "--batch-size to save memory"
        ) from error


def load_network(folder: Path) -> Any:
    """Load the network of a checkpoint, `FOLDER/unet`, of the class that its config.json names.

    Raises:
        TrainingError: there is none, or of an unknown class, or its weights are not there.
    """
    if not (folder / "unet" / "config.json").is_file():
        raise TrainingError(f"{folder}: no unet/config.json: pass the folder of a diffusers pipeline, or a step-*")
    name = json.loads((folder / "unet" / "config.json").read_text()).get("_class_name")
    if name not in _CLASSES:
        raise TrainingError(f"{folder}/unet: a {name}, expected one of {', '.join(_CLASSES)}")
    try:
        return _CLASSES[name].from_pretrained(folder, subfolder="unet", local_files_only=True)
    except OSError as error:
        raise TrainingError(f"{folder}/unet: its weights cannot be read: {error}") from error


def small_network(size: int, channels_in: int, width: int, tokens: int) -> Any:
    """A small UNet with random weights, for trainings on CPUs.

    Args:
        size: side of the atlases.
        channels_in: channels that it reads.
        width, tokens: of embedded captions.

    Raises:
        TrainingError: it has no atlases of this size.
    """
    try:
        return SmallUNet(sample_size=size, in_channels=channels_in, cross_attention_dim=width, tokens=tokens)
    except ValueError as error:
        raise TrainingError(f"the small network cannot take atlases of {size} cells: {error}") from error
