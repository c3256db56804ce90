"""Epochs of any length and without an end, in the loaders and loops that people use."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from reader_loops import BATCH, orders, publish, uids
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from gaussianverse import AtlasDataset, AtlasLoader
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.loader import collate

CLASSES = {"AtlasLoader": AtlasLoader, "DataLoader": DataLoader, "StatefulDataLoader": StatefulDataLoader}
WORKERS = [{}, {"num_workers": 2, "persistent_workers": True}]
LENGTHS = [27, 100]
"""Samples of an epoch: fewer and more than there are."""
every_loader = pytest.mark.parametrize("kind", CLASSES)
every_workers = pytest.mark.parametrize("workers", WORKERS, ids=["none", "two"])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("dataset"))


def loader_of(kind: str, root: Path, workers: dict[str, Any], **how: Any) -> Any:
    dataset = AtlasDataset(root, batch_size=BATCH, **how)
    return CLASSES[kind](dataset, batch_size=BATCH, collate_fn=collate, **workers)


def some(batches: Any, count: int) -> list[str]:
    """The uids of so many batches."""
    return uids(islice(batches, count))


def cut(root: Path, length: int, epochs: range) -> list[str]:
    """The uids of epochs of this length."""
    rounds = range(epochs.stop * length // 41 + 1)
    return orders(root, *rounds)[epochs.start * length : epochs.stop * length]


@every_loader
@every_workers
def test_an_epoch_has_as_many_samples_as_asked_and_goes_on_in_the_next(
    root: Path, kind: str, workers: dict[str, Any]
) -> None:
    for length in LENGTHS:
        loader = loader_of(kind, root, workers, epoch_samples=length)
        assert len(loader) == -(-length // BATCH)
        for epoch in range(3):
            assert uids(loader) == cut(root, length, range(epoch, epoch + 1))
        # an epoch that was broken off, and one that was chosen
        some(iter(loader), 2)
        loader.dataset.set_epoch(5)
        assert uids(loader) == cut(root, length, range(5, 6))


@pytest.mark.parametrize("kind", ["AtlasLoader", "StatefulDataLoader"])
@every_workers
@pytest.mark.parametrize(
    ("how", "stops"), [({"epoch_samples": 27}, [1, 6, 7, 8]), ({"infinite": True}, [1, 10, 11, 12])]
)
def test_a_state_after_any_batch_of_such_an_epoch_continues_with_the_next(
    root: Path, kind: str, workers: dict[str, Any], how: dict[str, Any], stops: list[int]
) -> None:
    loader, states, read = loader_of(kind, root, workers, **how), list[Any](), list[list[str]]()
    for batch in islice(passes(loader), 30):
        read.append(batch["uid"])
        states.append(copy.deepcopy(loader.state_dict()))
    for stop in stops:
        resumed = loader_of(kind, root, workers, **how)
        resumed.load_state_dict(states[stop - 1])
        # torchdata's pass that is resumed at its last batch may be empty
        found = [batch["uid"] for batch in islice(passes(resumed), 30 - stop)]
        assert found == read[stop:], stop
    if kind == "AtlasLoader":
        other = AtlasLoader(AtlasDataset(root, **how), BATCH, num_workers=3)
        other.load_state_dict(states[stops[-1] - 1])
        assert [batch["uid"] for batch in islice(passes(other), 5)] == read[stops[-1] :][:5]


def passes(loader: Any) -> Iterator[Any]:
    """The batches of pass after pass."""
    while True:
        yield from loader


@every_loader
@every_workers
def test_an_epoch_without_an_end_goes_from_round_to_round(root: Path, kind: str, workers: dict[str, Any]) -> None:
    loader = loader_of(kind, root, workers, infinite=True)
    with pytest.raises(TypeError, match="an infinite dataset has no length: bound the loop by steps, or pass epoch"):
        len(loader)
    first = some(iter(loader), 35)
    # batches are full across rounds
    assert first == orders(root, 0, 1, 2, 3)[: 35 * BATCH]
    second = some(iter(loader), 35)
    alone = AtlasDataset(root, infinite=True)
    alone.set_epoch(1)
    assert second == uids(islice(alone, 35 * BATCH))
    assert first[:41] != second[:41]
    assert sorted(second[:41]) == sorted(first[:41])


def test_a_dataset_alone_reads_such_epochs_too(root: Path) -> None:
    dataset = AtlasDataset(root, infinite=True)
    read = uids(islice(dataset, 50))
    state = dataset.state_dict()
    assert read == orders(root, 0, 1)[:50]
    for after in (1, 2, 3):
        rest = []
        for rank in range(after):
            resumed = AtlasDataset(root, infinite=True, rank=rank, world=after)
            resumed.load_state_dict(state)
            rest += uids(islice(resumed, 32 // after))
        assert rest == orders(root, 1)[9:][: 32 // after * after]
    with pytest.raises(TypeError, match="no length"):
        len(dataset)


def test_states_of_epochs_of_another_length_are_refused(root: Path) -> None:
    state = AtlasDataset(root).state_dict()
    for how, fault in (
        ({"epoch_samples": 27}, "the state has epoch_samples None, this dataset 27"),
        ({"infinite": True}, "the state has infinite False, this dataset True"),
    ):
        dataset = AtlasDataset(root, **how)  # type: ignore[arg-type]
        with pytest.raises(DatasetError, match=fault):
            dataset.load_state_dict(state)
    # as version 0.3 wrote it
    old = {name: value for name, value in state.items() if name not in ("epoch_samples", "infinite", "round")}
    dataset = AtlasDataset(root)
    dataset.load_state_dict({**old, "epoch": 1})
    assert uids(dataset) == orders(root, 1)


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        ({"epoch_samples": 0}, "epoch_samples 0: expected an integer of at least 1"),
        ({"epoch_samples": 1e3}, r"epoch_samples 1000\.0: expected an integer"),
        ({"epoch_samples": True}, "epoch_samples True: expected an integer"),
        ({"epoch_samples": 9, "infinite": True}, "infinite=True never does: leave one of them out"),
        ({"epoch_samples": 2, "rank": 0, "world": 3}, "only 2 samples for 3 ranks: pass uneven="),
        ({"infinite": True, "rank": 0, "world": 42}, "only 41 samples for 42 ranks"),
    ],
)
def test_lengths_that_cannot_be_are_refused(root: Path, how: dict[str, Any], fault: str) -> None:
    with pytest.raises(DatasetError, match=fault):
        AtlasDataset(root, **how)
