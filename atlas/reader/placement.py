"""The place of a process among the ranks of a run, and what else may divide a dataset over them."""

from __future__ import annotations

import sys

import torch

from gaussianverse.atlas.errors import DatasetError


def place(rank: int | None, world: int | None) -> tuple[int, int]:
    """Rank and number of ranks: as given, else those of torch.distributed, else 0 of 1.

    Raises:
        DatasetError: only one of them is given, or no such rank.
    """
    if (rank is None) != (world is None):
        raise DatasetError(f"pass both rank and world, or neither; got {rank} and {world}")
    if rank is None or world is None:
        group = torch.distributed
        if group.is_available() and group.is_initialized():
            return group.get_rank(), group.get_world_size()
        return 0, 1
    if not 0 <= rank < world:
        raise DatasetError(f"rank {rank} of {world}")
    return rank, world


def check_still_placed(rank: int, world: int) -> None:
    """Refuse to read as a rank that torch.distributed has not given.

    Raises:
        DatasetError: torch.distributed was initialised after the dataset was made.
    """
    if place(None, None) not in ((0, 1), (rank, world)):
        raise DatasetError(
            "the dataset was created before torch.distributed was initialised, so every rank would read all of it; "
            "create it afterwards, or pass rank and world"
        )


def check_not_divided_again(world: int, *, placed: bool) -> None:
    """Refuse to be divided over ranks by accelerate too.

    Raises:
        DatasetError: accelerate runs several processes and the dataset is not one for all of them.
    """
    state = sys.modules.get("accelerate.state")
    processes = 1 if state is None else state.PartialState._shared_state.get("num_processes", 1)
    if processes > 1 and not (placed and world == 1):
        raise DatasetError(
            "accelerate divides what its loaders read over the ranks, as this dataset does: pass rank=0, world=1 or "
            "take map_style() for a DataLoader that accelerate (or Trainer) prepares, else use AtlasLoader"
        )
