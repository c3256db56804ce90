"""Memory for the images of an object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BYTES = 40 << 20  # above 32 MB, the C library's largest threshold for memory that goes straight back to the system


class Chunks:
    """Copies of images in chunks of memory, each of which the system gets back once the images in it are gone.

    Memory of single images would stay with the process: hundreds of them are freed in pieces among what is in use.
    """

    def __init__(self) -> None:
        self._free = np.empty(0, np.uint8)

    def keep(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Copy an image."""
        if image.nbytes > len(self._free):
            self._free = np.empty(max(_BYTES, image.nbytes), np.uint8)
        kept, self._free = self._free[: image.nbytes].reshape(image.shape), self._free[image.nbytes :]
        kept[:] = image
        return kept
