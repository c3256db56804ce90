"""Published samples are taken over with their arrays as they are, or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from reader_datasets import publish_dataset

from gaussianverse.atlas import tar
from gaussianverse.atlas.dataset_format import ADDRESS, ATLAS, FAMILIES, SPLATS, VIEWS, address_column
from gaussianverse.atlas.reader.catalogue import Catalogue
from gaussianverse.atlas.reader.views import ReferenceViews
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline.dataset import run_file
from gaussianverse.pipeline.dataset.shards import stats_rows
from gaussianverse.pipeline.dataset.take_over import facts_in, taken_over
from gaussianverse.pipeline.errors import FragmentError

UIDS = ["amber", "birch", "cedar"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStorage:
    rng = np.random.default_rng(0)
    views = ReferenceViews(
        rng.integers(0, 255, (3, 4, 4, 4), np.uint8),
        rng.random((3, 4, 4)).astype(np.float32),
        rng.random((3, 3, 3)).astype(np.float32),
    )
    root = tmp_path_factory.mktemp("whole")
    return LocalStorage(publish_dataset(root, UIDS, shard_size=8, views=[views]))


def published(store: LocalStorage, family: str, place: int) -> tuple[bytes, dict[str, Any]]:
    """What is read of a sample, and its row of metadata.parquet."""
    catalogue = Catalogue(store)
    row = catalogue.row(place)
    if family == VIEWS:
        part = catalogue.byte_range(place, VIEWS)
        return bytes(store.read(part.key, part.offset, part.nbytes)), row
    offset, nbytes = (row[address_column(family, name)] for name in ("offset", "nbytes"))
    return bytes(store.read(f"{family}/{family}-000000.tar", offset, nbytes)), row


def again(store: LocalStorage, family: str, data: bytes, row: dict[str, Any]) -> bytes:
    facts = facts_in(family, row, run_file.load(store).facts_schema(family))
    return taken_over(family, facts, data, row[address_column(family, "sha256")], f"{family}-000000.tar")


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_change_they_are_the_published_bytes(store: LocalStorage, family: str) -> None:
    whole = b"".join(again(store, family, *published(store, family, place)) for place in range(len(UIDS)))
    assert whole + tar.END == store.get(f"{family}/{family}-000000.tar")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_facts_are_those_of_the_shards_own_table(store: LocalStorage, family: str) -> None:
    schema = run_file.load(store).facts_schema(family)
    for place, expected in enumerate(stats_rows(store, family, 0)):
        facts = facts_in(family, published(store, family, place)[1], schema)
        assert facts == {name: value for name, value in expected.items() if name not in ADDRESS}
        assert list(facts) == schema.names


def test_an_atlas_counts_the_gaussians_that_it_holds(store: LocalStorage) -> None:
    row = {**published(store, ATLAS, 0)[1], "n_gaussians": 70, "n_dropped": 6}
    schema = run_file.load(store).facts_schema
    assert facts_in(SPLATS, row, schema(SPLATS))["n_gaussians"] == 70
    assert facts_in(ATLAS, row, schema(ATLAS))["n_gaussians"] == 64


@pytest.mark.parametrize("family", FAMILIES)
def test_new_facts_are_in_the_json_and_the_caption(store: LocalStorage, family: str) -> None:
    data, row = published(store, family, 1)
    members = tar.parse(again(store, family, data, {**row, "caption": "neu: ü", "shard": 9}))
    assert members["birch.txt"] == "neu: ü".encode()
    assert b'"shard":9,' in members["birch.json"].replace(b" ", b"")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_byte_that_changed_is_named_or_not_taken(store: LocalStorage, family: str) -> None:
    """Facts and captions are not taken: they are made of the table."""
    data, row = published(store, family, 1)
    whole, refused = again(store, family, data, row), []
    for at in np.random.default_rng(1).integers(0, len(data), 200).tolist():
        damaged = bytearray(data)
        damaged[at] ^= 1
        try:
            assert again(store, family, bytes(damaged), row) == whole
        except FragmentError as error:
            refused.append(str(error))
    assert all(text.startswith(f"{family}-000000.tar: birch: ") for text in refused)
    assert len(refused) == 200 if family != VIEWS else len(refused) > 100


def test_images_in_another_order_are_not_those_of_the_table(store: LocalStorage) -> None:
    data, row = published(store, VIEWS, 0)
    members = tar.parse(data)
    one, two = members["amber.view00.png"], members["amber.view01.png"]
    swapped = tar.build({**members, "amber.view00.png": two, "amber.view01.png": one})
    with pytest.raises(FragmentError, match="amber: its images are not those of the table"):
        again(store, VIEWS, swapped, row)
