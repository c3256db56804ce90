"""Filters in both forms, and splits of the manifest or by a hash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reader_datasets import publish_dataset
from reader_loops import BATCH, uids
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from gaussianverse import AtlasDataset, AtlasLoader
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.catalogue import Catalogue
from gaussianverse.atlas.reader.loader import collate
from gaussianverse.atlas.store.local import LocalStorage

UIDS = [f"obj{i:02d}" for i in range(12)]
SPLITS = ("train", "train", "val", "")
CC0 = [("license", "==", "CC0-1.0")]
CONDITIONS: dict[tuple[str, str, Any], set[int]] = {
    ("psnr", ">=", 27): {7, 8, 9, 10, 11},
    ("psnr", "<", 22): {0, 1},
    ("license", "==", "CC0-1.0"): {0, 3, 6, 9},
    ("license", "!=", "CC-BY-4.0"): {0, 2, 3, 5, 6, 8, 9, 11},
    ("uid", "in", ("obj01", "obj08")): {1, 8},
    ("split", "not in", ("train",)): {2, 3, 6, 7, 10, 11},
}
"""Conditions, and the numbers of the objects that pass each."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of four: two objects of split train, one of val, one of none."""
    fields = {uid: {"split": SPLITS[i % 4]} for i, uid in enumerate(UIDS)}
    return publish_dataset(tmp_path_factory.mktemp("splits"), UIDS, shard_size=4, fields=fields)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without splits."""
    return publish_dataset(tmp_path_factory.mktemp("plain"), UIDS, shard_size=4)


def found(root: Path, **how: Any) -> list[int]:
    """Numbers of the selected objects."""
    return [int(uid[3:]) for uid in uids(AtlasDataset(root, shuffle=False, **how))]


@given(st.lists(st.lists(st.sampled_from(list(CONDITIONS)), min_size=1, max_size=3), min_size=1, max_size=3))
def test_one_alternative_must_hold_and_all_conditions_of_it(root: Path, filters: list[list[Any]]) -> None:
    expected: set[int] = set()
    for conditions in filters:
        expected |= set.intersection(*(CONDITIONS[condition] for condition in conditions))
    catalogue = Catalogue(LocalStorage(root))
    if not expected:
        with pytest.raises(DatasetError, match="none of 12 samples passes"):
            catalogue.select(filters)
        return
    assert catalogue.select(filters).tolist() == sorted(expected)
    as_json = [[list(condition) for condition in conditions] for conditions in filters]
    assert catalogue.select(as_json).tolist() == sorted(expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [AtlasLoader, DataLoader, StatefulDataLoader])
def test_loaders_read_what_alternatives_select(root: Path, kind: Any) -> None:
    filters = [[("psnr", "<", 22)], [("split", "==", "val"), *CC0]]
    loader = kind(
        AtlasDataset(root, filters=filters, batch_size=BATCH), batch_size=BATCH, num_workers=2, collate_fn=collate
    )
    for _ in range(2):
        assert sorted(uids(loader)) == ["obj00", "obj01", "obj06"]
    flat = AtlasDataset(root, filters=[("psnr", "<", 22)])
    with pytest.raises(DatasetError, match="the state has selection"):
        flat.load_state_dict(AtlasDataset(root, filters=filters).state_dict())


def test_splits_are_those_of_the_manifest_where_it_has_some(root: Path, plain: Path) -> None:
    assert found(root, split="train") == [0, 1, 4, 5, 8, 9]
    assert found(root, split="val", filters=CC0) == [6]
    assert found(root) == found(plain) == list(range(12))
    parts = [found(plain, split=split, heldout=0.5) for split in ("train", "heldout")]
    assert sorted(parts[0] + parts[1]) == list(range(12))
    assert all(parts)
    # a hundredth, of twelve
    assert len(found(plain, split="train")) > 8


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        ({"filters": [CC0, []]}, "an alternative without conditions; leave it out"),
        ({"filters": [[]]}, "an alternative without conditions"),
        ({"filters": [CC0, ("psnr", ">", 1)]}, "conditions beside lists of them; put each into a list"),
        ({"filters": "psnr > 3"}, r"filters 'psnr > 3': expected a list of \(column, operator, value\)"),
        ({"filters": 3}, "filters 3: expected a list"),
        ({"filters": [CC0, [("psnr", ">")]]}, r"filter \('psnr', '>'\): expected \(column, operator, value\)"),
        ({"filters": [[("sharpness", ">", 1)]]}, "metadata.parquet has no column sharpness; it has index, uid"),
        ({"filters": [[("psnr", "=~", 1)]]}, "expected one of =="),
        ({"filters": [("psnr", ">", "high")]}, "on a column of double"),
        ({"filters": [("uid", "==", 3)]}, "on a column of string"),
        ({"filters": [("n_gaussians", ">", 2**70)]}, "on a column of int64"),
        ({"filters": [("captions", "==", "a")]}, "on a column of list"),
        ({"filters": [("psnr", ">", None)]}, "no value compares with None; leave it out"),
        ({"filters": [("psnr", "==", float("nan"))]}, "no value compares with nan"),
        ({"filters": [[("psnr", ">", 99)], [("psnr", "<", 0)]]}, "none of 12 samples passes"),
        ({"split": "test"}, "split 'test' is none of all, train, val, by its column split"),
        ({"split": "heldout"}, "split 'heldout' is none of all, train, val, by its column split"),
        ({"split": "train", "heldout": 0.1}, r"has the manifest's own splits \(train, val\): leave heldout out"),
        ({"heldout": 0.1}, "leave heldout out"),
    ],
)
def test_selections_that_cannot_be_are_refused(root: Path, how: dict[str, Any], fault: str) -> None:
    with pytest.raises(DatasetError, match=fault):
        AtlasDataset(root, **how)
