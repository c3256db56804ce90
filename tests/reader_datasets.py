"""Small finished datasets, in a folder or in a bucket."""

from __future__ import annotations

from pathlib import Path

import boto3

from bench.datasets import array_of, publish_dataset

__all__ = ["array_of", "publish_dataset", "upload"]


def upload(root: Path, endpoint: str, bucket: str, prefix: str) -> None:
    """Upload all that a reader needs of a dataset, under a prefix of a bucket."""
    # a session of its own: the default one remembers the credentials of other tests
    client = boto3.session.Session().client("s3", endpoint_url=endpoint)
    for path in sorted(p for p in root.rglob("*") if p.is_file() and "_work" not in p.parts):
        client.put_object(Bucket=bucket, Key=f"{prefix}/{path.relative_to(root)}", Body=path.read_bytes())
