"""Shares of fits that are done: workers write them into the key-value store of Ray's head, the driver reads them.

They are for people who look on, and nothing depends on them: where the head does not answer, they are missing.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable
from importlib import import_module
from typing import Any

MOST = 16
"""Fits whose shares are read; with more of them, objects end often enough."""
_EVERY_S = 0.5
"""Seconds between two words of one worker, if there are no more than `MOST`; with more, they speak less often."""
_PAUSE_S = 60.0
"""Seconds for which a worker is silent after the head did not answer."""
_NAMESPACE = "gaussianverse"


def _head() -> Any:
    """Ray's module of the store."""
    return import_module("ray.experimental.internal_kv")


def _lost() -> type[Exception]:
    """Class of the errors of a head that does not answer."""
    error: type[Exception] = import_module("ray.exceptions").RayError
    return error


class Teller:
    """Writes the share of a fit that is done; the driver makes it, and it travels with the task.

    It writes in a thread, so that a fit does not wait for a head that hangs.

    Args:
        key: where to write.
        every_s: least number of seconds between two writes.
    """

    def __init__(self, key: str, every_s: float) -> None:
        self._key, self._every_s, self._due = key, every_s, 0.0
        self._writing: threading.Thread | None = None

    def __call__(self, share: float) -> None:
        """Write the share, 0 to 1, unless the last one was written a moment ago or is being written."""
        now = time.monotonic()
        if now < self._due or (self._writing is not None and self._writing.is_alive()):
            return
        self._due = now + self._every_s
        self._writing = threading.Thread(target=self._write, args=(share, now), daemon=True)
        self._writing.start()

    def _write(self, share: float, now: float) -> None:
        try:
            if _head()._internal_kv_initialized():
                _head()._internal_kv_put(self._key, f"{share:.4f}", namespace=_NAMESPACE)
        except _lost():
            self._due = now + _PAUSE_S


class Shares:
    """The shares that the workers of one driver tell, under keys that no other driver has."""

    def __init__(self) -> None:
        self._prefix = f"{uuid.uuid4().hex}/"

    def teller(self, uid: str, slots: int) -> Teller:
        """For the fit of an object, one of `slots` at once; the head hears a few a second, whatever their number."""
        return Teller(self._prefix + uid, _EVERY_S * max(1.0, slots / MOST))

    def read(self, uids: Iterable[str]) -> dict[str, float]:
        """Shares of the fits of these objects, of those that told one."""
        try:
            found = {uid: _head()._internal_kv_get(self._prefix + uid, namespace=_NAMESPACE) for uid in uids}
        except _lost():
            return {}
        return {uid: float(share) for uid, share in found.items() if share}

    def forget(self) -> None:
        """Delete all shares of this driver."""
        try:
            _head()._internal_kv_del(self._prefix, del_by_prefix=True, namespace=_NAMESPACE)
        except _lost():
            return  # with the head they are gone
