"""A trained model as `train_atlas` saves it: its averaged network, what it sees, its noise levels and captions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gaussianverse.examples import sampling
from gaussianverse.examples.captions import Embed, clip_embeddings, encoder_digest, hashed_words
from gaussianverse.examples.errors import TrainingError
from gaussianverse.examples.networks import load_network
from gaussianverse.examples.process import Process, load_process
from gaussianverse.examples.representation import Representation

ABOUT = "about.json"
CLIP, WORDS = "clip", "words"
"""Embedding of captions: a checkpoint's text encoder, or `hashed_words`."""


@dataclass(frozen=True)
class Trained:
    """A model that samples.

    Attributes:
        network: with its averaged weights.
        process: noise levels, and what it predicts.
        representation: what it sees.
        embed: embedding of captions.
        caption_dropout: share of captions that were left out in training.
    """

    network: Any
    process: Process
    representation: Representation
    embed: Embed
    caption_dropout: float

    def predict(self, noisy: Tensor, times: Tensor, embedded: Tensor) -> Tensor:
        """The network's output, see `sampling.Predict`; in bfloat16 on a GPU."""
        device = noisy.device.type
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            output: Tensor = self.network(self.representation.inputs(noisy), times, embedded).sample
        return output.float()

    def sample(
        self, captions: Sequence[str], seeds: Sequence[int], *, steps: int, guidance: float, solver: str,
        at_once: int = 16,
    ) -> Tensor:  # fmt: skip
        """Sample atlases, one of each caption, [B, 16, S, S] in their own units; see `sampling.sample`.

        Raises:
            TrainingError: also where the network has never seen a caption, or never none, and is to now.
        """
        if self.caption_dropout == 1 and any(captions):
            raise TrainingError("trained without captions (--caption-dropout 1): sample with --unconditional")
        if self.caption_dropout == 0 and (guidance != 1 or not all(captions)):
            raise TrainingError(
                "trained with --caption-dropout 0, so that guidance and samples without a caption mean nothing: pass "
                "--guidance 1 and captions, or train with a dropout such as 0.1"
            )
        return sampling.sample(
            self.predict, self.process, self.representation, self.embed, captions, seeds=seeds, steps=steps,
            guidance=guidance, solver=solver, at_once=at_once,
        )  # fmt: skip


def load_trained(folder: Path, checkpoint: Path | None, device: torch.device) -> Trained:
    """Load a step-* folder.

    Args:
        folder: written by `train_atlas`.
        checkpoint: the diffusers pipeline whose text encoder it was trained with; None = it had none.
        device: where to run it.

    Raises:
        TrainingError: no such folder, or it needs another text encoder.
    """
    representation = Representation.load(folder).to(device)
    if not (folder / ABOUT).is_file():
        raise TrainingError(f"{folder}: no {ABOUT}: pass a step-* folder that train_atlas wrote")
    settings = json.loads((folder / ABOUT).read_text())["settings"]
    if settings["statistics"] != representation.digest:
        raise TrainingError(
            f"{folder}: trained with statistics {settings['statistics'][:12]}, its representation is made of "
            f"{representation.digest[:12]}: take all files of one step-* folder"
        )
    embed = embedding(settings["captions"], checkpoint, device)
    network = load_network(folder).to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
    dropout = settings["training"]["caption_dropout"]
    return Trained(network, load_process(folder).to(device), representation, embed, dropout)


def embedding(captions: dict[str, Any], checkpoint: Path | None, device: torch.device) -> Embed:
    """The embedding that a checkpoint's settings name.

    Raises:
        TrainingError: a text encoder is needed and not given, given and not needed, or another one.
    """
    if (captions["kind"] == CLIP) != (checkpoint is not None):
        needed = (
            "pass --checkpoint with" if captions["kind"] == CLIP else "leave --checkpoint out, it was trained without"
        )
        raise TrainingError(f"captions are embedded by {captions['kind']!r}: {needed} a text encoder")
    if checkpoint is not None:
        if (found := encoder_digest(checkpoint)) != captions["digest"]:
            raise TrainingError(
                f"{checkpoint}: its text encoder is {found[:12]}, trained with was {captions['digest'][:12]}: pass "
                "the pipeline that train_atlas was given"
            )
        return clip_embeddings(checkpoint, device)
    return hashed_words(captions["width"], captions["tokens"])
