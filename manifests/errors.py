"""Errors of the manifests room."""

from collections.abc import Iterable


class ManifestError(Exception):
    """A manifest, or what it is made from, is wrong.

    Attributes:
        faults: one line each, with the place, the fault and the mend.
    """

    def __init__(self, faults: str | Iterable[str]) -> None:
        self.faults: tuple[str, ...] = (faults,) if isinstance(faults, str) else tuple(faults)
        super().__init__("\n".join(self.faults))


class RenderError(Exception):
    """A mesh cannot be read or drawn, or there is nothing here that could draw it."""
