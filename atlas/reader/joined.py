"""`JoinedSource`: samples of a dataset with the members of families beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from gaussianverse.atlas.reader.catalogue import Catalogue
from gaussianverse.atlas.reader.family import ERROR, Family
from gaussianverse.atlas.reader.order import Draws
from gaussianverse.atlas.reader.read_ahead import read_ahead
from gaussianverse.atlas.reader.source import AtlasSample
from gaussianverse.atlas.reader.stream import ObjectSource


@dataclass(frozen=True)
class JoinedSource:
    """Reads samples, and for each the members of all families.

    Attributes:
        source: reads the samples.
        catalogue: of their dataset.
        families: the families, of different names.
        readahead: samples whose members are fetched ahead, by as many threads.
    """

    source: ObjectSource
    catalogue: Catalogue
    families: tuple[Family, ...]
    readahead: int

    def read(self, draws: Draws) -> Iterator[AtlasSample]:
        """See `SampleSource`."""
        members = read_ahead(self._members, draws[:, 0].tolist(), self.readahead)
        for item, found in zip(self.source.read(draws), members, strict=True):
            yield cast(AtlasSample, {**item, **found})

    def get(self, uid: str) -> AtlasSample:
        """See `SampleSource`; each family is another range read, and raises DatasetError if it lacks the object."""
        place = self.catalogue.find(uid)
        for family in self.families:
            family.complete(np.array([place]), self.catalogue, ERROR)
        return cast(AtlasSample, {**self.source.get(uid), **self._members(place)})

    def _members(self, place: int) -> dict[str, Any]:
        (uid,) = self.catalogue.uids([place])
        return {family.name: family.read(place, uid) for family in self.families}
