"""`CachedStore`: a bounded folder of fetched samples, shared by all processes of a machine.

Once full, it stays as it is. Each epoch reads every sample once, so evicting the oldest would evict each sample
shortly before it is read again; kept, a cache of half the dataset serves half of every epoch.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate, groupby
from pathlib import Path

from gaussianverse.atlas.store.storage import Readable, fresh

_USED = "used"
_LOCK = "lock"
_TEMPORARY = ".tmp"


class CachedStore:
    """A store that keeps its range reads in a folder, up to a number of bytes.

    Args:
        store: store to read samples from that are not in the folder.
        folder: folder for this dataset alone; created if missing.
        max_bytes: maximum size of all samples in it, whichever process stored them.
    """

    def __init__(self, store: Readable, folder: str | Path, max_bytes: int) -> None:
        self.url = store.url
        self._store, self._folder, self._max_bytes = store, Path(folder), max_bytes
        self._folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> bytes:
        """See `Storage`; not kept."""
        return self._store.get(key)

    def read(self, key: str, offset: int, nbytes: int, total: int | None = None) -> memoryview:
        """See `Storage`."""
        return self.read_adjacent(key, offset, [nbytes], total)[0]

    def read_adjacent(
        self, key: str, offset: int, sizes: Sequence[int], total: int | None = None
    ) -> list[memoryview]:
        """Parts of these sizes that lie side by side from `offset`; each is kept by itself, and missing neighbours
        are fetched as one range."""
        starts = list(accumulate(sizes, initial=offset))
        paths = [self._path(key, start, nbytes) for start, nbytes in zip(starts, sizes, strict=False)]
        parts = [_kept(path, nbytes) for path, nbytes in zip(paths, sizes, strict=True)]
        for missing, group in groupby(range(len(sizes)), lambda i: parts[i] is None):
            if not missing:
                continue
            numbers = list(group)
            first, end = starts[numbers[0]], starts[numbers[-1] + 1]
            data = self._store.read(key, first, end - first, total)
            for i in numbers:
                parts[i] = part = data[starts[i] - first : starts[i + 1] - first]
                self._keep(paths[i], part)
        return [part for part in parts if part is not None]

    def _path(self, key: str, offset: int, nbytes: int) -> Path:
        return self._folder / f"{key.replace('/', '_')}-{offset}-{nbytes}"

    def _keep(self, path: Path, data: memoryview) -> None:
        """Write a file if there is room; a killed process leaves at most a temporary file."""
        with open(self._folder / _LOCK, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            used = self._used()
            if used + len(data) > self._max_bytes:
                return
            # counted first: after a crash the folder holds less than its count, never more
            (self._folder / _USED).write_text(str(used + len(data)))
            temporary = path.with_suffix(_TEMPORARY)
            temporary.write_bytes(data)
            os.replace(temporary, path)

    def _used(self) -> int:
        with suppress(FileNotFoundError, ValueError):
            return int((self._folder / _USED).read_text())
        with os.scandir(self._folder) as entries:
            return sum(e.stat().st_size for e in entries if e.name not in (_LOCK, _USED))


def _kept(path: Path, nbytes: int) -> memoryview | None:
    """The bytes of a file; None if there is none, or a full disk truncated it."""
    with suppress(FileNotFoundError), open(path, "rb", buffering=0) as file:
        kept = fresh(nbytes)
        if file.seek(0, 2) == nbytes and file.seek(0) == 0 and file.readinto(kept) == nbytes:
            return kept
    return None
