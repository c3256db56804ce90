"""`Mixture`: samples of several datasets in given shares, shuffled, sharded over ranks, resumable to the sample."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader import order
from gaussianverse.atlas.reader.dataset import AtlasDataset
from gaussianverse.atlas.reader.order import Draws
from gaussianverse.atlas.reader.progress import Progress
from gaussianverse.atlas.reader.selection import Samples
from gaussianverse.atlas.reader.source import AtlasSample
from gaussianverse.atlas.reader.stream import SampleStream, Source
from gaussianverse.atlas.reader.words import Stream, mixed


class Mixture(SampleStream):
    """The samples of several datasets, drawn in fixed shares.

    Each epoch has `epoch_samples` samples, of which each part gives its share, give or take a sample; over all epochs
    together, too. Which part is next is shuffled by (seed, epoch). A part gives its samples in the order of its own
    epochs, one after the other, so that it gives each of them once before it gives any again, however many epochs of
    the mixture that takes; a part with `weights` gives its draws, which are with replacement. A mixture is iterated,
    loaded and resumed as an `AtlasDataset` is. The parts' own passes do not matter to it. With
    `standardise=True` each part is standardised by its own statistics.

    Args:
        parts: pairs of a dataset and its weight; weights are relative to their sum.
        seed: seed of the shuffle of the parts; each dataset has its own.
        epoch_samples: samples of an epoch, of all ranks together; None = as many as all parts have.
        uneven: how to treat samples that do not divide by the number of ranks; see `AtlasDataset`.
        batch_size: batch size of a plain DataLoader, whose workers then give the order of a single process.

    Raises:
        DatasetError: no parts, a weight that is not a number above 0 or too small for one sample an epoch, a dataset
            twice, samples that do not fit into one batch, different ranks, too few samples for the ranks.
    """

    def __init__(
        self, parts: Sequence[tuple[AtlasDataset, float]], *, seed: int = 0, epoch_samples: int | None = None,
        uneven: str = order.DROP, batch_size: int = 1,
    ) -> None:  # fmt: skip
        self.parts, weights = _checked(parts)
        if epoch_samples is None:
            epoch_samples = sum(len(part.samples) for part in self.parts)
        if seed < 0 or epoch_samples < 1 or batch_size < 1:
            raise DatasetError(
                f"epoch_samples {epoch_samples}, batch_size {batch_size}: at least 1; seed {seed}: at least 0"
            )
        for number, weight in enumerate(weights):
            if weight * epoch_samples < sum(weights):
                raise DatasetError(
                    f"part {number} has less than one of {epoch_samples} samples: raise epoch_samples or its weight"
                )
        if uneven not in order.UNEVEN:
            raise DatasetError(f"uneven {uneven!r} is none of {', '.join(order.UNEVEN)}")
        first = self.parts[0]
        self.rank, self.world, self._placed, self.batch_size = first.rank, first.world, first._placed, batch_size
        firsts = tuple(accumulate((len(part.catalogue) for part in self.parts), initial=0))
        self.source = MixedSource(tuple(part.source for part in self.parts), firsts)
        self.samples = MixedSamples(
            tuple(part.samples for part in self.parts), tuple(weights), firsts, seed, epoch_samples
        )
        self.progress = Progress(self.samples, uneven, self.rank, self.world)
        if len(self) == 0:
            raise DatasetError(
                f"only {epoch_samples} samples for {self.world} ranks: pass uneven='repeat' or more epoch_samples"
            )


@dataclass(frozen=True)
class MixedSamples:
    """The samples of each epoch of a mixture, as a pure function of the epoch.

    Attributes:
        parts: the samples of each part.
        weights: of the parts.
        firsts: number of samples in the catalogues before each part's; place p of part i is firsts[i] + p.
        seed: of the shuffle.
        epoch_samples: number of samples of an epoch.
    """

    parts: tuple[Samples, ...]
    weights: tuple[Fraction, ...]
    firsts: tuple[int, ...]
    seed: int
    epoch_samples: int

    def __len__(self) -> int:
        return self.epoch_samples

    def epoch(self, epoch: int) -> Draws:
        """See `Samples`."""
        begins, ends = self._drawn(epoch), self._drawn(epoch + 1)
        which = np.repeat(np.arange(len(self.parts)), np.subtract(ends, begins))
        which = which[np.argsort(mixed(self.seed, epoch, Stream.PARTS, np.arange(len(which))), kind="stable")]
        found = np.empty((len(which), 2), np.int64)
        for i, part in enumerate(self.parts):
            found[which == i] = _stretch(part, begins[i], ends[i]) + np.array([self.firsts[i], 0])
        return found

    def identity(self) -> dict[str, Any]:
        """See `Samples`."""
        names = {"seed": self.seed, "epoch_samples": self.epoch_samples}
        return {"parts": [p.identity() for p in self.parts], "weights": [str(w) for w in self.weights], **names}

    def _drawn(self, epoch: int) -> list[int]:
        """Number of samples that each part gave before an epoch.

        Sums of shares are rounded down, so that all parts together gave what they must. No number falls from one
        epoch to the next as long as each share is a sample or more.
        """
        bounds = accumulate(self.weights, initial=Fraction(0))
        whole = [math.floor(bound * epoch * self.epoch_samples / sum(self.weights)) for bound in bounds]
        return [after - before for before, after in pairwise(whole)]


@dataclass(frozen=True)
class MixedSource:
    """Reads the samples of a mixture: each part reads its own, ahead as it does alone.

    Attributes:
        sources: of the parts.
        firsts: see `MixedSamples`.
    """

    sources: tuple[Source, ...]
    firsts: tuple[int, ...]

    def read(self, draws: Draws) -> Iterator[AtlasSample]:
        """See `SampleSource`."""
        which: npt.NDArray[np.int64] = np.searchsorted(self.firsts, draws[:, 0], side="right") - 1
        samples = [
            source.read(draws[which == i] - np.array([self.firsts[i], 0])) for i, source in enumerate(self.sources)
        ]
        for part in which.tolist():
            yield next(samples[part])


def _stretch(samples: Samples, begin: int, end: int) -> Draws:
    """The samples with the numbers begin .. end - 1 of all epochs, one behind the other."""
    size = len(samples)
    first = begin // size
    epochs = [samples.epoch(epoch) for epoch in range(first, -(-end // size))]
    return np.concatenate([np.empty((0, 2), np.int64), *epochs])[begin - first * size : end - first * size]


def _checked(parts: Sequence[tuple[AtlasDataset, float]]) -> tuple[list[AtlasDataset], list[Fraction]]:
    """The datasets and their weights. Raises DatasetError, see `Mixture`."""
    try:
        pairs = [(dataset, weight) for dataset, weight in parts]
    except (TypeError, ValueError) as error:
        raise DatasetError("a mixture's parts: expected pairs (dataset, weight)") from error
    if not pairs:
        raise DatasetError("a mixture of no parts: pass pairs (dataset, weight)")
    for number, (dataset, weight) in enumerate(pairs):
        if not isinstance(dataset, AtlasDataset):
            raise DatasetError(f"part {number} is {type(dataset).__name__}, expected an AtlasDataset")
        if not isinstance(weight, int | float) or not 0 < weight < math.inf:
            raise DatasetError(f"part {number} has weight {weight!r}, expected a number above 0")
    datasets, first = [dataset for dataset, _ in pairs], pairs[0][0]
    for number, dataset in enumerate(datasets[1:], 1):
        if any(dataset is before for before in datasets[:number]):
            raise DatasetError(
                f"part {number} is the same dataset as one before: add their weights, or open it twice"
            )
        if differences := [
            f"{name} {value!r} and {first.form[name]!r}" for name, value in dataset.form.items()
            if value != first.form[name]
        ]:  # fmt: skip
            raise DatasetError(f"parts {number} and 0 do not fit into one batch: {'; '.join(differences)}")
        if (dataset.rank, dataset.world) != (first.rank, first.world):
            raise DatasetError(
                f"part {number} is rank {dataset.rank} of {dataset.world}, part 0 rank {first.rank} of {first.world}"
            )
    return datasets, [Fraction(weight) for _, weight in pairs]
