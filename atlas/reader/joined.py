"""`JoinedSource`: samples of a dataset with the members of families beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, tee
from typing import Any, cast

import numpy as np

from gaussianverse.atlas.reader.building import Built
from gaussianverse.atlas.reader.catalogue import Catalogue
from gaussianverse.atlas.reader.family import ERROR, Family, collated
from gaussianverse.atlas.reader.order import Draws
from gaussianverse.atlas.reader.read_ahead import read_ahead
from gaussianverse.atlas.reader.ring import Ring
from gaussianverse.atlas.reader.source import AtlasSample, SampleSource


@dataclass(frozen=True)
class JoinedSource:
    """Reads samples, and for each the members of all families.

    Attributes:
        source: reads the samples.
        catalogue: of their dataset.
        families: the families, of different names.
        readahead: samples whose members are fetched ahead, by a thread each and at most 16.
    """

    source: SampleSource
    catalogue: Catalogue
    families: tuple[Family, ...]
    readahead: int

    def read(self, draws: Draws) -> Iterator[AtlasSample]:
        """See `SampleSource`."""
        members = read_ahead(self._members, draws[:, 0].tolist(), self.readahead)
        for item, found in zip(self.source.read(draws), members, strict=True):
            yield cast(AtlasSample, {**item, **found})

    def batches(self, groups: Iterable[Draws], ring: Ring) -> Iterator[Built]:
        """See `SampleSource`; the members of families have memory of their own."""
        groups, ahead = tee(groups)
        places = chain.from_iterable(draws[:, 0].tolist() for draws in ahead)
        members = read_ahead(self._members, places, self.readahead)
        for batch, arena in self.source.batches(groups, ring):
            found = list(islice(members, len(batch["uid"])))
            families = {f.name: collated(f.name, [one[f.name] for one in found], batch["uid"]) for f in self.families}
            yield Built({**batch, **families}, arena)

    def batch_nbytes(self, batch_size: int) -> int:
        """See `SampleSource`."""
        return self.source.batch_nbytes(batch_size)

    def get(self, uid: str) -> AtlasSample:
        """See `SampleSource`; each family is another range read, and raises DatasetError if it lacks the object."""
        place = self.catalogue.find(uid)
        for family in self.families:
            family.complete(np.array([place]), self.catalogue, ERROR)
        return cast(AtlasSample, {**self.source.get(uid), **self._members(place)})

    def _members(self, place: int) -> dict[str, Any]:
        (uid,) = self.catalogue.uids([place])
        return {family.name: family.read(place, uid) for family in self.families}
