"""Probes: what a store must prove before a run writes to it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress

from gaussianverse.atlas.store.errors import StoreError, StoreRefused
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.store.publish import Published, publish

PREFIX = "_probe-"
"""Prefix of the keys that probes are written under."""

_RIGHTS = (
    "A run lists, reads and writes below its output: on S3 that is s3:ListBucket on the bucket, s3:GetObject and "
    "s3:PutObject on the prefix"
)


def prove_conditional_puts(storage: Storage) -> None:
    """Write a probe twice; the second must be turned away, or two workers could overwrite each other.

    A store that forbids deleting may keep the probe: nothing else of a run needs that right.

    Raises:
        StoreRefused: the store overwrote the probe, or cannot be written to at all.
        StoreError: it does not answer.
    """
    key = f"{PREFIX}{uuid.uuid4().hex}"
    try:
        # by `publish`, for which a lost answer is no verdict
        first, second, third = (publish(storage, key, data) for data in (b"first", b"second", b"first"))
        if first is Published.ADOPTED or (second, third) != (Published.ADOPTED, Published.OURS):
            raise StoreRefused(
                f"{storage.url}: the store ignores conditions on puts (a second write of one key went "
                "through), so two workers could overwrite each other; use one that honours If-None-Match"
            )
    finally:
        with suppress(StoreError):
            storage.delete(key)


def prove_rights(storage: Storage) -> None:
    """List, write and read, as a run does; `prove_conditional_puts` shows the rest.

    Raises:
        StoreRefused: the store forbids one of them; the message says which.
        StoreError: it does not answer.
    """
    key = f"{PREFIX}{uuid.uuid4().hex}"
    steps: dict[str, Callable[[], object]] = {
        "list": lambda: next(iter(storage.list(PREFIX)), None),
        "write": lambda: storage.put_if_absent(key, b"probe"),
        "read": lambda: storage.get(key),
    }
    try:
        for right, step in steps.items():
            try:
                step()
            except StoreRefused as error:
                raise StoreRefused(f"no right to {right}: {error}. {_RIGHTS}") from error
    finally:
        with suppress(StoreError):
            storage.delete(key)
