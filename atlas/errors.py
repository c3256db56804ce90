"""Errors of atlases and published datasets; `reason` is what a pipeline records for a quarantined object."""


class AtlasError(Exception):
    """Gaussians, an atlas, or a file of either is invalid."""

    reason = "bad_input"


class TransportFailed(AtlasError):
    """The assignment cannot be solved, or its certificate does not hold."""

    reason = "transport_failed"


class RoughAtlas(AtlasError):
    """Neighbouring cells of an atlas are not neighbours in space."""

    reason = "rough_atlas"


class TransformError(AtlasError):
    """The user's transform of a sample failed; the error is its cause."""


class DatasetError(AtlasError):
    """A published dataset differs from its index, or does not have what was requested."""
