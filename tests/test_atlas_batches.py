"""Batches of `AtlasLoader`: written once, into memory that workers share with the consumer."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from reader_loops import BATCH, BATCHES, SAMPLES, order_of, publish
from torch.utils.data import DataLoader

from gaussianverse import AtlasDataset, AtlasLoader
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.loader import collate

PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("dataset"))


def expected(root: Path, batches: list[dict[str, Any]], **how: Any) -> None:
    """Compare batches with single samples of a plain dataset, which torch stacks."""
    samples = list(AtlasDataset(root, **how))
    groups = [samples[first : first + BATCH] for first in range(0, len(samples), BATCH)]
    assert len(batches) == len(groups)
    for batch, group in zip(batches, groups, strict=True):
        stacked = collate(group)
        assert list(batch) == list(stacked)
        assert torch.equal(batch["atlas"], stacked["atlas"])
        assert batch["atlas"].stride() == stacked["atlas"].stride()
        assert {k: v for k, v in batch.items() if k != "atlas"} == {k: v for k, v in stacked.items() if k != "atlas"}


@pytest.mark.parametrize("neighbours", [1, 3])
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_batches_are_their_samples_for_any_number_of_workers(root: Path, workers: int, neighbours: int) -> None:
    how: dict[str, Any] = {"standardise": True, "neighbours": neighbours, "seed": 3}
    loader = AtlasLoader(AtlasDataset(root, readahead=7, **how), BATCH, num_workers=workers)
    # kept, as a list does, more of them than there is shared memory for
    kept: list[Any] = list(loader)
    expected(root, kept, **how)
    assert len({id(batch["atlas"].untyped_storage()) for batch in kept}) == len(kept)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "how",
    [
        {"dtype": torch.bfloat16, "standardise": True},
        {"channels": ["opacity", 12, 0], "standardise": True, "columns": ["psnr"]},
        {"channels": [4, 5, 6], "dtype": torch.bfloat16, "hashes": True},
    ],
)
def test_types_and_channels(root: Path, how: dict[str, Any], workers: int) -> None:
    batches: list[Any] = list(AtlasLoader(AtlasDataset(root, **how), BATCH, num_workers=workers))
    expected(root, batches, **how)
    dataset = AtlasDataset(root, **{**how, "standardise": False, "dtype": torch.float32})
    plain = torch.stack([item["atlas"] for item in dataset])
    alike = dataset.standard()(plain) if "standardise" in how else plain
    assert torch.equal(torch.cat([b["atlas"] for b in batches]), alike.to(how.get("dtype", torch.float32)))
    assert torch.equal(plain, torch.stack([item["atlas"] for item in AtlasDataset(root)])[:, dataset.channels])


def test_float16_is_written_as_its_values(tmp_path: Path) -> None:
    publish(tmp_path / "half", dtype="float16")
    batches: list[Any] = list(AtlasLoader(AtlasDataset(tmp_path / "half", standardise=True), BATCH, num_workers=1))
    expected(tmp_path / "half", batches, standardise=True)


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_what_a_consumer_keeps_is_never_written_to(root: Path, workers: int, persistent: bool) -> None:
    """Every third batch is kept, in the middle of passes and from pass to pass."""
    loader = AtlasLoader(AtlasDataset(root, seed=1), BATCH, num_workers=workers, persistent_workers=persistent)
    kept: list[tuple[list[str], torch.Tensor, torch.Tensor]] = []
    for _ in range(3):
        for number, batch in enumerate(loader):
            if number % 3 == 0:
                kept.append((batch["uid"], batch["atlas"], batch["atlas"].clone()))
    assert len(kept) == 3 * -(-BATCHES // 3)
    assert all(torch.equal(found, copy) for _, found, copy in kept)


@pytest.mark.parametrize("workers", [1, 2])
def test_dropped_batches_share_memory(root: Path, workers: int) -> None:
    """One batch at a time is held: no more places than those that are made, wait, are held and about to be."""
    loader = AtlasLoader(AtlasDataset(root), BATCH, num_workers=workers, prefetch_factor=2, persistent_workers=True)
    places = set()
    for _ in range(4):
        for batch in loader:
            places.add(batch["atlas"].data_ptr())
    assert len(places) <= 4 * workers < 4 * BATCHES


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("neighbours", [1, 4])
def test_a_pass_is_resumed_in_the_middle(root: Path, neighbours: int, workers: int) -> None:
    how: dict[str, Any] = {"neighbours": neighbours, "seed": 5}
    whole = [item["uid"] for item in AtlasDataset(root, **how)]
    loader = AtlasLoader(AtlasDataset(root, **how), BATCH, num_workers=workers)
    read: list[str] = []
    for _, batch in zip(range(4), loader, strict=False):
        read += batch["uid"]
    state = json.loads(json.dumps(loader.state_dict()))
    resumed = AtlasLoader(AtlasDataset(root, **how), BATCH + 3, num_workers=(workers + 1) % 4)
    resumed.load_state_dict(state)
    assert read + [uid for batch in resumed for uid in batch["uid"]] == whole
    with pytest.raises(DatasetError, match=f"the state has neighbours {neighbours}, this dataset 2"):
        AtlasLoader(AtlasDataset(root, neighbours=2, seed=5), BATCH).load_state_dict(state)


def test_ranks_divide_runs(root: Path) -> None:
    read = [
        [uid for b in AtlasLoader(AtlasDataset(root, rank=r, world=3, neighbours=4), BATCH) for uid in b["uid"]]
        for r in range(3)
    ]
    assert [len(r) for r in read] == [SAMPLES // 3] * 3
    assert len({uid for r in read for uid in r}) == SAMPLES // 3 * 3


@pytest.mark.parametrize("workers", [0, 2])
def test_the_last_batch_may_be_left_out(root: Path, workers: int) -> None:
    loader = AtlasLoader(
        AtlasDataset(root), BATCH, num_workers=workers, drop_last=True, persistent_workers=workers > 0
    )
    for epoch in range(2):
        batches = list(loader)
        assert len(batches) == len(loader) == SAMPLES // BATCH
        assert [u for b in batches for u in b["uid"]] == order_of(root, epoch)[: SAMPLES // BATCH * BATCH]


def test_a_collate_of_ones_own_gets_samples(root: Path) -> None:
    loader = AtlasLoader(AtlasDataset(root), BATCH, collate_fn=lambda samples: [s["uid"] for s in samples])
    assert [uid for batch in loader for uid in batch] == order_of(root, 0)
    plain = DataLoader(AtlasDataset(root, batch_size=BATCH), BATCH, num_workers=2, collate_fn=collate)
    assert [uid for batch in plain for uid in batch["uid"]] == order_of(root, 0)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("neighbours", [1, 8])
def test_damage_is_named_by_its_sample(tmp_path: Path, neighbours: int, workers: int) -> None:
    folder = publish(tmp_path / "damaged")
    dataset = AtlasDataset(folder, neighbours=neighbours, hashes=True)
    part = dataset.catalogue.byte_range(dataset.catalogue.find("obj23"))
    shard = folder / part.key
    whole = bytearray(shard.read_bytes())
    whole[part.offset + part.nbytes // 2] ^= 1
    shard.write_bytes(whole)
    with pytest.raises(DatasetError, match=r"bytes from \d+, obj23: .*damaged"):
        list(AtlasLoader(dataset, BATCH, num_workers=workers))
    shard.write_bytes(whole[: part.offset + 600])
    with pytest.raises(DatasetError, match=r"truncated, .*obj\d\d was to be read"):
        list(AtlasLoader(AtlasDataset(folder, neighbours=neighbours), BATCH, num_workers=workers))


@pytest.mark.parametrize("family", [False, True])
def test_batches_that_fail_take_no_memory_from_later_ones(tmp_path: Path, family: bool) -> None:
    """More passes of persistent workers fail than there are slots, of an object or of a member of its family."""
    folder = publish(tmp_path / "damaged")
    dataset = AtlasDataset(folder, shuffle=False, hashes=True)
    dataset = dataset.with_family("splats") if family else dataset
    path = folder / ("splats/splats-000000.tar" if family else "atlas/atlas-000000.tar")
    with tarfile.open(path) as archive:
        member = next(m for m in archive if m.name in ("obj05.splat.npz", "obj05.atlas.npy"))
    whole, byte = path.read_bytes(), member.offset_data + member.size // 2
    broken = whole[:byte] + bytes([whole[byte] ^ 1]) + whole[byte + 1 :]
    loader = AtlasLoader(dataset, BATCH, num_workers=1, prefetch_factor=1, persistent_workers=True)
    places = set()
    for data in (whole, *[broken] * 6, whole, whole):
        path.write_bytes(data)
        try:
            for batch in loader:
                places.add(batch["atlas"].data_ptr())
        except DatasetError:
            assert data is broken
        else:
            assert data is whole
    loader._iterator._shutdown_workers()  # the errors' tracebacks keep them until they are collected
    assert len(places) <= 3  # the slots of a worker that makes one batch ahead


def test_a_worker_that_is_killed_is_an_error(root: Path) -> None:
    loader = AtlasLoader(AtlasDataset(root), 1, num_workers=1)
    batches = iter(loader)
    next(batches)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid or 0, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"DataLoader worker .*(killed|exited)"):
        list(batches)
    # and the next pass is a whole one
    assert [uid for batch in loader for uid in batch["uid"]] == order_of(root, 1)


def resident(process: int | str = "self") -> int:
    """Bytes of memory that a process uses."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measured by Linux's /proc")
@pytest.mark.parametrize(("workers", "neighbours"), [(0, 1), (1, 1), (1, 6)])
def test_ten_epochs_take_no_more_memory(tmp_path: Path, workers: int, neighbours: int) -> None:
    """An atlas is 1 MiB, a batch 4 and an epoch 12: a batch that is lost in every epoch would be 36."""
    folder = publish(tmp_path / "large", size=128, samples=12)
    loader = AtlasLoader(
        AtlasDataset(folder, standardise=True, neighbours=neighbours, readahead=12 if neighbours > 1 else 0),
        BATCH, num_workers=workers, persistent_workers=workers > 0,
    )  # fmt: skip
    used: list[int] = []
    for _ in range(12):
        held = torch.zeros(1)
        for batch in loader:
            held = held + batch["atlas"].sum()
        batch = {}  # type: ignore[assignment]
        workers_of = [w.pid for w in loader._iterator._workers] if workers else []
        used.append(resident() + sum(map(resident, workers_of)))
    # after two epochs, in which allocators take what they need
    assert max(used[2:]) - used[2] < 24 << 20, [u >> 20 for u in used]
