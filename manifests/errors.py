"""Errors of manifests, rendering and layouts."""

from collections.abc import Iterable


class ManifestError(Exception):
    """A manifest, or a file that it is made from, has faults.

    Attributes:
        faults: one message each, with the place, the fault and the remedy.
    """

    def __init__(self, faults: str | Iterable[str]) -> None:
        self.faults: tuple[str, ...] = (faults,) if isinstance(faults, str) else tuple(faults)
        super().__init__("\n".join(self.faults))


class RenderError(Exception):
    """A mesh cannot be read, or OpenGL cannot draw it."""


class LayoutError(Exception):
    """Views cannot be written as another project's loader reads them."""
