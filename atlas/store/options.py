"""`StoreOptions`: how an S3 store is reached."""

from __future__ import annotations

from dataclasses import dataclass

READ_ONLY = {
    **dict.fromkeys(("az", "abfs", "abfss"), "azure"), **dict.fromkeys(("gs", "gcs"), "gcs"), "hf": "hf",
}  # fmt: skip
"""Schemes of stores that are for reading only, and the extra of this package that each takes."""


@dataclass(frozen=True)
class StoreOptions:
    """Options by which an S3 store is reached. Credentials come from the usual chain and are never part of it.

    Attributes:
        endpoint_url: "" = what the usual configuration says (environment, profile), else AWS.
        region: "" = what the usual configuration says.
        anonymous: send requests without credentials, for public buckets.
        max_attempts: tries in a row without success, or without a single new byte, before an operation fails.
        connect_timeout_s, read_timeout_s: seconds without an answer that make a try fail.
        connections: most requests of a process at a time.
    """

    endpoint_url: str = ""
    region: str = ""
    anonymous: bool = False
    max_attempts: int = 8
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    connections: int = 32
