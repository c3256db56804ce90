"""Each pass is the next epoch and has each sample once, however it is consumed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reader_loops import BATCH, BATCHES, SAMPLES, order_of, orders, publish, uids
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from gaussianverse import AtlasDataset, AtlasLoader
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.loader import collate

WORKERS = [{}, {"num_workers": 2}, {"num_workers": 3, "persistent_workers": True}]
CLASSES = {"AtlasLoader": AtlasLoader, "DataLoader": DataLoader, "StatefulDataLoader": StatefulDataLoader}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("dataset"))


def loader_of(kind: str, dataset: AtlasDataset, **options: Any) -> Any:
    return CLASSES[kind](dataset, batch_size=BATCH, collate_fn=collate, **options)


def every_loader(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test with each kind of loader and of workers."""
    test = pytest.mark.parametrize("workers", WORKERS, ids=["none", "two", "persistent"])(test)
    return pytest.mark.parametrize("kind", CLASSES)(test)


def take(iterator: Iterator[Any], count: int) -> list[str]:
    """The uids of so many batches, or of all if there are fewer."""
    return uids(batch for _, batch in zip(range(count), iterator, strict=False))


@every_loader
def test_passes_are_epochs_however_they_end(root: Path, kind: str, workers: dict[str, Any]) -> None:
    """Exactly len, one less, one more, broken off, stopped early, and whole, in one run."""
    loader = loader_of(kind, AtlasDataset(root, batch_size=BATCH), **workers)
    assert len(loader) == BATCHES
    for epoch, count in enumerate([BATCHES, BATCHES - 1, BATCHES + 1, 1, 5, BATCHES]):
        expected = order_of(root, epoch)[: count * BATCH]
        assert take(iter(loader), count) == expected, (epoch, count)


@every_loader
def test_the_seed_of_torch_does_not_matter(root: Path, kind: str, workers: dict[str, Any]) -> None:
    loader = loader_of(kind, AtlasDataset(root, batch_size=BATCH), **workers)
    for epoch in range(3):
        torch.manual_seed(0)
        assert uids(loader) == order_of(root, epoch)


@pytest.mark.parametrize("workers", WORKERS[:2], ids=["none", "two"])
@pytest.mark.parametrize("kind", CLASSES)
def test_two_iterators_side_by_side_are_two_epochs(root: Path, kind: str, workers: dict[str, Any]) -> None:
    loader = loader_of(kind, AtlasDataset(root, batch_size=BATCH), **workers)
    pairs = list(zip(loader, loader, strict=True))
    found = sorted(
        (uids(batches) for batches in zip(*pairs, strict=True)), key=lambda read: read != order_of(root, 0)
    )
    assert found == [order_of(root, 0), order_of(root, 1)]
    assert uids(loader) == order_of(root, 2)


@every_loader
def test_zip_of_two_loaders_loses_no_epoch(root: Path, kind: str, workers: dict[str, Any]) -> None:
    """The longer one is broken off in each pass, and begins the next epoch with the shorter one."""
    long = loader_of(kind, AtlasDataset(root, batch_size=BATCH), **workers)
    short_set = AtlasDataset(root, batch_size=BATCH, filters=[("psnr", "<", 40)], seed=1)
    short = loader_of(kind, short_set, **workers)
    count = len(short)
    assert count < BATCHES
    for epoch in range(3):
        pairs = list(zip(long, short, strict=False))
        assert len(pairs) == count
        assert uids(batch for batch, _ in pairs) == order_of(root, epoch)[: count * BATCH]
        assert len(set(uids(batch for _, batch in pairs))) == len(short_set)


@pytest.mark.parametrize("workers", WORKERS, ids=["none", "two", "persistent"])
@pytest.mark.parametrize("kind", ["AtlasLoader", "StatefulDataLoader"])
def test_a_state_after_any_batch_continues_with_the_next(root: Path, kind: str, workers: dict[str, Any]) -> None:
    """Also before the first batch, after the last, after the end, and in a pass that was itself resumed."""
    loader = loader_of(kind, AtlasDataset(root, batch_size=BATCH), **workers)
    read, states = list[str](), [loader.state_dict()]
    taken = [0]
    for _ in range(2):
        for batch in loader:
            read += batch["uid"]
            states.append(copy.deepcopy(loader.state_dict()))
            taken.append(len(read))
    states.append(loader.state_dict())
    taken.append(len(read))
    assert read == orders(root, 0, 1)
    # with workers some: each start of three processes takes a while
    chosen = range(len(states)) if not workers else [0, 1, 2, BATCHES - 1, BATCHES, BATCHES + 3, len(states) - 1]
    for place in chosen:
        resumed = loader_of(kind, AtlasDataset(root, batch_size=BATCH), **workers)
        resumed.load_state_dict(states[place])
        # torchdata's pass that is resumed at its last batch may be empty
        found = [uid for _ in range(2) for uid in uids(resumed)]
        whole = orders(root, 0, 1, 2, 3)[taken[place] :]
        assert found == whole[: len(found)]
        assert len(found) >= SAMPLES


def test_a_loaders_state_is_plain_and_serves_any_loop(root: Path) -> None:
    loader = loader_of("AtlasLoader", AtlasDataset(root), num_workers=2)
    read = take(iter(loader), 3)
    state = json.loads(json.dumps(loader.state_dict()))
    for source in (AtlasDataset(root), loader_of("DataLoader", AtlasDataset(root, batch_size=BATCH), num_workers=2)):
        (source if isinstance(source, AtlasDataset) else source.dataset).load_state_dict(state)
        assert read + uids(source) == order_of(root, 0)
        assert uids(source) == order_of(root, 1)


