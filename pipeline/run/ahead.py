"""Views of the next object, fetched into a folder of this machine while the one before it is fitted.

They are an offer: any process of this user on the machine may take them, once, and who finds none fetches for itself.
A fetch that fails is forgotten, so that whatever is wrong shows where the object itself is read, with its reason.

OWN FOLDER/              see `scratch`
    KEY.lock             locked while it is fetched
    KEY.part/            what is there so far
    KEY.ahead/           all of it
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from gaussianverse.atlas.store import is_s3
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.fitter.sources.selection import Selection
from gaussianverse.pipeline.run import scratch as folders
from gaussianverse.pipeline.run.fetching import fetch, place_of

log = logging.getLogger(__name__)

LARGEST = 256 << 20
"""Bytes of an object's files in the store; larger ones are not fetched ahead."""
MOST = 2
"""Objects that a process keeps for others; one more may be on its way."""
MIN_FREE = 1 << 30
"""Bytes that must be free; with less, nothing is fetched ahead."""
AT_ONCE = 4
"""Requests at a time: there are the seconds of a fit for them."""


def begin(address: str, store: StoreOptions, selection: Selection, scratch: str) -> threading.Thread | None:
    """Begin to fetch the views at an s3:// address, in a thread that ends with the process; None for other addresses.

    Args:
        address: of the views.
        store: how the store is reached.
        selection: the files that are read.
        scratch: see `scratch.base_of`.
    """
    if not is_s3(address):
        return None
    key = _key(address, store, selection)
    thread = threading.Thread(target=_offer, args=(key, address, store, selection, scratch), daemon=True)
    thread.start()
    return thread


def take(address: str, store: StoreOptions, selection: Selection | None, scratch: str, folder: Path) -> bool:
    """Move views that were fetched ahead to `folder`, which is empty; waits for those that are on their way.

    Returns:
        Whether there were any; they are then taken for good.
    """
    key = _key(address, store, selection)
    base = folders.base_of(scratch)
    for lock in base.glob(f"*/{key}.lock"):
        with suppress(FileNotFoundError), lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # ends with the process that fetches, however that ends
    for offer in base.glob(f"*/{key}.ahead"):
        with suppress(FileNotFoundError):
            offer.rename(folder)
            return True
    return False


def _key(address: str, store: StoreOptions, selection: Selection | None) -> str:
    return hashlib.sha256(repr((address, store, selection)).encode()).hexdigest()[:32]


def _offer(key: str, address: str, store: StoreOptions, selection: Selection, scratch: str) -> None:
    """Fetch views and offer them; the first failure ends it."""
    try:
        own = folders.own_folder(scratch)
        _forget_oldest(own)
        if shutil.disk_usage(own).free < MIN_FREE:
            log.info("%s: not fetched ahead, less than %d bytes are free", address, MIN_FREE)
            return
        part, lock = own / f"{key}.part", own / f"{key}.lock"
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # or another thread fetches the same
            try:
                part.mkdir()
                storage, name = place_of(address, replace(store, max_attempts=1))
                fetch(storage, name, part, selection, at_once=AT_ONCE, most_bytes=LARGEST)
                os.rename(part, own / f"{key}.ahead")
            finally:
                shutil.rmtree(part, ignore_errors=True)
                lock.unlink(missing_ok=True)
    except Exception as error:  # whatever it is, the object's own fit meets it, and says so
        log.info("%s: not fetched ahead: %s: %s", address, type(error).__name__, error)


def _forget_oldest(own: Path) -> None:
    """Remove offers that nobody took, the oldest first."""
    offers = sorted(own.glob("*.ahead"), key=_age)
    for offer in offers[: max(0, len(offers) - MOST + 1)]:
        shutil.rmtree(offer, ignore_errors=True)


def _age(offer: Path) -> float:
    try:
        return offer.stat().st_mtime
    except FileNotFoundError:  # taken meanwhile
        return 0.0
