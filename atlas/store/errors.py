"""Errors of stores."""


class StoreError(Exception):
    """The store did not answer, or not as it should; trying again may help."""


class StoreRefused(StoreError):
    """The store refuses (permissions, no such bucket, no conditional writes); trying again won't help."""


class NotFound(Exception):
    """There is nothing under this key. No failure of the store: it answered."""


class Altered(NotFound):
    """The object under this key has another length than it must have, or was replaced while it was read."""
