"""Runs of several ranks, started by torchrun: torch alone, accelerate, Trainer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from reader_loops import BATCH, SAMPLES, UIDS, named, order_of, publish, uids
from reader_ranks import run_ranks

from gaussianverse import AtlasDataset, AtlasLoader

TAKE_TURNS = 2 * BATCH
"""Samples that two ranks take at a time, if a library gives them batches in turn."""
USE = r"pass rank=0, world=1 or take map_style\(\) .* else use AtlasLoader"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("dataset"))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_torchrun_divides_each_epoch_and_a_state_moves(root: Path, tmp_path: Path, world: int) -> None:
    found = run_ranks(world, "torch", root, tmp_path / "out")
    share = SAMPLES // world
    for epoch in range(2):
        plain = [rank["plain"][epoch] for rank in found]
        assert list(chain(*plain)) == order_of(root, epoch)[: share * world]
        assert {len(read) for read in plain} == {share}
    read = [rank["read"] for rank in found]
    assert read == [order_of(root, 0)[share * r :][: 3 * BATCH] for r in range(world)]
    states = [rank["state"] for rank in found]
    assert all(state == states[0] for state in states)
    for after in (1, 2, 3, 4):
        loaders = [AtlasLoader(AtlasDataset(root, rank=r, world=after), BATCH) for r in range(after)]
        for loader in loaders:
            loader.load_state_dict(states[0])
        rest = [uids(loader) for loader in loaders]
        assert {len(part) for part in rest} == {(SAMPLES - 3 * BATCH * world) // after}
        taken = [*chain(*read), *chain(*rest)]
        assert len(set(taken)) == len(taken) > SAMPLES - after
        assert list(chain(*map(uids, loaders))) == order_of(root, 1)[: SAMPLES // after * after]


def in_turns(shares: Sequence[Sequence[Any]]) -> list[Any]:
    """The reading of ranks that take batches in turn, in the order of the whole."""
    turns = range(0, max(map(len, shares)), BATCH)
    return [item for turn in turns for share in shares for item in share[turn : turn + BATCH]]


def assert_whole(read: list[str], expected: list[str]) -> None:
    """All samples in their order; a last round that is not full is filled up with the first samples."""
    full = len(expected) // TAKE_TURNS * TAKE_TURNS
    assert read[:full] == expected[:full]
    assert set(read) == set(expected)
    assert len(expected) <= len(read) <= full + TAKE_TURNS


def test_accelerate_reads_each_sample_or_refuses(root: Path, tmp_path: Path) -> None:
    found = run_ranks(2, "accelerate", root, tmp_path / "out")
    for dispatch in (True, False):
        passes = zip(*(rank[f"dispatch {dispatch}"] for rank in found), strict=True)
        first, second, rest = (named(root, in_turns(shares)) for shares in passes)
        assert_whole(first, order_of(root, 0))
        assert_whole(second, order_of(root, 1))
        # two of the ranks' batches are skipped
        expected = order_of(root, 2)[2 * TAKE_TURNS :]
        assert rest[:TAKE_TURNS] == expected[:TAKE_TURNS]
        assert set(expected) <= set(rest)
        for rank in found:
            assert_refused(rank[f"refusal {dispatch}"])
    for shares in zip(*(rank["map_style"] for rank in found), strict=True):
        read = named(root, in_turns(shares))
        assert set(read[:SAMPLES]) == set(UIDS)
    for epoch in range(2):
        read = list(chain(*(rank["AtlasLoader"][epoch] for rank in found)))
        assert read == order_of(root, epoch)[: SAMPLES // 2 * 2]


def assert_refused(message: str) -> None:
    """One line, which says what to use."""
    assert re.fullmatch(f"accelerate divides what its loaders read .*{USE}", message)


def test_trainer_reads_each_sample_or_refuses(root: Path, tmp_path: Path) -> None:
    found = run_ranks(2, "trainer", root, tmp_path / "out")
    steps = -(-SAMPLES // TAKE_TURNS)

    def steps_of(run: str) -> list[list[str]]:
        """The reading of both ranks in each step."""
        turns = zip(*(rank[run] for rank in found), strict=True)
        return [named(root, chain(*shares)) for shares in turns]

    for kind in ("iterable", "map_style"):
        whole, resumed = steps_of(f"{kind} whole"), steps_of(f"{kind} resumed")
        assert len(whole) == 2 * steps
        for epoch in range(2):
            read = list(chain(*whole[epoch * steps :][:steps]))
            assert set(read) == set(UIDS)
            if kind == "iterable":
                assert_whole(read, order_of(root, epoch))
        assert resumed == whole[8:]
    for rank in found:
        assert_refused(rank["refusal"])
