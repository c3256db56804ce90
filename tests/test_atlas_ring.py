"""Memory of batches: used again when nobody has it any longer, and never before."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch
from torch import Tensor

from gaussianverse.atlas.reader.ring import Ring

SHAPE = (4, 8, 8, 3)
NBYTES = 4 * 4 * 8 * 8 * 3


def filled(ring: Ring, value: float) -> dict[str, Any]:
    """A batch, as the consumer gets it."""
    arena = ring.take()
    images = arena.empty(SHAPE, torch.float32)
    images.fill_(value)
    more = arena.empty((5,), torch.int64)
    more.fill_(int(value))
    found: dict[str, Any] = pickle.loads(
        pickle.dumps(arena.sent({"a": images.movedim(-1, 1), "b": more, "c": ["x"]}))
    )
    return found


def in_ring(ring: Ring, tensor: Tensor) -> bool:
    begin = ring._memory.ctypes.data
    return bool(begin <= tensor.data_ptr() < begin + len(ring._memory))


@pytest.fixture
def ring() -> Ring:
    return Ring(3, NBYTES + 40)


def test_a_batch_arrives_in_its_place(ring: Ring) -> None:
    batch = filled(ring, 7)
    assert batch["a"].shape == (4, 3, 8, 8)
    assert batch["a"].is_contiguous(memory_format=torch.channels_last)
    assert bool((batch["a"] == 7).all())
    assert batch["b"].tolist() == [7] * 5
    assert batch["c"] == ["x"]
    assert in_ring(ring, batch["a"])
    assert in_ring(ring, batch["b"])


def test_a_dropped_batch_gives_its_memory_to_the_next(ring: Ring) -> None:
    places = set()
    for value in range(10):
        batch = filled(ring, value)
        places.add(batch["a"].data_ptr())
        del batch
    assert len(places) == 1


@pytest.mark.parametrize(
    "keep",
    [
        lambda batch: batch, lambda batch: batch["a"], lambda batch: batch["b"][2:3],
        lambda batch: batch["a"].numpy(), lambda batch: batch["a"][0, 1].T[3:],
        lambda batch: batch["a"].detach().permute(0, 2, 3, 1),
        lambda batch: torch.utils.dlpack.from_dlpack(batch["a"]), lambda batch: batch["a"].untyped_storage(),
        lambda batch: (torch.ones(1, requires_grad=True) * batch["a"]).grad_fn,
    ],
    ids=["dict", "tensor", "part", "numpy", "view", "detached", "dlpack", "storage", "graph"],
)  # fmt: skip
def test_whatever_is_kept_of_a_batch_keeps_it(ring: Ring, keep: Any) -> None:
    first = filled(ring, 1)
    place, watch = first["a"].data_ptr(), first["a"].clone()
    kept = keep(first)
    memory = ring._memory[: ring._nbytes].copy()
    del first
    for value in range(2, 8):
        assert filled(ring, value)["a"].data_ptr() != place
    assert (ring._memory[: ring._nbytes] == memory).all()
    assert bool((watch == 1).all())
    del kept
    gc.collect()
    assert filled(ring, 9)["a"].data_ptr() == place


def test_batches_beyond_the_ring_have_memory_of_their_own(ring: Ring) -> None:
    kept = [filled(ring, value) for value in range(8)]
    assert [in_ring(ring, batch["a"]) for batch in kept] == [True] * 3 + [False] * 5
    assert [float(batch["a"].mean()) for batch in kept] == list(range(8))
    del kept
    assert in_ring(ring, filled(ring, 0)["a"])


def test_tensors_that_do_not_fit_are_sent_by_themselves(ring: Ring) -> None:
    arena = ring.take()
    small, large = arena.empty((16,), torch.float32), arena.empty((1 << 20,), torch.uint8)
    small.fill_(3), large.fill_(4)
    found = arena.sent({"small": small, "large": large}).received()
    assert (in_ring(ring, found["small"]), in_ring(ring, found["large"])) == (True, False)
    assert bool((found["large"] == 4).all())


def test_a_batch_that_nobody_looks_at_is_no_loss(ring: Ring) -> None:
    for _ in range(5):
        pickle.loads(pickle.dumps(ring.take().sent({})))
        assert in_ring(ring, filled(ring, 1)["a"])


def test_a_batch_that_is_not_sent_gives_its_memory_back(ring: Ring) -> None:
    for _ in range(5):
        with pytest.raises(ValueError, match="damaged"), ring.taken():
            raise ValueError("damaged")
        assert in_ring(ring, filled(ring, 1)["a"])


def test_a_batch_that_was_sent_keeps_its_memory_if_an_error_follows(ring: Ring) -> None:
    taken = ring.taken()
    arena = taken.__enter__()
    batch = arena.sent({"a": arena.empty(SHAPE, torch.float32)}).received()
    error = ValueError("after it was sent")
    assert not taken.__exit__(ValueError, error, None)
    assert filled(ring, 1)["a"].data_ptr() != batch["a"].data_ptr()


def test_a_ring_is_not_for_other_processes(ring: Ring) -> None:
    with pytest.raises(TypeError, match="belongs to a loader"):
        pickle.dumps(ring)


def _work(ring: Ring, pipe: Connection) -> None:
    while (value := pipe.recv()) is not None:
        arena = ring.take()
        tensor = arena.empty(SHAPE, torch.float32)
        tensor.fill_(value)
        pipe.send(arena.sent({"a": tensor}))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_between_processes(ring: Ring, method: str) -> None:
    context = multiprocessing.get_context(method)
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(ring, there), daemon=True)
    process.start()
    kept = []
    for value in range(40):
        here.send(value)
        batch = here.recv()
        assert in_ring(ring, batch["a"]), value
        kept = [*kept[-1:], (value, batch)]
        for number, held in kept:
            assert bool((held["a"] == number).all())
    here.send(None)
    process.join()
    assert process.exitcode == 0
    assert float(kept[-1][1]["a"].mean()) == 39


def test_a_forked_process_hands_nothing_back(ring: Ring) -> None:
    batch = filled(ring, 1)
    place = batch["a"].data_ptr()
    child = os.fork()
    if child == 0:
        del batch
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert filled(ring, 2)["a"].data_ptr() != place
    assert bool((batch["a"] == 1).all())
