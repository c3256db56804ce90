"""`BatchBuilder`: a batch that is written sample by sample, each straight to its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gaussianverse.atlas.reader.conversion import Conversion, write_images
from gaussianverse.atlas.reader.ring import Arena
from gaussianverse.atlas.reader.sample import Fetched

_IMAGES = ("atlas", "views")
"""Tensors that have their channels last in memory, as the files have."""


class Built(NamedTuple):
    """A batch (see `AtlasBatch`) and the memory that its tensors lie in."""

    batch: dict[str, Any]
    arena: Arena


class BatchBuilder:
    """A batch that is being written.

    Args:
        samples: number of samples.
        arena: memory for it.
        conversion: of the atlases.
        views_dtype: type of the views.
        columns: columns of the rows; None = all.
    """

    def __init__(
        self, samples: int, arena: Arena, conversion: Conversion, views_dtype: torch.dtype,
        columns: Sequence[str] | None,
    ) -> None:  # fmt: skip
        self._samples, self._arena, self._conversion, self._columns = samples, arena, conversion, columns
        self._views_dtype = views_dtype
        self._tensors: dict[str, Tensor] = {}
        self._lists: dict[str, list[Any]] = {"caption": [], "uid": [], "row": []}

    def add(self, fetched: Fetched) -> None:
        """Write the next sample."""
        number, views = len(self._lists["uid"]), fetched.views
        shape = (*fetched.array.shape[:2], len(self._conversion.channels))
        self._conversion.write(fetched.array, self._tensor("atlas", shape, self._conversion.dtype)[number])
        if views is not None:
            write_images(views.images, self._tensor("views", views.images.shape, self._views_dtype)[number])
            for name in ("viewmats", "Ks"):
                cameras = torch.from_numpy(getattr(views, name))
                self._tensor(name, cameras.shape, cameras.dtype)[number] = cameras
        for name, value in entries_of(fetched, self._columns).items():
            self._lists[name].append(value)

    def _tensor(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """The tensor of this name, of all samples."""
        if name not in self._tensors:
            self._tensors[name] = self._arena.empty((self._samples, *shape), dtype)
        return self._tensors[name]

    @property
    def full(self) -> bool:
        """Whether all samples were written."""
        return len(self._lists["uid"]) == self._samples

    def built(self) -> Built:
        """The batch, once it is full."""
        tensors = {name: t.movedim(-1, -3) if name in _IMAGES else t for name, t in self._tensors.items()}
        return Built({**tensors, **self._lists}, self._arena)


def entries_of(fetched: Fetched, columns: Sequence[str] | None) -> dict[str, Any]:
    """The entries of a sample that are no tensors: caption, uid and these columns of its row, or all."""
    row = fetched.row
    chosen = row if columns is None else {name: row[name] for name in columns}
    return {"caption": fetched.caption, "uid": row["uid"], "row": chosen}


def view_nbytes(size: int, dtype: torch.dtype) -> int:
    """Bytes of one view of a sample in a batch: RGBA in this type, pose and intrinsics in float32."""
    return 4 * size * size * dtype.itemsize + (16 + 9) * torch.float32.itemsize
