"""Samples drawn by weights: how often each, when again, and which weights are refused."""

from __future__ import annotations

import copy
from collections import Counter
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reader_datasets import publish_dataset
from reader_loops import BATCH, uids
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from gaussianverse import AtlasDataset, AtlasLoader, Mixture
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.loader import collate
from gaussianverse.atlas.reader.weighted import WeightedSelection, weighted

UIDS = [f"obj{i:02d}" for i in range(12)]
QUALITY = [0.0, 1.0, 2.0, 3.0] * 3
CLASSES = [AtlasLoader, DataLoader, StatefulDataLoader]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fields = {
        uid: {"extras": {"quality": QUALITY[i], "score": i - 1.0, "none": 0, "huge": 1e308, "good": True}}
        for i, uid in enumerate(UIDS)
    }
    return publish_dataset(tmp_path_factory.mktemp("weights"), UIDS, shard_size=4, fields=fields)


def selection(weights: list[float], draws: int, **how: Any) -> WeightedSelection:
    count = len(weights)
    defaults = {"seed": 3, "window": 2, "neighbours": 1, "epoch_samples": draws}
    return WeightedSelection(
        "digest", np.arange(count), np.arange(count) // 5, **{**defaults, **how}, column="w",
        weights=np.array(weights),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_samples_are_drawn_in_proportion_to_their_weights(seed: int) -> None:
    weights, draws = [0.0, 1.0, 0.5, 0.0, 7.0, 3.0, 0.01, 2.0], 20_000
    counts = np.bincount(selection(weights, draws, seed=seed).epoch(seed)[:, 0], minlength=8)
    share = np.array(weights) / sum(weights)
    assert counts.sum() == draws
    # five deviations of a binomial count
    assert (abs(counts - share * draws) <= 5 * np.sqrt(draws * share * (1 - share))).all()
    assert counts[[0, 3]].tolist() == [0, 0]


WEIGHTS = st.lists(st.sampled_from([0.0, 5e-324, 1e-9, 1.0, 3.0, 1e300]), min_size=1, max_size=12).filter(any)


@given(WEIGHTS, st.integers(0, 2**33), st.integers(1, 60), st.integers(1, 4))
def test_weights_of_any_size_draw_nothing_without_weight(
    weights: list[float], epoch: int, draws: int, neighbours: int
) -> None:
    samples = selection(weights, draws, neighbours=neighbours)
    drawn = samples.epoch(epoch)
    assert len(drawn) == draws == len(samples)
    assert all(weights[place] > 0 for place in drawn[:, 0])
    # each reading of a sample has a turn of its own, the first one that of the epoch
    assert len(set(map(tuple, drawn.tolist()))) == draws
    assert {place for place, turn in drawn.tolist() if turn == epoch} == set(drawn[:, 0].tolist())
    assert (drawn == selection(weights, draws, neighbours=neighbours).epoch(epoch)).all()


def test_epochs_seeds_and_the_readings_of_one_sample_differ() -> None:
    weights = [1.0] * 20
    found = {
        tuple(sorted(selection(weights, 20, seed=seed).epoch(epoch)[:, 0])) for seed in (1, 2) for epoch in range(5)
    }
    assert len(found) == 10
    # a third of the draws are of one sample, whose readings follow one another in a third of cases: 0.35 to 0.43 over
    # five seeds; in runs of up to four, of which many have this sample alone, 0.45 to 0.54
    for neighbours, most in ((1, 0.5), (4, 0.65)):
        read = selection([8.0, *[1.0] * 19], 2000, window=4, neighbours=neighbours).epoch(0)[:, 0]
        assert (read[1:] == read[:-1]).sum() / (read == 0).sum() < most
    # in the order of the shards, without a shuffle
    assert (np.diff(selection(weights, 10, window=0).epoch(0)[:, 0]) < 0).sum() <= 3


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", [{}, {"epoch_samples": 30}, {"infinite": True}])
def test_loaders_read_the_draws_and_go_on_after_any_batch(
    root: Path, kind: Any, workers: int, how: dict[str, Any]
) -> None:
    def passes(source: Any) -> list[str]:
        return list(islice(chain.from_iterable(uids(islice(source, 15)) for _ in range(3)), 60))

    def made() -> Any:
        dataset = AtlasDataset(root, weights="quality", batch_size=BATCH, **how)
        return kind(dataset, batch_size=BATCH, num_workers=workers, collate_fn=collate)

    expected = passes(AtlasLoader(AtlasDataset(root, weights="quality", **how), BATCH))
    assert passes(made()) == expected
    assert not {"obj00", "obj04", "obj08"} & set(expected)
    if kind is DataLoader:
        return
    loader = made()
    iterator = iter(loader)
    read = uids(islice(iterator, 2))
    resumed = made()
    resumed.load_state_dict(copy.deepcopy(loader.state_dict()))
    assert uids(islice(resumed, 3)) == uids(islice(iterator, 3))
    assert read == expected[: 2 * BATCH]


def test_ranks_divide_the_draws(root: Path) -> None:
    whole = Counter(uids(AtlasDataset(root, weights="quality", epoch_samples=30)))
    for world in (2, 3):
        ranks = [AtlasDataset(root, weights="quality", epoch_samples=30, rank=r, world=world) for r in range(world)]
        assert Counter(chain.from_iterable(map(uids, ranks))) == whole


def test_filters_families_and_mixtures_take_weights(root: Path) -> None:
    dataset = AtlasDataset(root, weights="score", filters=[("score", ">", 0)], epoch_samples=100)
    joined = dataset.with_family("splats")
    assert uids(joined) == uids(dataset)
    counts = Counter(uids(Mixture([(dataset, 1), (AtlasDataset(root), 1)], epoch_samples=200)))
    assert counts["obj11"] > counts["obj02"] > 0


def test_a_state_of_other_weights_is_refused(root: Path) -> None:
    states = {name: AtlasDataset(root, weights=name).state_dict() for name in (None, "quality")}
    for name, other in ((None, "quality"), ("quality", None), ("psnr", "quality")):
        with pytest.raises(DatasetError, match=f"the state has weights {other!r}, this dataset {name!r}"):
            AtlasDataset(root, weights=name).load_state_dict(states[other])


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        ({"weights": "sharpness"}, "metadata.parquet has no column sharpness; it has index"),
        ({"weights": "license"}, "weights='license' is a column of string; weights are numbers"),
        ({"weights": "good"}, "weights='good' is a column of bool"),
        ({"weights": "captions"}, "weights='captions' is a column of list"),
        ({"weights": "score"}, r"1 of 12 samples have no finite weight of at least 0, the first is obj00 with -1\.0"),
        (
            {"weights": "ssim"},
            r"12 of 12 samples .* the first is obj00 with -1\.0; leave them out by filters, such as",
        ),
        ({"weights": "none"}, r"weights='none': those of 12 selected samples add up to 0\.0; they must add up to a"),
        ({"weights": "quality", "uids": ["obj04"]}, "those of 1 selected samples add up to 0"),
        ({"weights": "huge"}, "add up to inf"),
    ],
)
def test_weights_that_cannot_be_are_refused(root: Path, how: dict[str, Any], fault: str) -> None:
    with pytest.raises(DatasetError, match=fault):
        AtlasDataset(root, **how)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5])
def test_weights_that_are_no_numbers_are_counted_and_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    dataset = AtlasDataset(root, filters=[("psnr", ">=", 24)])
    changed = np.array(dataset.catalogue.column("psnr"))
    changed[[1, 6, 9]] = value
    monkeypatch.setattr(dataset.catalogue, "column", lambda name: changed)
    with pytest.raises(DatasetError, match=f"2 of 8 samples have no .* first is obj06 with {value}; leave them out"):
        weighted(dataset.samples, dataset.catalogue, "psnr")
