"""`AtlasMapDataset`: the selected samples of a dataset by number, for those who bring a sampler."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np
from torch.utils.data import Dataset

from gaussianverse.atlas.reader.source import AtlasSample
from gaussianverse.atlas.reader.stream import Source
from gaussianverse.atlas.reader.words import Indices


class AtlasMapDataset(Dataset[AtlasSample]):
    """A map-style dataset, from `AtlasDataset.map_style()`: all selected samples in the order of the shards.

    It knows no ranks, epochs or state; these are its sampler's.
    """

    def __init__(self, source: Source, places: Indices) -> None:
        self._source, self._places = source, places

    def __len__(self) -> int:
        """Number of selected samples."""
        return len(self._places)

    def __getitem__(self, index: int) -> AtlasSample:
        """The sample with this number, from -len to len - 1.

        Raises:
            IndexError: there is none.
            DatasetError: it is missing or damaged.
            StoreError: the store failed.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[AtlasSample]:
        """The samples with these numbers; a DataLoader asks so for a batch, which is read ahead as a whole."""
        places = self._places[np.array([operator.index(i) for i in indices], np.int64)]
        return list(self._source.read(np.stack([places, np.zeros_like(places)], axis=1)))
