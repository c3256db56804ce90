import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from reader_datasets import array_of, publish_dataset

from gaussianverse.atlas import AtlasConfig, AtlasDataset, AtlasLoader
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.plane import points_of
from gaussianverse.atlas.reader import order
from gaussianverse.atlas.store.errors import StoreRefused

UIDS = [f"obj{i:02d}" for i in range(12)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of 4, 4 and 3 samples; the last object but one was quarantined."""
    folder = tmp_path_factory.mktemp("dataset")
    return publish_dataset(folder, UIDS, shard_size=4, quarantined=frozenset({"obj10"}))


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of 4 samples."""
    return publish_dataset(tmp_path_factory.mktemp("even"), UIDS, shard_size=4)


def uids(dataset: AtlasDataset) -> list[str]:
    return [item["uid"] for item in dataset]


def test_samples_are_what_was_written(root: Path) -> None:
    items = list(AtlasDataset(root, shuffle=False, hashes=True))
    assert [i["uid"] for i in items] == [u for u in UIDS if u != "obj10"]
    for item in items:
        index = int(item["uid"][3:])
        assert item["atlas"].dtype == torch.float32
        assert item["atlas"].shape == (16, 8, 8)
        assert (item["atlas"].permute(1, 2, 0).numpy() == array_of(index, 8)).all()
        assert item["caption"] == f"caption of {item['uid']}: é" == item["row"]["caption"]
        assert item["row"]["psnr"] == 20.0 + index
        assert item["row"]["shard"] == index // 4


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    publish_dataset(tmp_path, UIDS[:2], shard_size=4, dtype="float16")
    for i, item in enumerate(AtlasDataset(tmp_path, shuffle=False, hashes=True)):
        assert item["atlas"].dtype == torch.float32
        assert (item["atlas"].permute(1, 2, 0).numpy() == array_of(i, 8, "float16")).all()


def test_long_uids_and_empty_captions(tmp_path: Path) -> None:
    long = ["a" * n for n in (88, 89, 90, 91, 95, 96, 97, 128)]
    captions = {uid: "" if i % 3 == 0 else f"ü {i}\nsecond line" for i, uid in enumerate(long)}
    publish_dataset(tmp_path, long, shard_size=5, captions=captions)
    items = list(AtlasDataset(tmp_path, hashes=True))
    assert {i["uid"]: i["caption"] for i in items} == captions


@pytest.mark.parametrize("world", [1, 2, 3])
def test_resumed_at_every_sample_the_sequence_is_the_uninterrupted_one(root: Path, world: int) -> None:
    for rank in range(world):

        def dataset(rank: int = rank) -> AtlasDataset:
            return AtlasDataset(root, rank=rank, world=world, seed=3, window=2)

        whole = dataset()
        expected = uids(whole) + uids(whole)
        size = len(whole)
        assert size == 11 // world
        for stop in range(2 * size + 1):
            first, read = dataset(), list[str]()
            passes = (item for _ in range(2) for item in first)
            read += [item["uid"] for _, item in zip(range(stop), passes, strict=False)]
            state = json.loads(json.dumps(first.state_dict()))
            second = dataset()
            second.load_state_dict(state)
            while len(read) < 2 * size:
                read += uids(second)
            assert read == expected, (rank, stop)


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2), (1, 4), (4, 1), (3, 6)])
@pytest.mark.parametrize("taken", [0, 1, 2, 3])
def test_another_number_of_ranks_reads_each_sample_once(even: Path, before: int, after: int, taken: int) -> None:
    read: list[str] = []
    state = {}
    for rank in range(before):
        dataset = AtlasDataset(even, rank=rank, world=before)
        iterator = iter(dataset)
        read += [next(iterator)["uid"] for _ in range(taken)]
        state = dataset.state_dict()
    counts = set()
    left = 12 - before * taken >= after
    for rank in range(after):
        dataset = AtlasDataset(even, rank=rank, world=after)
        dataset.load_state_dict(state)
        assert dataset.epoch == (0 if left else 1)
        rest = uids(dataset)
        counts.add(len(rest))
        read += rest if left else []
        assert dataset.epoch == (1 if left else 2)
    assert len(counts) == 1
    assert len(set(read)) == len(read)
    # what does not divide waits for the next epoch
    assert 0 <= 12 - len(read) < after
    if (12 - before * taken) % after == 0:
        assert sorted(read) == UIDS


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_the_order_does_not_depend_on_workers(root: Path, workers: int) -> None:
    dataset = AtlasDataset(root, rank=1, world=2, seed=1)
    expected = uids(AtlasDataset(root, rank=1, world=2, seed=1))
    loader = AtlasLoader(dataset, 2, num_workers=workers)
    assert len(loader) == 3
    batches = list(loader)
    assert [b["uid"] for b in batches] == [expected[:2], expected[2:4], expected[4:]]
    assert batches[0]["atlas"].shape == (2, 16, 8, 8)
    assert batches[0]["atlas"].is_contiguous(memory_format=torch.channels_last)
    assert dataset.epoch == 1


