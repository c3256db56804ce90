"""A small dataset and the order of its epochs, for the tests of training loops."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from reader_datasets import publish_dataset
from torch import Tensor

from gaussianverse import AtlasDataset

SAMPLES, BATCH = 41, 4
BATCHES = -(-SAMPLES // BATCH)
"""Batches of an epoch; the last one has one sample."""
UIDS = [f"obj{i:02d}" for i in range(SAMPLES)]


def publish(folder: Path, samples: int = SAMPLES, **how: Any) -> Path:
    """Publish shards of up to 10 samples, five by default."""
    return publish_dataset(folder, UIDS[:samples], shard_size=10, **how)


@cache
def order_of(root: Path, epoch: int) -> list[str]:
    """The uids of an epoch in its order, as one process reads them."""
    dataset = AtlasDataset(root, rank=0, world=1)
    dataset.progress.set_epoch(epoch)
    return [item["uid"] for item in dataset]


def orders(root: Path, *epochs: int) -> list[str]:
    """The uids of several epochs, one after the other."""
    return [uid for epoch in epochs for uid in order_of(root, epoch)]


def uids(batches: Iterable[Any]) -> list[str]:
    """The uids of batches, or of samples."""
    read: list[str] = []
    for batch in batches:
        read += [batch["uid"]] if isinstance(batch["uid"], str) else batch["uid"]
    return read


def keys_of(atlases: Tensor) -> list[float]:
    """Numbers that tell samples apart in a batch [B, 16, s, s] that has nothing but atlases."""
    return [float(atlas[0, 0, 0]) for atlas in atlases]


@cache
def uid_of_key(root: Path) -> dict[float, str]:
    """The uid of each such key."""
    found = {keys_of(item["atlas"][None])[0]: item["uid"] for item in AtlasDataset(root, rank=0, world=1)}
    assert len(found) == SAMPLES
    return found


def named(root: Path, keys: Iterable[float]) -> list[str]:
    """The uids of such keys."""
    return [uid_of_key(root)[key] for key in keys]
