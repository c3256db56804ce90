"""`Ring`: shared memory that a worker writes batches into and the loader's process hands back.

A slot of it belongs to one batch from `take` in the worker until no tensor of that batch is left in the loader's
process, however the consumer keeps it: as a view, in a list, in an autograd graph. Only then is the slot written to
again. A batch that finds all slots in use, or none large enough, gets memory of its own.

The tensors of a batch share the storage of their slot, so that `torch.save`, `deepcopy` and queues write or copy the
whole slot. A process that is forked while a batch is held sees the slot change once its parent drops the batch. Both
need clones.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from multiprocessing.connection import Connection, Pipe
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from gaussianverse.atlas.reader.unnamed_file import unnamed_file

_ALIGNED = 64
"""Tensors begin at multiples of this many bytes, a line of the processor's cache."""
_rings: weakref.WeakValueDictionary[str, Ring] = weakref.WeakValueDictionary()
"""The rings of this process by name."""


class _Part(NamedTuple):
    """Place of a tensor in its slot."""

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


class Ring:
    """Slots of equal size in an unnamed file, mapped by both processes. Memory is used once it is written to.

    Args:
        slots: number of slots, up to 256.
        nbytes: bytes of the tensors that each has room for.
    """

    def __init__(self, slots: int, nbytes: int) -> None:
        self._name = uuid4().hex
        # a page more, for the gaps between tensors
        self._nbytes = (nbytes // mmap.PAGESIZE + 2) * mmap.PAGESIZE
        self._file: Any = unnamed_file()
        os.ftruncate(self._file.fileno(), slots * self._nbytes)
        self._returned, self._give_back = Pipe(duplex=False)
        self._free = set(range(slots))
        self._map()

    def _map(self) -> None:
        self._memory = np.frombuffer(mmap.mmap(self._file.fileno(), 0), np.uint8)
        _rings[self._name] = self

    def take(self) -> Arena:
        """Memory for the next batch."""
        while self._returned.poll():
            self._free.add(self._returned.recv_bytes()[0])
        if not self._free:
            return Arena(self._name, None, torch.empty(0, dtype=torch.uint8))
        # the lowest one: others are touched only if they are needed
        self._free.remove(slot := min(self._free))
        return Arena(self._name, slot, torch.from_numpy(self._slot(slot)))

    @contextmanager
    def taken(self) -> Iterator[Arena]:
        """The context in which a batch is made and sent. Its memory is free again if an error ends it before that."""
        arena = self.take()
        try:
            yield arena
        except BaseException:  # also GeneratorExit, where an error elsewhere ends the one that makes the batch
            if arena.slot is not None and not arena.is_sent:
                self._free.add(arena.slot)
            raise

    def lent(self, slot: int) -> Tensor:
        """The memory of a slot, uint8, which is handed back when no tensor has it any longer."""
        memory = self._slot(slot)
        weakref.finalize(memory, _hand_back, self._give_back, slot, os.getpid()).atexit = False
        return torch.from_numpy(memory)

    def _slot(self, slot: int) -> Any:
        return self._memory[slot * self._nbytes : (slot + 1) * self._nbytes]

    def __getstate__(self) -> dict[str, Any]:
        sent = {name: value for name, value in self.__dict__.items() if name not in ("_file", "_memory")}
        if get_spawning_popen() is None:
            raise TypeError("a ring belongs to a loader and its workers, and cannot be pickled")
        return {**sent, "_file": DupFd(self._file.fileno())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._file = os.fdopen(state["_file"].detach(), "r+b", buffering=0)
        self._map()


class Arena:
    """Memory for the tensors of one batch: a slot, or whatever torch gives where that does not suffice.

    Attributes:
        slot: its number; None = all slots are in use.
        is_sent: whether the batch was sent, so that the loader's process hands the slot back.
    """

    def __init__(self, ring: str, slot: int | None, memory: Tensor) -> None:
        self._ring, self.slot, self._memory = ring, slot, memory
        self._used, self.is_sent = 0, False

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor that is not set to anything."""
        nbytes = prod(shape) * dtype.itemsize
        if self._used + nbytes > len(self._memory):
            return torch.empty(*shape, dtype=dtype)
        part = self._memory[self._used : self._used + nbytes].view(dtype).view(*shape)
        self._used += -(-nbytes // _ALIGNED) * _ALIGNED
        return part

    def sent(self, batch: Mapping[str, Any]) -> Sent:
        """A batch on its way to the loader's process."""
        self.is_sent = True
        if self.slot is None:
            return Sent(None, {}, dict(batch))
        begin = self._memory.data_ptr()
        own = {
            name: value
            for name, value in batch.items()
            if isinstance(value, Tensor) and begin <= value.data_ptr() < begin + len(self._memory)
        }
        parts = {name: _Part(v.data_ptr() - begin, tuple(v.shape), v.stride(), v.dtype) for name, v in own.items()}
        return Sent((self._ring, self.slot), parts, {k: v for k, v in batch.items() if k not in own})


class Sent:
    """A batch that is sent as the places of its tensors. Unpickled, or by `received`, it is the batch itself."""

    def __init__(self, slot: tuple[str, int] | None, parts: dict[str, _Part], others: dict[str, Any]) -> None:
        self._all = (slot, parts, others)

    def received(self) -> dict[str, Any]:
        """The batch, in the loader's process."""
        return _received(*self._all)

    def __reduce__(self) -> tuple[Callable[..., dict[str, Any]], tuple[Any, ...]]:
        return _received, self._all


def _received(slot: tuple[str, int] | None, parts: dict[str, _Part], others: dict[str, Any]) -> dict[str, Any]:
    if slot is None:
        return others
    memory = _rings[slot[0]].lent(slot[1])
    tensors = {
        name: memory[p.offset :][: _nbytes(p)].view(p.dtype).as_strided(p.shape, p.strides)
        for name, p in parts.items()
    }
    return {**tensors, **others}


def _nbytes(part: _Part) -> int:
    return prod(part.shape) * part.dtype.itemsize


def _hand_back(give_back: Connection, slot: int, process: int) -> None:
    """Tell the worker that a slot is free; not from a process that was forked while the slot was lent."""
    if os.getpid() == process:
        try:
            give_back.send_bytes(bytes([slot]))
        except OSError:  # the worker has ended
            return
