"""Reference views as files, and as `AtlasDataset` yields them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pipeline_runs import build_in_process, tiny_arguments, write_manifest, write_views
from reader_datasets import publish_dataset

from gaussianverse.atlas import AtlasDataset, AtlasLoader
from gaussianverse.atlas.dataset_format import view_suffixes
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.views import CAMERAS, ReferenceViews, images_sha256
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.run import job

UIDS = ["a", "b", "a-uid-" + 95 * "x"]
"""The last one's members have PAX headers."""
SHARD = "views/views-000000.tar"


def some(count: int = 3, size: int = 8) -> ReferenceViews:
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, size, size, 4), np.uint8)
    floats = (rng.random((count, n, n)).astype(np.float32) for n in (4, 3))
    return ReferenceViews(images, *floats)


def test_there_and_back() -> None:
    views = some(12)
    members = views.to_members()
    assert members == some(12).to_members()
    names = view_suffixes(12)
    assert list(members) == [CAMERAS, *names] == sorted(members)
    again = ReferenceViews.from_members(members[CAMERAS], [members[n] for n in names])
    for field in ("images", "viewmats", "Ks"):
        np.testing.assert_array_equal(getattr(again, field), getattr(views, field))
    assert images_sha256(members) != images_sha256({**members, names[0]: members[names[1]]})


@pytest.mark.parametrize(("change", "fault"), [
    (lambda v: ReferenceViews(v.images[:, :4], v.viewmats, v.Ks), r"expected uint8 \[K, size, size, 4\]"),
    (lambda v: ReferenceViews(v.images, v.viewmats[:2], v.Ks), "viewmats are float32"),
    (lambda v: ReferenceViews(v.images, v.viewmats, v.Ks.astype(np.float64)), "Ks are float64"),
    (lambda v: ReferenceViews(v.images, v.viewmats * np.nan, v.Ks), "viewmats hold NaN"),
])  # fmt: skip
def test_arrays_that_cannot_be_views(change: object, fault: str) -> None:
    with pytest.raises(DatasetError, match=fault):
        change(some())  # type: ignore[operator]


def test_broken_files_are_named() -> None:
    members = some().to_members()
    images = [members[n] for n in view_suffixes(3)]
    for cut in (0, 10, 60, len(images[1]) - 30):
        with pytest.raises(DatasetError, match=r"view01\.png is damaged"):
            ReferenceViews.from_members(members[CAMERAS], [images[0], images[1][:cut], images[2]])
    for cut in (0, 10, 300):
        with pytest.raises(DatasetError, match=r"cameras\.npz is damaged"):
            ReferenceViews.from_members(members[CAMERAS][:cut], images)
    with pytest.raises(DatasetError, match="2 sizes"):
        ReferenceViews.from_members(members[CAMERAS], [*images[:2], some(3, 9).to_members()["view00.png"]])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    for seed, uid in enumerate(UIDS):
        write_views(folder / "views" / uid, seed)
    config = load("test", [*tiny_arguments()[3::2], "run.views=2"])
    storage, run, base = job.plan(str(folder / "out"), str(write_manifest(folder, UIDS)), config)
    assert build_in_process(storage, run, config, base).finalized
    return folder / "out"


def test_samples_and_batches_have_views(root: Path) -> None:
    loader = AtlasLoader(AtlasDataset(root, views=True, hashes=True), batch_size=3)
    (batch,) = loader
    assert batch["views"].shape == (3, 2, 4, 32, 32)
    assert (batch["viewmats"].shape, batch["Ks"].shape) == ((3, 2, 4, 4), (3, 2, 3, 3))
    assert {batch[name].dtype for name in ("views", "viewmats", "Ks")} == {torch.float32}  # type: ignore[literal-required]
    assert float(batch["views"].min()) == 0.0
    assert float(batch["views"].max()) == 1.0
    dataset = AtlasDataset(root, views=True)
    for k, uid in enumerate(batch["uid"]):
        item = dataset.get(uid)
        assert torch.equal(item["views"], batch["views"][k])
        assert torch.equal(item["viewmats"], batch["viewmats"][k])
    assert len({bytes(v.numpy().tobytes()) for v in batch["views"]}) == 3


def test_views_where_there_are_some(root: Path, tmp_path: Path) -> None:
    assert "views" in next(iter(AtlasDataset(root, views=None)))
    publish_dataset(tmp_path / "plain", ["a", "b"], shard_size=2)
    assert "views" not in next(iter(AtlasDataset(tmp_path / "plain", views=None)))


def test_nobody_gets_views_who_did_not_ask(root: Path) -> None:
    dataset = AtlasDataset(root)
    assert "views" not in next(iter(dataset))
    assert "views" not in dataset.get("a")


def test_a_dataset_without_views_says_so(tmp_path: Path) -> None:
    publish_dataset(tmp_path / "plain", ["a", "b"], shard_size=2)
    with pytest.raises(DatasetError, match=r"has no reference views; build the dataset with --set run\.views=K"):
        AtlasDataset(tmp_path / "plain", views=True)


def test_a_flipped_byte_of_views_is_found(root: Path) -> None:
    path = root / SHARD
    data = path.read_bytes()
    try:
        for place in range(100, len(data) - 1024, 997):
            path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
            with pytest.raises(DatasetError, match=SHARD):
                list(AtlasDataset(root, views=True, hashes=True, shuffle=False))
        path.write_bytes(data[:-512])
        with pytest.raises(DatasetError, match="truncated, 512 bytes are missing"):
            list(AtlasDataset(root, views=True))
    finally:
        path.write_bytes(data)
    assert len(list(AtlasDataset(root, views=True, hashes=True))) == len(UIDS)