def test_a_loaders_state_moves_to_another_number_of_workers(root: Path) -> None:
    expected = uids(AtlasDataset(root))
    for stop in range(1, 4):
        loader = AtlasLoader(AtlasDataset(root), 3, num_workers=2)
        read: list[str] = []
        for number, batch in enumerate(loader, 1):
            read += batch["uid"]
            if number == stop:
                break
        resumed = AtlasLoader(AtlasDataset(root), 2, num_workers=3)
        resumed.load_state_dict(loader.state_dict())
        assert read + [u for b in resumed for u in b["uid"]] == expected


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_a_consumer_that_counts_batches_gets_every_epoch_whole(
    root: Path, batch_size: int, workers: int, drop_last: bool
) -> None:
    loader = AtlasLoader(AtlasDataset(root), batch_size, num_workers=workers, drop_last=drop_last)
    for epoch in range(3):
        expected = uids(_at_epoch(root, epoch))
        expected = expected[: len(expected) // batch_size * batch_size] if drop_last else expected
        # zip stops at the counter's end, and never asks the loader for what comes after its last batch
        read = [uid for _, batch in zip(range(len(loader)), loader, strict=False) for uid in batch["uid"]]
        assert read == expected
        assert loader.dataset.epoch == epoch + 1


def test_a_state_saved_at_the_last_sample_starts_the_next_epoch(root: Path) -> None:
    dataset, loader = AtlasDataset(root), AtlasLoader(AtlasDataset(root), 4)
    for source in (dataset, loader):
        last = {}
        for _ in zip(range(len(source)), source, strict=False):
            last = source.state_dict()
        resumed = AtlasDataset(root)
        resumed.load_state_dict(last)
        assert uids(resumed) == uids(_at_epoch(root, 1))
        # as version 0.1 wrote it there
        resumed.load_state_dict({**last, "epoch": 0, "segments": [[1, 11]]})
        assert uids(resumed) == uids(_at_epoch(root, 1))


def test_what_is_left_of_an_epoch_and_fills_no_batch_is_no_pass_of_its_own(root: Path) -> None:
    dataset = AtlasDataset(root)
    for _ in zip(range(10), dataset, strict=False):
        pass
    loader = AtlasLoader(AtlasDataset(root), 4, drop_last=True)
    loader.load_state_dict(dataset.state_dict())
    assert [uid for b in loader for uid in b["uid"]] == uids(_at_epoch(root, 1))[:8]
    assert list(AtlasLoader(AtlasDataset(root), 12, drop_last=True)) == []


def _at_epoch(root: Path, epoch: int) -> AtlasDataset:
    dataset = AtlasDataset(root)
    dataset.set_epoch(epoch)
    return dataset


def test_epochs_differ_and_can_be_chosen(root: Path) -> None:
    dataset = AtlasDataset(root)
    first, second = uids(dataset), uids(dataset)
    assert first != second
    assert sorted(first) == sorted(second)
    dataset.set_epoch(1)
    assert uids(dataset) == second
    assert uids(AtlasDataset(root, seed=1)) != first


def test_filters_splits_and_lists(root: Path) -> None:
    def found(**how: object) -> list[str]:
        return uids(AtlasDataset(root, shuffle=False, **how))  # type: ignore[arg-type]

    assert found(filters=[("psnr", ">=", 25)]) == ["obj05", "obj06", "obj07", "obj08", "obj09", "obj11"]
    assert found(filters=[("license", "in", ["CC0-1.0"]), ("psnr", "<", 29)]) == ["obj00", "obj03", "obj06"]
    assert found(filters=[("license", "not in", ["CC0-1.0"]), ("uid", "!=", "obj01")])[0] == "obj02"
    assert found(uids=["obj07", "obj02"]) == ["obj02", "obj07"]
    train, held = found(split="train", heldout=0.4), found(split="heldout", heldout=0.4)
    assert sorted(train + held) == found()
    assert train
    assert held
    # an object stays held out when more are
    assert set(held) <= set(found(split="heldout", heldout=0.7))


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        ({"filters": [("sharpness", ">", 1)]}, "no column sharpness; it has index, uid"),
        ({"filters": [("psnr", "~", 1)]}, "expected one of == != < <= > >="),
        ({"filters": [("psnr", ">=", "high")]}, "on a column of double"),
        ({"filters": [("license", "in", "CC0-1.0")]}, "expected one of"),
        ({"filters": ["psnr >= 30"]}, r"expected \(column, operator, value\)"),
        ({"filters": [("psnr", ">=", 99)]}, "none of 11 samples passes"),
        ({"split": "test"}, "split 'test' is none of all, train, heldout, as its column split is empty"),
        ({"heldout": 2.0, "split": "train"}, r"fraction in \[0, 1\]"),
        ({"uids": ["nobody"]}, "nobody: no such object"),
        ({"uids": ["obj10"]}, "quarantined: bad_input"),
        ({"columns": ["sharpness"]}, "no column sharpness"),
        ({"rank": 0}, "both rank and world"),
        ({"rank": 2, "world": 2}, "rank 2 of 2"),
        ({"rank": 0, "world": 12}, "only 11 samples for 12 ranks: pass uneven="),
        ({"uneven": "keep"}, "uneven 'keep'"),
        ({"window": 0}, "window 0"),
        ({"neighbours": 0}, "neighbours 0"),
        ({"neighbours": -3}, "neighbours -3"),
    ],
)
def test_what_cannot_be_is_refused_by_name(root: Path, how: dict[str, object], fault: str) -> None:
    fault = fault.replace("== != < <= > >=", "==, !=, <, <=, >, >=")
    with pytest.raises(DatasetError, match=fault):
        AtlasDataset(root, **how)  # type: ignore[arg-type]


