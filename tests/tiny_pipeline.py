"""Folders of Stable Diffusion 2's and of CLIP's shape, with random weights and real byte-pair encoding."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from gaussianverse.fitter.vision import import_torchvision

import_torchvision()  # which diffusers and transformers import

from diffusers import DDPMScheduler, UNet2DConditionModel  # noqa: E402
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPTextModel  # noqa: E402

TEXT = (
    "a caption of a ball, a red ball on the green floor, the caption of an old wooden chair with four legs, "
    "a small boat with a white sail, captions of balls and of chairs and of boats, a low-poly tree in a round pot"
)
WIDTH, LENGTH = 32, 77


def write_tokenizer(folder: Path) -> int:
    """Train byte-pair encoding on `TEXT` and write it as CLIP's tokenizer has it; returns the number of tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    trained.train_from_iterator([TEXT], trainer)
    trained.model.save(str(folder))
    merges = [line for line in (folder / "merges.txt").read_text().splitlines() if not line.startswith("#")]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(m.split()) for m in merges)]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: k for k, token in enumerate(dict.fromkeys(vocabulary))}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    about = {
        "add_prefix_space": False, "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>", "pad_token": "!", "do_lower_case": True, "model_max_length": LENGTH,
        "tokenizer_class": "CLIPTokenizer",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return len(dict.fromkeys(vocabulary))


def write_pipeline(folder: Path, prediction: str = "epsilon") -> Path:
    """Write a pipeline of Stable Diffusion 2's shape: unet, text_encoder, tokenizer and scheduler."""
    torch.manual_seed(0)
    tokens = write_tokenizer(folder / "tokenizer")
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=tokens, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=LENGTH, projection_dim=WIDTH, bos_token_id=tokens - 2, eos_token_id=tokens - 1,
        )
    ).save_pretrained(folder / "text_encoder")  # fmt: skip
    UNet2DConditionModel(
        sample_size=64, in_channels=4, out_channels=4, block_out_channels=(16, 16, 32), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=WIDTH,
        attention_head_dim=[2, 2, 4], norm_num_groups=8, use_linear_projection=True,
    ).save_pretrained(folder / "unet")  # fmt: skip
    DDPMScheduler(
        prediction_type=prediction, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
    ).save_pretrained(folder / "scheduler")
    return folder


def write_clip(folder: Path) -> Path:
    """Write a CLIP model with random weights, as transformers saves one."""
    torch.manual_seed(0)
    tokens = write_tokenizer(folder)
    text = {
        "vocab_size": tokens, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": LENGTH, "bos_token_id": tokens - 2,
        "eos_token_id": tokens - 1,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
