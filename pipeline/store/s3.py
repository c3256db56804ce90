"""`S3Storage`: a prefix of a bucket, on AWS or whatever speaks S3 and honours conditional puts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from gaussianverse.pipeline.errors import NotFound, PipelineError, StorageError, StoreRefused
from gaussianverse.pipeline.store.storage import Entry, Head, Storage, StoreConfig, sha256_of

_SHA256 = "sha256"
# botocore lets the last two through where an error's own body breaks off on the way
_FAULTS = (ClientError, BotoCoreError, OSError, HTTPError, ResponseParserError)
_MISSING = {"404", "NoSuchKey", "NotFound"}
_TAKEN = {"412", "PreconditionFailed"}
# the same answer however often one asks; everything else may pass (409, 5xx, SlowDown, time-outs)
_FINAL = {
    "401", "403", "AccessDenied", "AllAccessDisabled", "AuthorizationHeaderMalformed", "InvalidAccessKeyId",
    "InvalidBucketName", "NoSuchBucket", "PermanentRedirect", "SignatureDoesNotMatch",
}  # fmt: skip
_MOST_DELETES = 1000
_UNSUPPORTED = {"501", "NotImplemented"}


@lru_cache(maxsize=8)
def _client(config: StoreConfig) -> Any:
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=config.endpoint_url or None,
        region_name=config.region or None,
        config=Config(
            retries={"mode": "adaptive", "total_max_attempts": config.max_attempts},
            connect_timeout=config.connect_timeout_s,
            read_timeout=config.read_timeout_s,
            # S3-compatible stores reject the trailing checksums that newer clients send by default
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    client.meta.events.register("before-call.s3.DeleteObjects", _add_md5)
    return client


def _add_md5(params: dict[str, Any], **_: object) -> None:
    """Deleting many keys needs a checksum. Newer clients send a CRC32, which many stores don't take for one."""
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()


class S3Storage(Storage):
    """Objects of s3://bucket/prefix. The sha256 of each is kept in its metadata."""

    def __init__(self, url: str, config: StoreConfig) -> None:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        if not bucket:
            raise StoreRefused(f"{url}: no bucket; expected s3://bucket/prefix")
        self.bucket = bucket
        self.prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self.url = f"s3://{bucket}/{self.prefix}".rstrip("/")
        self._client = _client(config)

    def get(self, key: str) -> bytes:
        """See `Storage`. The bytes are checked against the sha256 in the metadata."""
        try:
            answer = self._client.get_object(Bucket=self.bucket, Key=self.prefix + key)
            data: bytes = answer["Body"].read()
        except _FAULTS as fault:
            raise self._fault(fault, key) from fault
        expected = answer["Metadata"].get(_SHA256)
        if expected and sha256_of(data) != expected:
            raise StorageError(f"{self.url}/{key}: the bytes received are not those that were written")
        return data

    def get_range(self, key: str, offset: int, nbytes: int) -> bytes:
        """See `Storage`."""
        if nbytes == 0:
            return b""
        try:
            answer = self._client.get_object(
                Bucket=self.bucket, Key=self.prefix + key, Range=f"bytes={offset}-{offset + nbytes - 1}"
            )
            data: bytes = answer["Body"].read()
        except _FAULTS as fault:
            raise self._fault(fault, key) from fault
        if len(data) != nbytes:
            raise StorageError(f"{self.url}/{key}: {len(data)} bytes at {offset}, expected {nbytes}")
        return data

    def put_if_absent(self, key: str, data: bytes | bytearray) -> bool:
        """See `Storage`. One conditional put: stores ignore the condition of a multipart's completion."""
        try:
            self._client.put_object(
                Bucket=self.bucket,
                Key=self.prefix + key,
                Body=data,
                IfNoneMatch="*",
                Metadata={_SHA256: sha256_of(data)},
            )
        except _FAULTS as fault:
            if _code(fault) in _TAKEN:
                return False
            if _code(fault) in _UNSUPPORTED:
                raise StoreRefused(
                    f"{self.url}: this store has no conditional puts (501), without which two workers could "
                    "overwrite each other; use one that has (AWS S3, Ceph radosgw, MinIO, R2)"
                ) from fault
            raise self._fault(fault, key) from fault
        return True

    def head(self, key: str) -> Head | None:
        """See `Storage`. An object that something else wrote, without a sha256, is read to compute it."""
        try:
            answer = self._client.head_object(Bucket=self.bucket, Key=self.prefix + key)
            sha256 = answer["Metadata"].get(_SHA256) or self._computed_sha256(key)
        except _FAULTS as fault:
            if _code(fault) in _MISSING:
                return None
            raise self._fault(fault, key) from fault
        return Head(int(answer["ContentLength"]), sha256)

    def size(self, key: str) -> int:
        """See `Storage`."""
        try:
            return int(self._client.head_object(Bucket=self.bucket, Key=self.prefix + key)["ContentLength"])
        except _FAULTS as fault:
            raise self._fault(fault, key) from fault

    def list(self, prefix: str) -> Iterator[Entry]:
        """See `Storage`."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix + prefix
        )
        try:
            for page in pages:
                for item in page.get("Contents", ()):
                    yield Entry(item["Key"].removeprefix(self.prefix), int(item["Size"]))
        except _FAULTS as fault:
            raise self._fault(fault, prefix) from fault

    def delete(self, key: str) -> None:
        """See `Storage`."""
        try:
            self._client.delete_object(Bucket=self.bucket, Key=self.prefix + key)
        except _FAULTS as fault:
            raise self._fault(fault, key) from fault

    def delete_many(self, keys: Sequence[str]) -> None:
        """See `Storage`: up to a thousand a request."""
        for start in range(0, len(keys), _MOST_DELETES):
            chosen = [{"Key": self.prefix + key} for key in keys[start : start + _MOST_DELETES]]
            try:
                answer = self._client.delete_objects(
                    Bucket=self.bucket, Delete={"Objects": chosen, "Quiet": True}
                )
            except _FAULTS as fault:
                raise self._fault(fault, keys[start]) from fault
            if faults := answer.get("Errors"):
                raise StorageError(
                    f"{self.url}: {len(faults)} keys were not deleted: {faults[0].get('Code')}"
                )

    def _computed_sha256(self, key: str) -> str:
        body = self._client.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"]
        digest = hashlib.sha256()
        for block in body.iter_chunks(1 << 20):
            digest.update(block)
        return digest.hexdigest()

    def _fault(self, fault: Exception, key: str) -> PipelineError:
        where, code = f"{self.url}/{key}", _code(fault)
        if code in _MISSING:
            return NotFound(f"{where}: no such object")
        if isinstance(fault, NoCredentialsError | PartialCredentialsError):
            return StoreRefused(f"{where}: no credentials; set them up as for the AWS command line")
        if code in _FINAL:
            return StoreRefused(f"{where}: the store refuses ({code}); check bucket, region and permissions")
        # the fault's own text may quote headers, so only its kind is passed on
        return StorageError(f"{where}: {code or type(fault).__name__}")


def _code(fault: Exception) -> str:
    if isinstance(fault, ClientError):
        return str(fault.response.get("Error", {}).get("Code", ""))
    return ""