def test_nothing_is_left_out_where_the_first_are_repeated(root: Path) -> None:
    read = [uids(AtlasDataset(root, rank=r, world=3, uneven="repeat")) for r in range(3)]
    assert [len(r) for r in read] == [4, 4, 4]
    assert len({u for r in read for u in r}) == 11


def test_get_is_one_range_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = AtlasDataset(root, filters=[("psnr", "<", 22)])
    reads: list[tuple[object, ...]] = []
    store = dataset._store
    monkeypatch.setattr(store, "get", lambda key: pytest.fail(f"read all of {key}"))
    read = store.read
    monkeypatch.setattr(store, "read", lambda *where: (reads.append(where), read(*where))[1])
    item = dataset.get("obj09")
    assert (item["atlas"].permute(1, 2, 0).numpy() == array_of(9, 8)).all()
    assert item["caption"] == "caption of obj09: é"
    assert [(key, nbytes) for key, _, nbytes, _ in reads] == [("atlas/atlas-000002.tar", 128 + 4 * 16 * 64)]
    for uid, fault in (("obj10", "quarantined: bad_input"), ("x", "no such object")):
        with pytest.raises(DatasetError, match=fault):
            dataset.get(uid)


def test_columns_limit_the_row(root: Path) -> None:
    item = next(iter(AtlasDataset(root, columns=["psnr", "license"])))
    assert set(item["row"]) == {"psnr", "license"}
    assert item["caption"]


