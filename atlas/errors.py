"""Errors of the atlas room; `reason` is the word that a pipeline records for a quarantined object."""


class AtlasError(Exception):
    """Something is wrong with Gaussians, an atlas, or a file of theirs."""

    reason = "bad_input"


class TransportFailed(AtlasError):
    """The assignment could not be solved or its certificate does not hold."""

    reason = "transport_failed"


class RoughAtlas(AtlasError):
    """An atlas did not pass a gate: its neighbours are not neighbours in space."""

    reason = "rough_atlas"


class DatasetError(AtlasError):
    """A published dataset is not what its index says, or is asked for what it does not have."""
