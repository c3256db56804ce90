import multiprocessing
from pathlib import Path

import pytest
from reader_datasets import publish_dataset

from gaussianverse.atlas import AtlasDataset
from gaussianverse.atlas.reader.cache import CachedStore

UIDS = [f"obj{i:02d}" for i in range(8)]


class Counting:
    """A store of one object, of which byte i is i."""

    url = "counting"

    def __init__(self) -> None:
        self.reads = 0

    def get(self, key: str) -> bytes:
        return key.encode()

    def read(self, key: str, offset: int, nbytes: int, total: int) -> bytearray:
        self.reads += 1
        return bytearray(range(offset, offset + nbytes))


def kept(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.iterdir() if p.name not in ("lock", "used"))


def test_what_was_read_once_is_read_from_the_folder(tmp_path: Path) -> None:
    store = Counting()
    for _ in range(3):
        cache = CachedStore(store, tmp_path, 1000)
        assert cache.read("atlas/a.tar", 5, 10, 200) == bytes(range(5, 15))
        assert cache.read("atlas/a.tar", 15, 10, 200) == bytes(range(15, 25))
        assert cache.get("k") == b"k"
    assert store.reads == 2


def test_neighbours_are_kept_singly_and_those_that_lack_are_one_read(tmp_path: Path) -> None:
    store = Counting()
    cache = CachedStore(store, tmp_path, 1000)
    sizes = [10, 5, 20, 5]
    expected = [bytes(range(0, 10)), bytes(range(10, 15)), bytes(range(15, 35)), bytes(range(35, 40))]
    assert cache.read("a", 10, 5, 200) == expected[1]
    assert cache.read_adjacent("a", 0, sizes, 200) == expected
    assert store.reads == 3
    assert cache.read_adjacent("a", 0, sizes, 200) == expected
    # runs begin elsewhere in the next epoch
    assert cache.read_adjacent("a", 15, [20, 5, 8], 200) == [*expected[2:], bytes(range(40, 48))]
    assert store.reads == 4
    assert kept(tmp_path) == 48


def test_it_is_filled_to_its_bound_and_then_left(tmp_path: Path) -> None:
    store = Counting()
    cache = CachedStore(store, tmp_path, 35)
    for _ in range(2):
        for offset in range(0, 100, 10):
            assert cache.read("a", offset, 10, 200) == bytes(range(offset, offset + 10))
    assert kept(tmp_path) == 30
    # three of ten are kept for good, rather than none because each throws out the next
    assert store.reads == 10 + 7


def test_a_file_cut_short_is_read_again(tmp_path: Path) -> None:
    store = Counting()
    cache = CachedStore(store, tmp_path, 100)
    cache.read("a", 0, 10, 200)
    next(tmp_path.glob("a-*")).write_bytes(b"half")
    assert cache.read("a", 0, 10, 200) == bytes(range(10))
    assert store.reads == 2


def test_a_lost_count_is_taken_again(tmp_path: Path) -> None:
    CachedStore(Counting(), tmp_path, 100).read("a", 0, 10, 200)
    (tmp_path / "used").write_text("")
    CachedStore(Counting(), tmp_path, 15).read("a", 10, 10, 200)
    assert kept(tmp_path) == 10


def _fill(folder: Path, first: int) -> None:
    cache = CachedStore(Counting(), folder, 400)
    for offset in range(first, 200, 2):
        cache.read("a", offset, 10, 300)


def test_processes_share_the_bound(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_fill, args=(tmp_path, first)) for first in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert kept(tmp_path) == 400


@pytest.mark.parametrize("neighbours", [1, 3])
@pytest.mark.parametrize("room", [10**6, 12_000])
def test_a_dataset_reads_from_its_cache(tmp_path: Path, room: int, neighbours: int) -> None:
    root = publish_dataset(tmp_path / "set", UIDS, shard_size=4)
    expected = [i["uid"] for i in AtlasDataset(root, neighbours=neighbours)]
    for _ in range(2):
        how = {"cache": tmp_path / "cache", "hashes": True, "neighbours": neighbours}
        dataset = AtlasDataset(root, cache_bytes=room, **how)  # type: ignore[arg-type]
        assert [i["uid"] for i in dataset] == expected
    (folder,) = (tmp_path / "cache").iterdir()
    assert folder.name == dataset.catalogue.digest[:16]
    assert 0 < kept(folder) <= room
    for shard in root.glob("atlas/*.tar"):
        shard.unlink()
    if room == 10**6:
        assert [i["uid"] for i in AtlasDataset(root, **how)] == expected  # type: ignore[arg-type]
        # other runs, of the next epoch
        again = AtlasDataset(root, **how)  # type: ignore[arg-type]
        again.set_epoch(1)
        assert sorted(i["uid"] for i in again) == UIDS
