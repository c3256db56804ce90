"""Captions that are drawn, and transforms: the same for any workers, ranks and resume, in every loader."""

from __future__ import annotations

import copy
import tarfile
from collections import Counter
from functools import partial
from itertools import chain, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reader_datasets import publish_dataset
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from gaussianverse import AtlasDataset, AtlasLoader, Mixture
from gaussianverse.atlas.errors import DatasetError, TransformError
from gaussianverse.atlas.reader import words
from gaussianverse.atlas.reader.loader import collate

UIDS = [f"obj{i:02d}" for i in range(12)]
CAPTIONS = {uid: tuple(f"{uid} as {k}" for k in range(i % 4)) for i, uid in enumerate(UIDS)}
"""None to three captions."""
CLASSES = [AtlasLoader, DataLoader, StatefulDataLoader]
Seen = list[tuple[str, str]]
OLD = Path(__file__).parent / "data/output-v1/output.tar.gz"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fields = {uid: {"caption": "", "captions": captions} for uid, captions in CAPTIONS.items()}
    return publish_dataset(tmp_path_factory.mktemp("captions"), UIDS, shard_size=4, fields=fields)


def loader_of(kind: Any, workers: int, root: Path, **how: Any) -> Any:
    dataset = AtlasDataset(root, batch_size=3, **how)
    return kind(dataset, batch_size=3, num_workers=workers, collate_fn=collate)


def seen(batches: Any) -> Seen:
    """Uids and captions of batches."""
    return [pair for batch in batches for pair in zip(batch["uid"], batch["caption"], strict=True)]


def seen_alone(dataset: AtlasDataset, epochs: int) -> list[Seen]:
    return [[(item["uid"], item["caption"]) for item in dataset] for _ in range(epochs)]


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("workers", [0, 2])
def test_drawn_captions_are_the_same_for_any_loader(root: Path, kind: Any, workers: int) -> None:
    expected = seen_alone(AtlasDataset(root, caption="random"), 3)
    loader = loader_of(kind, workers, root, caption="random")
    assert [seen(loader) for _ in range(3)] == expected
    for uid, caption in chain(*expected):
        assert caption in (CAPTIONS[uid] or ("",))
    if kind is DataLoader:
        return
    first = loader_of(kind, workers, root, caption="random")
    read = seen(islice(iter(first), 2))
    state = copy.deepcopy(first.state_dict())
    resumed = loader_of(kind, workers, root, caption="random")
    resumed.load_state_dict(state)
    assert read + seen(resumed) == expected[0]


def test_a_caption_is_drawn_by_seed_epoch_and_sample_alone(root: Path) -> None:
    of_epoch = [dict(read) for read in seen_alone(AtlasDataset(root, caption="random"), 5)]
    assert len({tuple(sorted(captions.items())) for captions in of_epoch}) == 5
    # another order, other neighbours, two ranks
    for how in ({"shuffle": False}, {"window": 1, "neighbours": 4}, {"filters": [("psnr", ">", 24)]}):
        for epoch, read in enumerate(seen_alone(AtlasDataset(root, caption="random", **how), 3)):
            assert read
            assert all(of_epoch[epoch][uid] == caption for uid, caption in read)
    ranks = [seen_alone(AtlasDataset(root, caption="random", rank=r, world=2), 1)[0] for r in range(2)]
    assert dict(chain(*ranks)) == of_epoch[0]
    other = seen_alone(AtlasDataset(root, caption="random", seed=1), 1)[0]
    assert dict(other) != of_epoch[0]
    # twice in an epoch: as in two rounds, and by weights each reading for itself
    twice = seen_alone(AtlasDataset(root, caption="random", epoch_samples=24), 1)[0]
    assert twice == list(chain(*seen_alone(AtlasDataset(root, caption="random"), 2)))
    by_weight = AtlasDataset(root, caption="random", weights="psnr", uids=["obj11"], epoch_samples=30)
    assert set(seen_alone(by_weight, 1)[0]) == {("obj11", caption) for caption in CAPTIONS["obj11"]}
    mixed = seen(AtlasLoader(Mixture([(AtlasDataset(root, caption="random"), 1)]), 5))
    assert dict(mixed) == of_epoch[0]


