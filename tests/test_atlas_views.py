"""Reference views as files, and as `AtlasDataset` yields them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pipeline_runs import finished, write_inputs
from reader_datasets import publish_dataset

from gaussianverse.atlas import AtlasDataset, AtlasLoader
from gaussianverse.atlas.dataset_format import view_suffixes
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader import views as views_module
from gaussianverse.atlas.reader.views import CAMERAS, ReferenceViews, images_sha256

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
    return Path(finished(folder / "out", write_inputs(folder, UIDS), "run.views=2"))


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


@pytest.mark.parametrize("workers", [0, 1])
def test_views_may_stay_bytes(root: Path, workers: int) -> None:
    (batch,) = AtlasLoader(AtlasDataset(root, views=2, views_dtype=torch.uint8), batch_size=3, num_workers=workers)
    assert batch["views"].dtype == torch.uint8
    floats, bytes_ = AtlasDataset(root, views=2), AtlasDataset(root, views=2, views_dtype=torch.uint8)
    assert bytes_.source.batch_nbytes(3) == floats.source.batch_nbytes(3) - 3 * 2 * 4 * 32 * 32 * 3  # type: ignore[attr-defined]
    for k, (item, exact) in enumerate(zip(bytes_, floats, strict=True)):
        assert torch.equal(item["views"].float() / 255, exact["views"])
        assert torch.equal(item["views"], batch["views"][k])
    with pytest.raises(DatasetError, match=r"views_dtype torch.float16 is none of torch.float32, torch.uint8"):
        AtlasDataset(root, views=2, views_dtype=torch.float16)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that are decoded."""
    names: list[str] = []
    decode = views_module._decoded
    monkeypatch.setattr(views_module, "_decoded", lambda data, name: (names.append(name), decode(data, name))[1])
    return names


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three objects with five views."""
    folder = tmp_path_factory.mktemp("many")
    return Path(finished(folder / "out", write_inputs(folder, UIDS), "run.views=5"))


def drawn(root: Path, count: int, epoch: int, **how: Any) -> dict[str, list[int]]:
    """The numbers of the views that each sample has in an epoch."""
    dataset = AtlasDataset(root, views=count, **how)
    dataset.set_epoch(epoch)
    every, found = AtlasDataset(root, views=True), {}
    for item in dataset:
        whole = every.get(item["uid"])
        found[item["uid"]] = [
            next(k for k, image in enumerate(whole["views"]) if torch.equal(image, view)) for view in item["views"]
        ]
        for name in ("viewmats", "Ks"):
            assert torch.equal(item[name], whole[name][found[item["uid"]]])  # type: ignore[literal-required]
    return found


def test_a_draw_of_views_depends_on_seed_epoch_and_sample(many: Path) -> None:
    epochs = [drawn(many, 3, epoch) for epoch in range(8)]
    assert all(len(set(numbers)) == 3 for found in epochs for numbers in found.values())
    # each sample by itself, and not in the order of the views
    assert any(len({str(n) for n in found.values()}) > 1 for found in epochs)
    assert any(numbers != sorted(numbers) for found in epochs for numbers in found.values())
    for uid in UIDS:
        assert {number for found in epochs for number in found[uid]} == set(range(5))
        assert len({str(found[uid]) for found in epochs}) > 3
    assert drawn(many, 3, 2) == epochs[2] == drawn(many, 3, 2, shuffle=False) == drawn(many, 3, 2, neighbours=2)
    assert any(drawn(many, 3, epoch, seed=1) != epochs[epoch] for epoch in range(8))
    assert {uid: numbers[:2] for uid, numbers in epochs[4].items()} == drawn(many, 2, 4)


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_batches_have_the_same_views_for_any_number_of_workers(many: Path, workers: int) -> None:
    dataset = AtlasDataset(many, views=2)
    loader = AtlasLoader(dataset, batch_size=2, num_workers=workers)
    for epoch in range(2):
        alone = AtlasDataset(many, views=2)
        alone.set_epoch(epoch)
        samples = list(alone)
        batches = list(loader)
        assert [uid for b in batches for uid in b["uid"]] == [item["uid"] for item in samples]
        for name in ("views", "viewmats", "Ks"):
            found = torch.cat([b[name] for b in batches])  # type: ignore[literal-required]
            assert torch.equal(found, torch.stack([item[name] for item in samples]))  # type: ignore[literal-required]
        assert batches[0]["views"].shape == (2, 2, 4, 32, 32)


def test_only_the_drawn_views_are_decoded(many: Path, decoded: list[str]) -> None:
    (batch,) = AtlasLoader(AtlasDataset(many, views=2, hashes=True), batch_size=3)
    assert len(decoded) == 2 * len(batch["uid"]) == 6
    decoded.clear()
    list(AtlasDataset(many, views=True))
    assert len(decoded) == 5 * 3
    # one object is read whole
    assert len(AtlasDataset(many, views=2).get("a")["views"]) == 5


@pytest.mark.parametrize("count", [0, -1, 6])
def test_a_number_of_views_that_there_is_not(many: Path, tmp_path: Path, count: int) -> None:
    with pytest.raises(DatasetError, match=f"views {count}: objects have 5; expected 1 to 5, True for all, or False"):
        AtlasDataset(many, views=count)
    publish_dataset(tmp_path / "plain", ["a", "b"], shard_size=2)
    with pytest.raises(DatasetError, match="has no reference views; build"):
        AtlasDataset(tmp_path / "plain", views=count)


def test_a_map_knows_no_epochs_to_draw_views_by(many: Path) -> None:
    with pytest.raises(DatasetError, match=r"views=2 are drawn by epoch.*map_style.*views=True"):
        AtlasDataset(many, views=2).map_style()
    assert len(AtlasDataset(many, views=True).map_style()[0]["views"]) == 5


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
