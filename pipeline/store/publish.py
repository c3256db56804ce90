"""publish: the one way in which anything durable is written.

Put-if-absent, and when the answer is "taken" or no answer at all, read back and compare. So a write whose
answer was lost, a write repeated by a second worker, and a write after a restart all end the same way.
"""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path

from gaussianverse.atlas.store.errors import StoreError, StoreRefused
from gaussianverse.atlas.store.storage import Head, Storage, sha256_of, sha256_of_file
from gaussianverse.pipeline.errors import ShardConflict

Data = bytes | bytearray | Path
"""Bytes, or a file that has them."""
_SMALL = 1 << 24
"""Bytes of a file that is put as bytes are."""
ATTEMPTS = 6
_PAUSE_S = 0.25
PATIENCE_S = 120.0
"""After this long no further attempt begins: a store that takes puts and never answers is to be known for what it is
before the driver ends the task and holds it against the object."""


class Published(StrEnum):
    """The end of a write."""

    WRITTEN = "written"
    """Our bytes are there now."""
    OURS = "ours"
    """The same bytes were there already (or our write's answer was lost)."""
    ADOPTED = "adopted"
    """Somebody else's bytes were there first, and stand."""


def publish(
    storage: Storage,
    key: str,
    data: Data,
    *,
    pause_s: float = _PAUSE_S,
    patience_s: float = PATIENCE_S,
    durable: bool = True,
) -> Published:
    """Write `data` under `key` unless something is there; the first writer wins.

    Args:
        storage: to write to.
        key: to write under.
        data: to write; a file is always written durably.
        pause_s: before the second attempt; doubles with each.
        patience_s: after which no further attempt begins.
        durable: whether it must outlive a loss of power.

    Raises:
        StoreError: the store failed `ATTEMPTS` times running, or for longer than `patience_s`.
        StoreRefused: the store will not have it.
    """
    if isinstance(data, Path) and data.stat().st_size <= _SMALL:
        data = data.read_bytes()
    sha256 = sha256_of_data(data)

    def put() -> bool:
        if isinstance(data, Path):
            return storage.put_file(key, data)
        return storage.put_if_absent(key, data) if durable else storage.put_unsynced(key, data)

    last: StoreError | None = None
    started = time.monotonic()
    for attempt in range(ATTEMPTS):
        if attempt:
            if time.monotonic() - started > patience_s:
                break
            time.sleep(pause_s * 2 ** (attempt - 1))
        try:
            if put():
                return Published.WRITTEN
        except StoreRefused:
            raise
        except StoreError as error:  # was it written? look
            last = error
        try:
            there = storage.head(key)
        except StoreRefused:
            raise
        except StoreError as error:
            last = error
            continue
        if there is not None:
            return Published.OURS if there.sha256 == sha256 else Published.ADOPTED
    seconds = time.monotonic() - started
    raise StoreError(f"{storage.url}/{key}: not written in {seconds:.0f} s of trying; last: {last}") from last


def sha256_of_data(data: Data) -> str:
    """Hex sha256 of bytes, or of those of a file."""
    return sha256_of_file(data) if isinstance(data, Path) else sha256_of(data)


def publish_exact(storage: Storage, key: str, data: Data) -> Head:
    """Write what is a pure function of its inputs: whatever is there already must be the same.

    Raises:
        ShardConflict: other bytes are there. They are left as they are.
    """
    if publish(storage, key, data) is Published.ADOPTED:
        raise ShardConflict(
            f"{storage.url}/{key}: holds other bytes than its fragments give; something else wrote there. "
            "Nothing was overwritten: use a new output, or find out who did"
        )
    return Head(data.stat().st_size if isinstance(data, Path) else len(data), sha256_of_data(data))