@pytest.mark.parametrize("seed", range(3))
def test_captions_are_drawn_equally_often(seed: int) -> None:
    turns, places = np.divmod(np.arange(9000), 3)
    drawn = words.drawn_one(seed, turns, places, np.array([3, 2, 1] * 3000))
    for place, among in enumerate((3, 2, 1)):
        counts = Counter(drawn[places == place].tolist())
        # five deviations of a binomial count of 3,000
        assert all(abs(counts[k] - 3000 / among) <= 5 * 27.4 for k in range(among))
        assert sum(counts[k] for k in range(among)) == 3000


def test_the_first_caption_is_the_default_and_some_choices_are_refused(root: Path, tmp_path: Path) -> None:
    ((*read,),) = seen_alone(AtlasDataset(root), 1)
    assert dict(read) == {uid: (captions or ("",))[0] for uid, captions in CAPTIONS.items()}
    dataset = AtlasDataset(root, caption="random")
    assert dataset.get("obj07")["caption"] == "obj07 as 0"
    with pytest.raises(DatasetError, match=r"drawn by epoch, which map_style\(\) does not know: choose of row"):
        dataset.map_style()
    with pytest.raises(DatasetError, match="caption 'last' is none of first, random"):
        AtlasDataset(root, caption="last")
    with tarfile.open(OLD) as archive:
        archive.extractall(tmp_path, filter="data")
    (old,) = (path.parent for path in tmp_path.rglob("_SUCCESS"))
    with pytest.raises(DatasetError, match="schema version 1 has one caption an object: leave caption='random' out"):
        AtlasDataset(old, caption="random")


def doubled(sample: Any) -> Any:
    """A transform that changes a tensor and adds a tensor, a dict and a number."""
    index = int(sample["uid"][3:])
    where = {"worker": torch.tensor(index), "name": sample["uid"]}
    return {**sample, "atlas": sample["atlas"] * 2, "index": torch.tensor([index]), "where": where, "length": index}


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("workers", [0, 2])
def test_transforms_run_in_every_loader(root: Path, kind: Any, workers: int) -> None:
    plain = list(AtlasLoader(AtlasDataset(root, standardise=True), 3))
    batches = list(loader_of(kind, workers, root, standardise=True, transform=doubled))
    assert [b["uid"] for b in batches] == [b["uid"] for b in plain]
    for batch, expected in zip(batches, plain, strict=True):
        numbers = [int(uid[3:]) for uid in batch["uid"]]
        assert torch.equal(batch["atlas"], expected["atlas"] * 2)
        assert batch["atlas"].is_contiguous(memory_format=torch.channels_last)
        assert batch["index"].tolist() == [[n] for n in numbers]
        assert batch["where"]["worker"].tolist() == numbers == batch["length"]
        assert batch["where"]["name"] == batch["uid"]


def test_transforms_see_families_and_serve_samples_by_number_and_uid(root: Path) -> None:
    dataset = AtlasDataset(root, transform=lambda sample: {"uid": sample["uid"], "has": sorted(sample)})
    assert {item["has"][-1] for item in map(dict, dataset.with_family("splats"))} == {"uid"}
    assert all("splats" in dict(item)["has"] for item in dataset.with_family("splats"))
    assert dict(dataset.map_style()[0])["has"] == ["atlas", "caption", "row", "uid"]
    assert dict(dataset.get("obj03"))["uid"] == "obj03"