def test_standardised_values_have_mean_0_and_deviation_1(root: Path) -> None:
    stack = torch.stack([i["atlas"] for i in AtlasDataset(root, standardise=True)])
    assert stack.mean(dim=0).abs().max() < 1e-5
    assert (stack.std(dim=0, correction=0) - 1).abs().max() < 1e-4
    dataset = AtlasDataset(root)
    batch = next(iter(AtlasLoader(dataset, 4)))["atlas"]
    standard = dataset.standard()
    assert torch.allclose(standard.inverse(standard(batch)), batch, atol=1e-6)


def test_the_points_are_those_of_its_layout(root: Path) -> None:
    dataset = AtlasDataset(root)
    points = dataset.points()
    size = dataset.catalogue.size
    assert points.shape == (size, size, 3)
    np.testing.assert_allclose(points.reshape(-1, 3), points_of(AtlasConfig(size=size)), atol=1e-6)


def test_reading_ahead_changes_nothing(root: Path) -> None:
    assert uids(AtlasDataset(root, readahead=3)) == uids(AtlasDataset(root))
    for item in AtlasDataset(root, readahead=3):
        assert item["uid"]
        break  # the threads must not hold up the end
    runs = {"neighbours": 3, "seed": 2}
    assert uids(AtlasDataset(root, readahead=5, **runs)) == uids(AtlasDataset(root, **runs))  # type: ignore[arg-type]


