"""Embedding of captions: a checkpoint's text encoder, or a fixed vector of each word for small networks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gaussianverse.examples.errors import TrainingError
from gaussianverse.fitter.vision import import_torchvision

Embed = Callable[[Sequence[str]], Tensor]
"""Embed B captions as [B, T, D], to which a network attends. "" stands for no caption."""
_CACHED = 4096


def hashed_words(width: int = 64, tokens: int = 24) -> Embed:
    """Embed each word as a fixed random vector that its hash gives, and no caption as zeros.

    Nothing is learnt or loaded: small networks tell captions apart by it, but not that two words mean the same.

    Args:
        width: components of a vector.
        tokens: words of a caption that count; the first ones.
    """

    @lru_cache(_CACHED)
    def word_vector(word: str) -> Tensor:
        seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=7).digest())
        return torch.randn(width, generator=torch.Generator().manual_seed(seed))

    @lru_cache(_CACHED)
    def rows(caption: str) -> Tensor:
        made = torch.zeros(tokens, width)
        for row, word in zip(made, re.findall(r"\w+", caption.lower()), strict=False):
            row.copy_(word_vector(word))
        return made

    return lambda captions: torch.stack([rows(caption) for caption in captions])


def clip_embeddings(folder: Path, device: torch.device) -> Embed:
    """The text encoder of a diffusers pipeline on disk, `FOLDER/tokenizer` and `FOLDER/text_encoder`.

    Raises:
        TrainingError: the pipeline has none.
    """
    for part in ("tokenizer", "text_encoder"):
        if not (folder / part).is_dir():
            raise TrainingError(
                f"{folder}: no {part}/: pass the folder of a whole diffusers pipeline, such as SD 2's"
            )
    import_torchvision()
    from transformers import CLIPTextModel, CLIPTokenizer

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


def dropped(captions: Sequence[str], share: float, generator: torch.Generator) -> list[str]:
    """Leave a random share of the captions empty, for classifier-free guidance."""
    drop = (torch.rand(len(captions), generator=generator) < share).tolist()
    return ["" if gone else caption for caption, gone in zip(captions, drop, strict=True)]