def test_spawned_workers_take_a_transform_of_a_module(root: Path) -> None:
    dataset = AtlasDataset(root, transform=doubled)
    loader = AtlasLoader(dataset, 3, num_workers=1, multiprocessing_context=get_context("spawn"))
    assert [dict(batch)["length"] for batch in loader] == [
        dict(batch)["length"] for batch in AtlasLoader(AtlasDataset(root, transform=doubled), 3)
    ]


def failing(sample: Any) -> Any:
    return sample["row"]["sharpness"] if sample["uid"] == "obj05" else sample


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_a_transform_names_the_uid_and_keeps_the_cause(root: Path, workers: int) -> None:
    with pytest.raises(TransformError, match="obj05: the transform failed: KeyError: 'sharpness'") as caught:
        list(AtlasLoader(AtlasDataset(root, transform=failing), 3, num_workers=workers))
    if workers == 0:
        assert isinstance(caught.value.__cause__, KeyError)
    else:
        assert 'return sample["row"]["sharpness"]' in str(caught.value)


def odd_one(sample: Any, **odd: Any) -> Any:
    """A transform that makes obj05 another kind of sample than the rest."""
    return {**sample, **odd} if sample["uid"] == "obj05" else {**sample, "depth": torch.ones(2), "more": {"x": 1}}


@pytest.mark.parametrize(
    ("odd", "fault"),
    [
        ({}, r"batch: obj\d\d has depth, more, which obj05 lacks: give all samples the same keys"),
        ({"depth": torch.ones(2), "more": {"x": 1}, "y": 2}, r"batch: obj05 has y, which obj\d\d lacks"),
        ({"depth": None, "more": {"x": 1}}, r"batch: depth is (?=.*Tensor of obj\d\d)(?=.*NoneType of obj05)"),
        ({"depth": torch.ones(2), "more": None}, r"batch: more is (?=.*dict of obj\d\d)(?=.*NoneType of obj05)"),
        ({"depth": torch.ones(2), "more": {}}, r"more: obj\d\d has x, which obj05 lacks"),
        ({"depth": torch.ones(2), "more": {"x": 1, "z": 1}}, r"more: obj05 has z, which obj\d\d lacks"),
    ],
)
def test_samples_of_other_keys_or_kinds_are_no_batch(root: Path, odd: Any, fault: str) -> None:
    dataset = AtlasDataset(root, transform=partial(odd_one, **odd))
    with pytest.raises(DatasetError, match=fault):
        list(AtlasLoader(dataset, len(UIDS)))


def test_an_atlas_that_is_no_tensor_any_longer_is_a_list(root: Path) -> None:
    dataset = AtlasDataset(root, transform=lambda sample: {"atlas": sample["atlas"].numpy()})
    (batch,) = AtlasLoader(dataset, len(UIDS))
    assert [type(atlas) for atlas in batch["atlas"]] == [np.ndarray] * len(UIDS)


@pytest.mark.parametrize(
    ("transform", "error", "fault"),
    [
        (lambda sample: None, TransformError, r"obj\d\d: the transform returned None; let it return the sample"),
        (lambda sample: sample["atlas"], DatasetError, "the transform returns Tensor, no dict: pass a collate_fn"),
        ("double", DatasetError, "transform 'double': expected a function of a sample"),
    ],
)
def test_transforms_that_cannot_be_are_refused(root: Path, transform: Any, error: Any, fault: str) -> None:
    with pytest.raises(error, match=fault):
        next(iter(AtlasLoader(AtlasDataset(root, transform=transform), 3)))


def test_what_is_no_dict_goes_through_a_function_of_the_users(root: Path) -> None:
    dataset = AtlasDataset(root, transform=lambda sample: sample["atlas"])
    loader = AtlasLoader(dataset, 5, collate_fn=torch.stack)  # type: ignore[arg-type]
    assert [tuple(batch.shape) for batch in loader] == [(5, 16, 8, 8), (5, 16, 8, 8), (2, 16, 8, 8)]  # type: ignore[attr-defined]
