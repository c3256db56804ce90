"""Mixtures of datasets: shares, order, ranks, workers and states."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reader_datasets import publish_dataset
from reader_loops import BATCH, orders, publish, uids
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from gaussianverse import AtlasDataset, AtlasLoader, Mixture
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.loader import collate
from gaussianverse.atlas.reader.mixture import MixedSamples
from gaussianverse.atlas.reader.selection import Selection

FEW = [f"few{i}" for i in range(5)]
EPOCH = 30
PER_EPOCH = 23, 7
"""Samples that the parts give each epoch, of weights 3 and 0.9."""
WAYS: list[tuple[Any, dict[str, Any]]] = [
    (AtlasLoader, {}), (AtlasLoader, {"num_workers": 2}),
    (AtlasLoader, {"num_workers": 3, "persistent_workers": True}),
    (DataLoader, {}), (DataLoader, {"num_workers": 2}), (StatefulDataLoader, {"num_workers": 2}),
]  # fmt: skip


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("many"))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_dataset(tmp_path_factory.mktemp("few"), FEW, shard_size=2)


@pytest.fixture(scope="module")
def mix(many: Path, few: Path) -> Callable[..., Mixture]:
    def made(rank: int = 0, world: int = 1, **options: Any) -> Mixture:
        parts = [AtlasDataset(root, rank=rank, world=world) for root in (many, few)]
        options = {"epoch_samples": EPOCH, "batch_size": BATCH, **options}
        return Mixture([(parts[0], 3), (parts[1], 0.9)], **options)

    return made


def orders_of_few(few: Path, count: int) -> list[str]:
    dataset = AtlasDataset(few, rank=0, world=1)
    return [uid for _ in range(count) for uid in uids(dataset)]


def whole(mix: Callable[..., Mixture], epochs: int, **options: Any) -> list[list[str]]:
    mixture = mix(**options)
    return [uids(mixture) for _ in range(epochs)]


def test_each_part_gives_its_share_in_the_order_of_its_own_epochs(
    mix: Callable[..., Mixture], many: Path, few: Path
) -> None:
    epochs = whole(mix, 6)
    for read in epochs:
        assert len(read) == EPOCH
        assert abs(sum(uid.startswith("few") for uid in read) - PER_EPOCH[1]) <= 1
    read = [uid for epoch in epochs for uid in epoch]
    of_many, of_few = ([uid for uid in read if uid.startswith(name)] for name in ("obj", "few"))
    assert len(of_few) == int(6 * EPOCH * 0.9 / 3.9) + 1
    assert of_many == orders(many, 0, 1, 2, 3)[: len(of_many)]
    assert of_few == orders_of_few(few, 10)[: len(of_few)]


def test_the_parts_are_shuffled_by_the_seed_and_the_epoch(mix: Callable[..., Mixture]) -> None:
    def pattern(read: list[str]) -> str:
        return "".join(uid[0] for uid in read)

    patterns = [pattern(read) for seed in (0, 1) for read in whole(mix, 3, seed=seed)]
    assert len(set(patterns)) == 6
    # neither part comes in a block
    assert all("ofo" in p and "foo" in p for p in patterns)
    assert patterns[:3] == [pattern(read) for read in whole(mix, 3)]


@given(
    weights=st.lists(st.floats(0.05, 20), min_size=1, max_size=4), sizes=st.lists(st.integers(1, 9), min_size=4),
    epoch_samples=st.integers(1, 60),
)  # fmt: skip
def test_shares_hold_over_any_number_of_epochs(weights: list[float], sizes: list[int], epoch_samples: int) -> None:
    """Each sample of a part is drawn as often as any other of it, or once less, at the end of any epoch."""
    if min(weights) * epoch_samples < 1.01 * sum(weights):
        return
    sizes = sizes[: len(weights)]
    parts = tuple(Selection("x", np.arange(n), np.zeros(n, np.int64), 1, 1, neighbours=1) for n in sizes)
    firsts = tuple(int(n) for n in np.cumsum([0, *sizes]))
    mixed = MixedSamples(parts, tuple(map(Fraction, weights)), firsts, 5, epoch_samples)
    drawn: Counter[int] = Counter()
    for epoch in range(8):
        found = mixed.epoch(epoch)
        assert len(found) == epoch_samples
        drawn.update(found[:, 0].tolist())
        for i, weight in enumerate(weights):
            counts = [drawn[place] for place in range(firsts[i], firsts[i + 1])]
            assert abs(sum(counts) - (epoch + 1) * epoch_samples * weight / sum(weights)) <= 1
            assert max(counts) - min(counts) <= 1
    assert set(drawn) <= set(range(firsts[-1]))


@pytest.mark.parametrize(("kind", "workers"), WAYS)
def test_loops_read_whole_epochs(mix: Callable[..., Mixture], kind: Any, workers: dict[str, Any]) -> None:
    expected = whole(mix, 3)
    loader = kind(mix(), batch_size=BATCH, collate_fn=collate, **workers)
    assert len(loader) == -(-EPOCH // BATCH)
    for epoch in (0, 1):
        assert uids(loader) == expected[epoch]
    next(iter(loader))
    loader.dataset.set_epoch(2)
    assert uids(loader) == expected[2]


@pytest.mark.parametrize(("kind", "workers"), [way for way in WAYS if way[0] is not DataLoader])
def test_a_state_after_any_batch_goes_on_with_the_next(
    mix: Callable[..., Mixture], kind: Any, workers: dict[str, Any]
) -> None:
    expected = [uid for read in whole(mix, 4) for uid in read]
    loader = kind(mix(), batch_size=BATCH, collate_fn=collate, **workers)
    read, states = list[str](), [(0, loader.state_dict())]
    for _ in range(2):
        for batch in loader:
            read += batch["uid"]
            states.append((len(read), copy.deepcopy(loader.state_dict())))
    assert read == expected[: 2 * EPOCH]
    # with workers some: each start of three processes takes a while
    for taken, state in states if not workers else [states[i] for i in (0, 1, 7, 8, 9)]:
        resumed = kind(mix(), batch_size=BATCH, collate_fn=collate, **workers)
        resumed.load_state_dict(state)
        # torchdata's pass that is resumed at its last batch may be empty
        found = [uid for _ in range(2) for uid in uids(resumed)]
        assert found == expected[taken:][: len(found)]
        assert len(found) >= EPOCH


def test_a_state_of_any_sample_goes_on_with_the_next(mix: Callable[..., Mixture]) -> None:
    expected = [uid for read in whole(mix, 3) for uid in read]
    mixture = mix()
    for taken, item in enumerate(islice((item for _ in range(2) for item in mixture), 40), 1):
        assert item["uid"] == expected[taken - 1]
        resumed = mix()
        resumed.load_state_dict(json.loads(json.dumps(mixture.state_dict())))
        found = uids(resumed)
        assert found == expected[taken:][: len(found)]
        assert len(found) == EPOCH - taken % EPOCH


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 3), (3, 1), (3, 3)])
def test_ranks_divide_each_epoch_and_a_state_moves(mix: Callable[..., Mixture], before: int, after: int) -> None:
    (expected,) = whole(mix, 1)
    ranks = [mix(rank, before) for rank in range(before)]
    assert {len(rank) for rank in ranks} == {EPOCH // before}
    read = [uid for rank in ranks for uid in uids(islice(iter(rank), 4))]
    state = ranks[0].state_dict()
    for rank in range(after):
        resumed = mix(rank, after)
        resumed.load_state_dict(state)
        read += uids(resumed)
    # what does not divide by the ranks is left out of the epoch
    lost = (EPOCH - 4 * before) % after
    assert len(read) == EPOCH - lost
    assert not Counter(read) - Counter(expected)


def test_a_state_of_another_mixture_is_refused(mix: Callable[..., Mixture], many: Path, few: Path) -> None:
    state = mix().state_dict()
    for options in ({"seed": 1}, {"epoch_samples": 31}, {"uneven": "repeat"}):
        with pytest.raises(DatasetError, match=f"the state has {next(iter(options))}"):
            mix(**options).load_state_dict(state)
    with pytest.raises(DatasetError, match="the state has weights"):
        Mixture([(AtlasDataset(many), 3), (AtlasDataset(few), 1)], epoch_samples=EPOCH).load_state_dict(state)
    other = Mixture([(AtlasDataset(many), 3), (AtlasDataset(few, seed=1), 0.9)], epoch_samples=EPOCH)
    with pytest.raises(DatasetError, match="the state has parts"):
        other.load_state_dict(state)
    with pytest.raises(DatasetError, match="the state has"):
        AtlasDataset(many).load_state_dict(state)


def test_an_epoch_has_as_many_samples_as_all_parts_and_parts_stay_as_they_are(many: Path, few: Path) -> None:
    parts = [AtlasDataset(many), AtlasDataset(few)]
    mixture = Mixture([(parts[0], 1), (parts[1], 1)])
    assert len(mixture) == 46
    assert len(uids(mixture)) == 46
    assert uids(parts[1]) == orders_of_few(few, 1)
    assert mixture.epoch == 1


def test_families_come_with_the_samples(many: Path, few: Path) -> None:
    parts = [AtlasDataset(root, readahead=2).with_family("splats") for root in (many, few)]
    batches = list(AtlasLoader(Mixture([(parts[0], 1), (parts[1], 1)]), 23))
    assert len(batches) == 2
    assert all(len(dict(batch)["splats"]["splat.npz"]) == 23 for batch in batches)


def named(sample: Any) -> dict[str, Any]:
    return {"uid": sample["uid"], "means": sample["splats"]["splat.npz"]["means"]}


def test_parts_keep_their_weights_epochs_and_transforms(many: Path, few: Path) -> None:
    """The draws of each part are those that it makes alone, also with workers."""
    options: dict[str, Any] = {"transform": named}

    def parts() -> list[AtlasDataset]:
        weighted = AtlasDataset(many, weights="psnr", epoch_samples=11, **options).with_family("splats")
        return [weighted, AtlasDataset(few, epoch_samples=3, **options).with_family("splats")]

    alone = [[uid for _ in range(5) for uid in uids(part)] for part in parts()]
    mixture = Mixture([(part, weight) for part, weight in zip(parts(), (2, 1), strict=True)], epoch_samples=33)
    loader = AtlasLoader(mixture, 1, num_workers=2, collate_fn=lambda samples: samples[0])
    read = list(loader)
    assert all(set(dict(sample)) == {"uid", "means"} for sample in read)
    of_few = [uid for uid in uids(read) if uid.startswith("few")]
    assert of_few == alone[1][:11]
    assert [uid for uid in uids(read) if uid.startswith("obj")] == alone[0][:22]


WRONG: list[tuple[Callable[[AtlasDataset, AtlasDataset], object], str]] = [
    (lambda a, b: Mixture([]), "a mixture of no parts"),
    (lambda a, b: Mixture([a, b]), "expected pairs"),  # type: ignore[list-item]
    (lambda a, b: Mixture([(a, 1), ("b", 1)]), "part 1 is str, expected an AtlasDataset"),  # type: ignore[list-item]
    (lambda a, b: Mixture([(Mixture([(a, 1)]), 1)]), "part 0 is Mixture"),  # type: ignore[list-item]
    (lambda a, b: Mixture([(a, 1), (b, 0)]), "part 1 has weight 0, expected a number above 0"),
    (lambda a, b: Mixture([(a, float("nan")), (b, 1)]), "part 0 has weight nan"),
    (lambda a, b: Mixture([(a, float("inf")), (b, 1)]), "part 0 has weight inf"),
    (lambda a, b: Mixture([(a, -1.0), (b, 1)]), "part 0 has weight -1.0"),
    (lambda a, b: Mixture([(a, 1), (b, "1")]), "part 1 has weight '1'"),  # type: ignore[list-item]
    (lambda a, b: Mixture([(a, 1), (b, 1), (a, 1)]), "part 2 is the same dataset as one before"),
    (lambda a, b: Mixture([(a, 1000), (b, 1)]), "part 1 has less than one of 46 samples"),
    (lambda a, b: Mixture([(a, 1)], epoch_samples=0), "epoch_samples 0"),
    (lambda a, b: Mixture([(a, 1)], seed=-1), "seed -1: at least 0"),
    (lambda a, b: Mixture([(a, 1)], uneven="cut"), "uneven 'cut' is none of"),
    (lambda a, b: Mixture([(a, 1), (b.with_family("splats"), 1)]), "do not fit into one batch: families"),
]


@pytest.mark.parametrize(("make", "message"), WRONG, ids=[message for _, message in WRONG])
def test_wrong_mixtures_are_named(
    many: Path, few: Path, make: Callable[[AtlasDataset, AtlasDataset], object], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        make(AtlasDataset(many), AtlasDataset(few))


def test_parts_of_another_form_or_rank_are_refused(many: Path, few: Path, tmp_path: Path) -> None:
    first = AtlasDataset(many)
    larger = AtlasDataset(publish_dataset(tmp_path / "larger", FEW, shard_size=5, size=16))
    with pytest.raises(DatasetError, match="parts 1 and 0 do not fit into one batch: atlas size 16 and 8"):
        Mixture([(first, 1), (larger, 1)])
    with pytest.raises(DatasetError, match="one batch: standardise True and False"):
        Mixture([(first, 1), (AtlasDataset(few, standardise=True), 1)])
    with pytest.raises(DatasetError, match="part 1 is rank 1 of 2, part 0 rank 0 of 1"):
        Mixture([(first, 1), (AtlasDataset(few, rank=1, world=2), 1)])
    with pytest.raises(DatasetError, match="only 46 samples for 50 ranks"):
        Mixture([(AtlasDataset(root, uneven="repeat", rank=0, world=50), 1) for root in (many, few)], uneven="drop")
