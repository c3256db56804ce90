"""`TransformedSource`: samples as a function of the user's makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from gaussianverse.atlas.errors import TransformError
from gaussianverse.atlas.reader.order import Draws
from gaussianverse.atlas.reader.source import AtlasSample
from gaussianverse.atlas.reader.stream import ObjectSource

Transform = Callable[[AtlasSample], Any]
"""A function of a sample, which it may change, that returns the sample to yield."""


@dataclass(frozen=True)
class TransformedSource:
    """Reads samples and transforms each where it is read, in the worker.

    It writes no batches itself: a loader stacks what the transform returns.

    Attributes:
        source: reads the samples.
        transform: function of each.
    """

    source: ObjectSource
    transform: Transform

    def read(self, draws: Draws) -> Iterator[AtlasSample]:
        """See `SampleSource`. Raises TransformError, with the uid, if the transform fails."""
        return map(self._transformed, self.source.read(draws))

    def get(self, uid: str) -> AtlasSample:
        """See `SampleSource`. Raises TransformError if the transform fails."""
        return self._transformed(self.source.get(uid))

    def _transformed(self, item: AtlasSample) -> AtlasSample:
        uid = item["uid"]
        try:
            made = self.transform(item)
        except Exception as error:
            raise TransformError(f"{uid}: the transform failed: {type(error).__name__}: {error}") from error
        if made is None:
            raise TransformError(f"{uid}: the transform returned None; let it return the sample")
        return cast(AtlasSample, made)
