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

from gaussianverse.atlas import AtlasDataset
from gaussianverse.examples.errors import TrainingError
from gaussianverse.fitter.vision import import_torchvision

Embed = Callable[[Sequence[str]], Tensor]
"""Embed B captions as [B, T, D], to which a network attends. "" stands for no caption."""
_CACHED = 4096
_PARTS, _WORDS = ("tokenizer", "text_encoder"), ("vocab.json", "merges.txt", "tokenizer.json")


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
    _check_parts(folder)
    import_torchvision()
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)
    encoder: Any = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", local_files_only=True)
    # a folder in half precision is loaded as such
    encoder = encoder.to(device, torch.float32).eval().requires_grad_(False)

    def embed(captions: Sequence[str]) -> Tensor:
        tokens = tokenizer(
            list(captions), padding="max_length", truncation=True, max_length=tokenizer.model_max_length,
            return_tensors="pt",
        )  # fmt: skip
        with torch.no_grad():
            states: Tensor = encoder(tokens.input_ids.to(device))[0]
        return states

    return embed


def encoder_digest(folder: Path) -> str:
    """Hex sha256 of a pipeline's words and of the files of its text encoder, which say how it embeds captions.

    Raises:
        TrainingError: the pipeline has none.
    """
    _check_parts(folder)
    tokenizer, encoder = (folder / part for part in _PARTS)
    weights = sorted(encoder.glob("*.safetensors")) or sorted(encoder.glob("*.bin"))
    found = hashlib.sha256()
    for path in [*(p for name in _WORDS if (p := tokenizer / name).is_file()), *weights]:
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def _check_parts(folder: Path) -> None:
    for part in _PARTS:
        if not (folder / part).is_dir():
            raise TrainingError(
                f"{folder}: no {part}/: pass the folder of a whole diffusers pipeline, such as SD 2's"
            )


def dropped(captions: Sequence[str], share: float, generator: torch.Generator) -> list[str]:
    """Leave a random share of the captions empty, for classifier-free guidance."""
    drop = (torch.rand(len(captions), generator=generator) < share).tolist()
    return ["" if gone else caption for caption, gone in zip(captions, drop, strict=True)]


def check_captions(dataset: AtlasDataset, dropout: float) -> None:
    """Raise TrainingError if a network that learns captions would meet objects without one."""
    if dropout == 1:
        return
    column = dataset.catalogue.column("caption").take(dataset.samples.places)
    if without := sum(not caption.strip() for caption in column.to_pylist()):
        raise TrainingError(
            f"{dataset.catalogue.url}: {without} of {len(column)} objects have no caption: leave them out "
            '(filters=[("caption", "!=", "")], --captioned), or learn without captions (caption_dropout=1)'
        )
