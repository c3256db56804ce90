"""`StoreOptions`: how an S3 store is reached."""

from __future__ import annotations

from dataclasses import dataclass

READ_ONLY = {
    **dict.fromkeys(("az", "abfs", "abfss"), "azure"), **dict.fromkeys(("gs", "gcs"), "gcs"), "hf": "hf",
}  # fmt: skip
"""Schemes of stores that are for reading only, and the extra of this package that each takes."""


@dataclass(frozen=True)
class StoreOptions:
    """Options by which an S3 store is reached. Credentials come from the usual chain and are never part of it."""

    endpoint_url: str = ""
    """Address of the service; "" = what the usual configuration says (environment, profile), else AWS."""
    region: str = ""
    """Region of the bucket; "" = what the usual configuration says."""
    anonymous: bool = False
    """Send requests without credentials, for public buckets."""
    max_attempts: int = 8
    """Tries in a row without success, or without a single new byte, before an operation fails; at least 1."""
    connect_timeout_s: float = 10.0
    """Seconds without a connection that make a try fail; above 0."""
    read_timeout_s: float = 30.0
    """Seconds without an answer that make a try fail; above 0."""
    connections: int = 32
    """Most requests of a process at a time; at least 1."""