def test_neighbours_are_one_read(even: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = AtlasDataset(even, neighbours=3, seed=4)
    reads: list[tuple[str, int, int]] = []
    read = dataset._store.read
    monkeypatch.setattr(
        dataset._store, "read", lambda key, offset, *a: (reads.append((key, offset, a[0])), read(key, offset, *a))[1]
    )
    items = list(dataset)
    places = np.array([dataset.catalogue.find(item["uid"]) for item in items])
    ranges = order.adjacent(places, dataset.catalogue.stretches[places], 3)
    # a shard of four is two runs
    assert len(reads) == len(ranges) <= 6 < len(items)
    parts = [[dataset.catalogue.byte_range(int(place)) for place in part] for part in ranges]
    assert reads == [(p[0].key, p[0].offset, sum(one.nbytes for one in p)) for p in parts]
    for item in items:
        assert (item["atlas"].permute(1, 2, 0).numpy() == array_of(int(item["uid"][3:]), 8)).all()
        # kept, a sample keeps no memory of its neighbours
        assert item["atlas"].untyped_storage().nbytes() == 4 * 16 * 64


def test_a_state_of_something_else_is_refused(root: Path, even: Path) -> None:
    dataset = AtlasDataset(root)
    state = dataset.state_dict()
    changed: list[tuple[Callable[[], AtlasDataset], str]] = [
        (lambda: AtlasDataset(even), "dataset"),
        (lambda: AtlasDataset(root, seed=1), "seed"),
        (lambda: AtlasDataset(root, window=1), "window"),
        (lambda: AtlasDataset(root, neighbours=2), "neighbours 1, this dataset 2"),
        (lambda: AtlasDataset(root, shuffle=False), "window"),
        (lambda: AtlasDataset(root, uneven="repeat"), "uneven"),
        (lambda: AtlasDataset(root, filters=[("psnr", "<", 25)]), "selection"),
    ]
    for make, name in changed:
        with pytest.raises(DatasetError, match=f"the state has {name}"):
            make().load_state_dict(state)
    # of version 0.3
    old = {name: value for name, value in state.items() if name != "neighbours"}
    dataset.load_state_dict(old)
    with pytest.raises(DatasetError, match="neighbours 1, this dataset 2"):
        AtlasDataset(root, neighbours=2).load_state_dict(old)
    with pytest.raises(DatasetError, match="version"):
        dataset.load_state_dict({})
    with pytest.raises(DatasetError, match="took 99 samples of its 11"):
        dataset.load_state_dict({**state, "segments": [[1, 99]]})


def test_a_dataset_can_be_sent_to_another_process(root: Path) -> None:
    dataset = AtlasDataset(root, standardise=True)
    assert uids(pickle.loads(pickle.dumps(dataset))) == uids(dataset)


def test_ranks_are_those_of_torch_distributed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    early, given = AtlasDataset(root), AtlasDataset(root, rank=0, world=1)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    assert uids(AtlasDataset(root)) == uids(AtlasDataset(root, rank=1, world=2))
    assert len(uids(given)) == 11
    with pytest.raises(DatasetError, match=r"before torch\.distributed was initialised"):
        list(early)


def test_a_tar_cut_anywhere_is_named(tmp_path: Path) -> None:
    publish_dataset(tmp_path, UIDS[:3], shard_size=4)
    shard = tmp_path / "atlas/atlas-000000.tar"
    whole = shard.read_bytes()
    dataset = AtlasDataset(tmp_path, shuffle=False)
    for cut in range(0, len(whole), 512):
        shard.write_bytes(whole[:cut])
        with pytest.raises(DatasetError, match=rf"atlas-000000.tar: {cut} bytes, .* truncated, {len(whole) - cut} "):
            next(iter(dataset))
        with pytest.raises(DatasetError, match=r"truncated, .*obj00 to obj02 was to be read"):
            list(AtlasDataset(tmp_path, shuffle=False, neighbours=4))
    shard.write_bytes(whole + b"\0")
    with pytest.raises(DatasetError, match="longer"):
        next(iter(dataset))
    shard.unlink()
    with pytest.raises(DatasetError, match="no such file"):
        next(iter(dataset))


def test_a_flipped_byte_anywhere_is_found(tmp_path: Path) -> None:
    publish_dataset(tmp_path, UIDS[:2], shard_size=4)
    shard = tmp_path / "atlas/atlas-000000.tar"
    whole = shard.read_bytes()
    dataset = AtlasDataset(tmp_path, shuffle=False, hashes=True)
    runs = AtlasDataset(tmp_path, shuffle=False, hashes=True, neighbours=2)
    rng = np.random.default_rng(0)
    # bytes of the last sample's small members with their headers, and some of all
    small = range(len(whole) - 1024 - 4 * 512 - 1024, len(whole) - 1024)
    for place in [*rng.integers(0, len(whole) - 1024, 100).tolist(), *small[::9]]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        shard.write_bytes(damaged)
        dataset.set_epoch(0)
        with pytest.raises(DatasetError, match=r"atlas-000000\.tar, bytes from \d+, obj0[01]: ") as single:
            list(dataset)
        with pytest.raises(DatasetError) as in_range:
            list(runs)
        assert str(in_range.value) == str(single.value)
    shard.write_bytes(whole)
    assert len(list(AtlasDataset(tmp_path))) == 2


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("_SUCCESS", "SHA256SUMS does not match _SUCCESS"),
        ("SHA256SUMS", "SHA256SUMS does not match"),
        ("index.json", "index.json does not match SHA256SUMS"),
        ("metadata.parquet", "metadata.parquet does not match"),
        ("atlas_mean.npy", "atlas_mean.npy does not match index.json"),
    ],
)
def test_damage_to_the_small_files_is_found(root: Path, tmp_path: Path, key: str, fault: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns("_work"))
    data = bytearray((copy / key).read_bytes())
    data[len(data) // 4] ^= 1
    (copy / key).write_bytes(data)
    with pytest.raises(DatasetError, match=fault):
        AtlasDataset(copy, standardise=True)


def test_an_unfinished_dataset_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        AtlasDataset(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="not a finished dataset"):
        AtlasDataset(tmp_path)
    with pytest.raises(StoreRefused, match="expected a local folder or s3://"):
        AtlasDataset("ftp://bucket/x")