@st.composite
def ways(draw: st.DrawFn) -> list[tuple[str, int]]:
    """Some passes: how each is consumed, and how many batches it takes."""
    how = st.sampled_from(["count", "break", "side by side", "save and load", "go on", "set_epoch"])
    return draw(st.lists(st.tuples(how, st.integers(1, BATCHES + 1)), min_size=1, max_size=6))


@pytest.mark.parametrize("kind", CLASSES)
@settings(max_examples=60)
@given(ways())
def test_any_sequence_of_ways_to_consume(root: Path, kind: str, sequence: list[tuple[str, int]]) -> None:
    """A model of the promise: `epoch` is the epoch of the next pass, and `start` the batches that a state took."""
    dataset = AtlasDataset(root, batch_size=BATCH)
    loader = loader_of(kind, dataset)
    epoch = start = 0
    for how, count in sequence:
        expected = order_of(root, epoch)[start * BATCH :][: count * BATCH]
        if how == "side by side":
            first, second = iter(loader), iter(loader)
            read = [take(first, 1), take(second, count), take(first, count - 1)]
            assert read[0] + read[2] == expected
            assert read[1] == order_of(root, epoch + 1)[: count * BATCH]
            epoch, start = epoch + 2, 0
            continue
        if how == "set_epoch":
            dataset.set_epoch(7 + epoch)
            expected, epoch, start = order_of(root, 7 + epoch)[: count * BATCH], epoch + 7, 0
        if how == "break":
            read = []
            for number, batch in enumerate(loader, 1):
                read += batch["uid"]
                if number == count:
                    break
        else:
            read = take(iter(loader), count)
        assert read == expected
        ended = start + count >= BATCHES
        epoch, taken, start = epoch + 1, start + count, 0
        if how in ("save and load", "go on"):
            state = json.loads(json.dumps(dataset.state_dict()))
            if how == "save and load":
                dataset = AtlasDataset(root, batch_size=BATCH)
                loader = loader_of(kind, dataset)
            dataset.load_state_dict(state)
            if not ended:
                epoch, start = epoch - 1, taken


def test_the_state_of_two_passes_is_that_of_the_newer_one(root: Path) -> None:
    dataset = AtlasDataset(root)
    older, newer = iter(dataset), iter(AtlasLoader(dataset, BATCH))
    take(older, 5)
    take(newer, 2)
    take(older, 9)
    assert dataset.epoch == 1
    resumed = AtlasDataset(root)
    resumed.load_state_dict(dataset.state_dict())
    assert uids(resumed) == order_of(root, 1)[2 * BATCH :]


def test_setting_the_epoch_of_a_loaded_state_keeps_its_place(root: Path) -> None:
    dataset = AtlasDataset(root)
    dataset.set_epoch(2)
    read = take(iter(dataset), 9)
    resumed = AtlasDataset(root)
    resumed.load_state_dict(dataset.state_dict())
    # as loops do that call set_epoch before each pass
    for epoch in (2, 3):
        resumed.set_epoch(epoch)
        read += uids(resumed)
    assert read == orders(root, 2, 3)
    resumed.load_state_dict(dataset.state_dict())
    resumed.set_epoch(5)
    assert uids(resumed) == order_of(root, 5)


def test_the_state_of_what_only_workers_know_is_refused(root: Path) -> None:
    dataset = AtlasDataset(root, batch_size=BATCH)
    state = dataset.state_dict()
    assert len(take(iter(loader_of("DataLoader", dataset, num_workers=1)), 2)) == 2 * BATCH
    assert dataset.epoch == 0
    with pytest.raises(DatasetError, match="use AtlasLoader or torchdata's StatefulDataLoader"):
        dataset.state_dict()
    # a pass in this process, an epoch or a state end that
    dataset.load_state_dict(state)
    assert dataset.state_dict() == state
    assert take(iter(dataset), SAMPLES) == order_of(root, 0)
    assert dataset.epoch == 1


def test_a_state_of_a_worker_goes_to_that_worker_only(root: Path) -> None:
    loader = loader_of("StatefulDataLoader", AtlasDataset(root, batch_size=BATCH), num_workers=2)
    take(iter(loader), 3)
    state = loader.state_dict()
    one = state["_snapshot"]["_worker_snapshots"]["worker_1"]["dataset_state"]
    with pytest.raises(DatasetError, match="the state has worker 1, this dataset None"):
        AtlasDataset(root).load_state_dict(one)
    other = loader_of("StatefulDataLoader", AtlasDataset(root, batch_size=2), num_workers=2)
    other.load_state_dict(state)
    with pytest.raises(DatasetError, match="the state has batch_size 4, this dataset 2"):
        uids(other)


def test_map_style_samples_go_to_any_sampler(root: Path) -> None:
    dataset = AtlasDataset(root, filters=[("psnr", "<", 40)], rank=1, world=2)
    samples = dataset.map_style()
    assert len(samples) == 20
    assert [samples[i]["uid"] for i in (0, 3, -1)] == ["obj00", "obj03", "obj19"]
    for wrong in (20, -21):
        with pytest.raises(IndexError):
            samples[wrong]
    sampler = torch.utils.data.RandomSampler(samples, generator=torch.Generator().manual_seed(1))
    for workers in (0, 2):
        loader = DataLoader(samples, batch_size=3, sampler=sampler, num_workers=workers, collate_fn=collate)
        assert sorted(uids(loader)) == [f"obj{i:02d}" for i in range(20)]
