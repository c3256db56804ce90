"""`WeightedSelection`: samples that are drawn in proportion to a column of metadata.parquet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader import order
from gaussianverse.atlas.reader.catalogue import Catalogue
from gaussianverse.atlas.reader.order import Draws
from gaussianverse.atlas.reader.selection import Selection
from gaussianverse.atlas.reader.words import Indices, Stream, mixed

Weights = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class WeightedSelection(Selection):
    """The selected samples of one dataset, drawn with replacement, as many an epoch as are selected or asked for.

    The draws depend on (seed, epoch); the epoch reads them in the order in which it would read any samples. Where a
    sample was drawn several times, its readings are shuffled separately, and may come close to each other.

    Attributes:
        column: name of the column of weights.
        weights: weight of each sample of the catalogue; those of selected samples are finite and at least 0.

    Raises:
        DatasetError: the selected samples have no weight above 0, or weights whose sum is no number.
    """

    column: str
    weights: Weights

    def __post_init__(self) -> None:
        with np.errstate(over="ignore"):
            total = self.weights[self.places].sum()
        if not 0 < total < np.inf:
            raise DatasetError(
                f"weights={self.column!r}: those of {len(self.places)} selected samples add up to {total}; they must "
                "add up to a number above 0"
            )

    def epoch(self, epoch: int) -> Draws:
        """See `Samples`."""
        places = np.sort(self._drawn(epoch))
        numbers = np.arange(len(places))
        times = numbers - np.maximum.accumulate(np.where(np.append(True, np.diff(places) > 0), numbers, 0))
        # first all samples that were drawn, then those drawn twice, and so on
        layered = np.argsort(times, kind="stable")
        places, times = places[layered], times[layered]
        # far enough apart that no run has a sample twice
        counted = places + times * self.neighbours * (len(self.weights) + 1)
        again = (mixed(self.seed, epoch, Stream.AGAIN, times) >> np.uint64(1)).astype(np.int64)
        draws = np.stack([places, np.where(times == 0, epoch, again)], axis=1)
        shards = self.shards[np.searchsorted(self.places, places)]
        return draws[order.epoch_order(shards, self.seed, epoch, self.window, self.neighbours, counted)]

    def identity(self) -> dict[str, Any]:
        """See `Samples`."""
        return {**super().identity(), "weights": self.column}

    def _drawn(self, epoch: int) -> Indices:
        """Places of an epoch's samples, as they were drawn."""
        sums = np.cumsum(self.weights[self.places])
        words = mixed(self.seed, epoch, Stream.WEIGHTED, np.arange(len(self)))
        drawn = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53 * sums[-1]
        # a product may be rounded up to the sum of all, which no sample has
        drawn = np.minimum(drawn, np.nextafter(sums[-1], 0))
        return np.asarray(self.places[np.searchsorted(sums, drawn, side="right")])


def weighted(samples: Selection, catalogue: Catalogue, column: str) -> WeightedSelection:
    """These samples, drawn by the weights in a column.

    Raises:
        DatasetError: no such column, one of something else than numbers, or a weight that is none.
    """
    catalogue.check_columns([column])
    values = catalogue.column(column)
    if not isinstance(values, np.ndarray):
        raise DatasetError(f"weights={column!r} is a column of {values.type}; weights are numbers")
    weights = values.astype(np.float64)
    chosen = weights[samples.places]
    wrong = np.flatnonzero(~((chosen >= 0) & np.isfinite(chosen)))
    if len(wrong):
        (uid,) = catalogue.uids([samples.places[wrong[0]]])
        raise DatasetError(
            f"weights={column!r}: {len(wrong)} of {len(chosen)} samples have no finite weight of at least 0, the "
            f"first is {uid} with {chosen[wrong[0]]}; leave them out by filters, such as ({column!r}, '>=', 0)"
        )
    return WeightedSelection(**vars(samples), column=column, weights=weights)
