"""`S3Store`: a prefix of a bucket, read through boto3. What an answer brought before it broke is kept."""

from __future__ import annotations

import os
import random
import time
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from urllib3.exceptions import HTTPError

from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.store.local import S3Options, fresh, wrong_size

# the same answer however often one asks; everything else may pass (5xx, SlowDown, time-outs, cut connections)
_FINAL = {
    "400", "401", "403", "404", "AccessDenied", "AllAccessDisabled", "AuthorizationHeaderMalformed", "ExpiredToken",
    "InvalidAccessKeyId", "InvalidBucketName", "NoSuchBucket", "NoSuchKey", "NotFound", "PermanentRedirect",
    "PreconditionFailed", "412", "SignatureDoesNotMatch",
}  # fmt: skip
_BEYOND = {"416", "InvalidRange"}
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.2, 20.0
# what of an answer is lost when it breaks: urllib3 hands out whole pieces or none
_CHUNK = 1 << 17


class S3Store:
    """A prefix of a bucket, through boto3. What was received of a broken answer is kept, and the rest asked for.

    May be pickled and forked: every process makes a client of its own.
    """

    def __init__(self, url: str, options: S3Options) -> None:
        self.bucket, _, prefix = url.removeprefix("s3://").partition("/")
        if not self.bucket:
            raise DatasetError(f"{url}: no bucket; expected s3://bucket/prefix")
        self.prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self.url = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        self._options = options
        self._clients: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_clients": {}}

    def get(self, key: str) -> bytes:
        """See `Store`."""
        return bytes(self._receive(key, None, None))

    def read(self, key: str, offset: int, nbytes: int, total: int) -> memoryview:
        """See `Store`."""
        return self._receive(key, (offset, nbytes), total)

    def _receive(self, key: str, span: tuple[int, int] | None, total: int | None) -> memoryview:
        """The bytes of a span, or of the whole; each try asks for what is still missing, of the same version."""
        data, done, etag, tries = fresh(span[1] if span else 0), 0, "", 0
        first = span[0] if span else 0
        while True:
            request = {"Bucket": self.bucket, "Key": self.prefix + key}
            if span:
                request["Range"] = f"bytes={first + done}-{first + span[1] - 1}"
            elif done:
                request["Range"] = f"bytes={done}-"
            if etag:
                request["IfMatch"] = etag
            before = done
            try:
                answer = self._client().get_object(**request)
                etag = answer["ETag"]
                whole = self._total(answer, key, "Range" in request)
                if total is not None and whole != total:
                    raise wrong_size(f"{self.url}/{key}", whole, total)
                if not span and not done:
                    data = fresh(whole)
                while done < len(data) and (count := answer["Body"].readinto(data[done : done + _CHUNK])):
                    done += count
                if done == len(data):
                    return data
                fault: Exception | None = None
            except NoCredentialsError as no:
                raise DatasetError(
                    f"{self.url}/{key}: no credentials; set them up as for the AWS command line, or pass "
                    "S3Options(anonymous=True) for a public bucket"
                ) from no
            except ClientError as no:
                self._refused(no, key, total)
                fault = no
            except (BotoCoreError, OSError, HTTPError) as no:
                fault = no
            # a link that is cut again and again, but brings something each time, gets there
            tries = 1 if done > before else tries + 1
            if tries >= self._options.max_attempts:
                raise DatasetError(
                    f"{self.url}/{key}: {done} of {len(data)} bytes after {tries} tries without progress "
                    f"({type(fault).__name__ if fault else 'the answer ended early'})"
                ) from fault
            time.sleep(min(_MAX_PAUSE_S, _FIRST_PAUSE_S * 2 ** (tries - 1)) * random.uniform(0.5, 1.0))

    def _refused(self, fault: Any, key: str, total: int | None) -> None:
        """Raise for an answer that will not change."""
        code = str(fault.response.get("Error", {}).get("Code", ""))
        where = f"{self.url}/{key}"
        if code in _BEYOND and total is not None:
            head = self._client().head_object(Bucket=self.bucket, Key=self.prefix + key)
            raise wrong_size(where, int(head["ContentLength"]), total) from fault
        if code in _FINAL | _BEYOND:
            raise DatasetError(f"{where}: the store says {code}; check address, region and rights") from fault

    def _total(self, answer: dict[str, Any], key: str, part: bool) -> int:
        """Length of the whole object that an answer is part of."""
        if not part:
            return int(answer["ContentLength"])
        if "ContentRange" not in answer:
            raise DatasetError(f"{self.url}/{key}: the store does not do range reads")
        return int(answer["ContentRange"].rpartition("/")[2])

    def _client(self) -> Any:
        client = self._clients.get(os.getpid())
        if client is None:
            client = self._clients[os.getpid()] = _new_client(self._options)
        return client


def _new_client(options: S3Options) -> Any:
    config = Config(
        retries={
            "mode": "standard",
            "total_max_attempts": 1,
        },  # S3Store tries again itself, from where it was
        connect_timeout=options.connect_timeout_s,
        read_timeout=options.read_timeout_s,
        max_pool_connections=options.connections,
        response_checksum_validation="when_required",
        **({"signature_version": UNSIGNED} if options.anonymous else {}),
    )
    return boto3.session.Session().client(
        "s3",
        endpoint_url=options.endpoint_url or None,
        region_name=options.region or None,
        config=config,
    )
