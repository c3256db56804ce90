"""`Selection`: the samples of a dataset that are read in each epoch, and their order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gaussianverse.atlas.reader.order import Draws, epoch_order
from gaussianverse.atlas.reader.words import Indices


class Samples(Protocol):
    """The samples that are read in each epoch, and their order."""

    def __len__(self) -> int:
        """Number of samples in an epoch, of all ranks together."""

    def epoch(self, epoch: int) -> Draws:
        """The samples of an epoch, of all ranks together, in its order."""

    def identity(self) -> dict[str, Any]:
        """Properties that two of them share if and only if they have the same epochs."""


@dataclass(frozen=True)
class Selection:
    """The selected samples of one dataset, round after round; a round has each of them once.

    Attributes:
        dataset: digest of the dataset.
        places: their places in its catalogue, int64 [N], ascending.
        shards: their shards, [N].
        seed, window, neighbours: see `epoch_order`.
        epoch_samples: number of samples of an epoch, which begins where the one before ended; None = N, a round.
    """

    dataset: str
    places: Indices
    shards: Indices
    seed: int
    window: int
    neighbours: int
    epoch_samples: int | None = None

    def __len__(self) -> int:
        return len(self.places) if self.epoch_samples is None else self.epoch_samples

    def epoch(self, epoch: int) -> Draws:
        """See `Samples`; the turn of a sample is its round."""
        first, skipped = divmod(epoch * len(self), len(self.places))
        rounds = range(first, first - (-(skipped + len(self)) // len(self.places)))
        return np.concatenate([self._round(number) for number in rounds])[skipped : skipped + len(self)]

    def _round(self, number: int) -> Draws:
        whole = epoch_order(self.shards, self.seed, number, self.window, self.neighbours, self.places)
        places = self.places[whole]
        return np.stack([places, np.full_like(places, number)], axis=1)

    def identity(self) -> dict[str, Any]:
        """See `Samples`."""
        selection = hashlib.sha256(self.places.astype("<i8").tobytes()).hexdigest()[:16]
        mixing = {"seed": self.seed, "window": self.window, "neighbours": self.neighbours}
        return {
            "dataset": self.dataset,
            "selection": selection,
            **mixing,
            "epoch_samples": self.epoch_samples,
            "weights": None,
        }
