"""`S3Storage`: a prefix of a bucket, on AWS or whatever speaks S3; writing takes conditional puts."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from gaussianverse.atlas.store.direct import Direct
from gaussianverse.atlas.store.errors import Altered, StoreError, StoreRefused
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.retries import (
    BEYOND,
    DOUBTFUL,
    ERRORS,
    FINAL,
    MISSING,
    TAKEN,
    UNSUPPORTED,
    Tries,
    code_of,
)
from gaussianverse.atlas.store.storage import (
    Entry,
    Head,
    Storage,
    fresh,
    sha256_at,
    sha256_of,
    sha256_of_file,
    wrong_size,
)

T = TypeVar("T")
Headers = Mapping[str, str]

_SHA256 = "sha256"
_MOST_DELETES = 1000
RENEW_S = 30.0
"""The chain of credentials is asked anew no more often than this: a right that is missing for good looks the same."""
_renewals: dict[StoreOptions, float] = {}
_renewing = threading.Lock()
# how much of an answer may be lost when it breaks: clients hand out whole pieces or none
_PIECE = 1 << 17


class S3Storage(Storage):
    """Objects of s3://bucket/prefix. The sha256 of each is kept in its metadata.

    What was received of a broken answer is kept, and the rest asked for. Each process makes a client of its own.
    """

    def __init__(self, url: str, options: StoreOptions) -> None:
        self.bucket, _, prefix = url.removeprefix("s3://").partition("/")
        if not self.bucket:
            raise StoreRefused(f"{url}: no bucket; expected s3://bucket/prefix")
        self.prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self.url = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        self._options = options
        self._access = partial(access_of, options)

    def get(self, key: str) -> bytes:
        """See `Storage`. The bytes are checked against the sha256 in the metadata."""
        return bytes(self._checked(key, fresh))

    def get_into(self, key: str, room: Callable[[int], memoryview]) -> None:
        """See `Storage`, and `get`."""
        self._checked(key, room)

    def _checked(self, key: str, room: Callable[[int], memoryview]) -> memoryview:
        for _ in range(2):  # once more, since they may have been damaged on their way
            data, headers = self._receive(key, room=room)
            expected = headers.get(f"x-amz-meta-{_SHA256}")
            if not expected or sha256_of(data) == expected:
                return data
        raise Altered(f"{self.url}/{key}: its bytes are not those of the sha256 in its metadata")

    def read(self, key: str, offset: int, nbytes: int, total: int | None = None) -> memoryview:
        """See `Storage`."""
        if nbytes == 0:
            return fresh(0)
        return self._receive(key, (offset, nbytes), total)[0]

    def put_if_absent(self, key: str, data: bytes | bytearray) -> bool:
        """See `Storage`. One conditional put: stores ignore the condition of a multipart's completion."""
        return self._put(key, lambda: nullcontext(data), sha256_of(data))

    def put_file(self, key: str, path: Path) -> bool:
        """See `Storage`. It is one put as well, of at most 5 GiB on most stores."""
        return self._put(key, lambda: path.open("rb"), sha256_of_file(path))

    def _put(self, key: str, opened: Callable[[], AbstractContextManager[Any]], sha256: str) -> bool:
        def put(client: Any) -> bool:
            try:
                with opened() as body:
                    client.put_object(**self._at(key), Body=body, IfNoneMatch="*", Metadata={_SHA256: sha256})
            except ERRORS as error:
                if code_of(error) in TAKEN:
                    return False
                if code_of(error) in UNSUPPORTED:
                    raise StoreRefused(
                        f"{self.url}: this store has no conditional puts (501), without which two workers could "
                        "overwrite each other; use one that has (AWS S3, Ceph radosgw, MinIO, R2)"
                    ) from error
                raise
            return True

        return self._asked(key, put)

    def head(self, key: str) -> Head | None:
        """See `Storage`. An object that something else wrote, without a sha256, is read to compute it."""

        def head(client: Any) -> Any:
            try:
                return client.head_object(**self._at(key))
            except ERRORS as error:
                if code_of(error) in MISSING:
                    return None
                raise

        answer = self._asked(key, head)
        if answer is None:
            return None
        nbytes = int(answer["ContentLength"])
        return Head(nbytes, answer["Metadata"].get(_SHA256) or sha256_at(self, key, nbytes))

    def size(self, key: str) -> int:
        """See `Storage`."""
        answer = self._asked(key, lambda client: client.head_object(**self._at(key)))
        return int(answer["ContentLength"])

    def list(self, prefix: str) -> Iterator[Entry]:
        """See `Storage`."""
        for page in self._pages(prefix):
            for item in page.get("Contents", ()):
                yield Entry(item["Key"].removeprefix(self.prefix), int(item["Size"]))

    def folders(self, prefix: str) -> Iterator[str]:
        """See `Storage`."""
        whole = self.prefix + prefix
        for page in self._pages(prefix, Delimiter="/"):
            for item in page.get("CommonPrefixes", ()):
                yield item["Prefix"].removeprefix(whole).rstrip("/")

    def _pages(self, prefix: str, **more: str) -> Iterator[Any]:
        place: dict[str, str] = {}
        while True:
            page = self._asked(
                prefix,
                lambda client, place=place: client.list_objects_v2(  # type: ignore[misc]
                    Bucket=self.bucket, Prefix=self.prefix + prefix, **more, **place
                ),
            )
            yield page
            if not page.get("IsTruncated"):
                return
            place = {"ContinuationToken": page["NextContinuationToken"]}

    def clock(self) -> float | None:
        """See `Storage`. A refusal, as for a clock that is wrong, tells it too."""

        def ask(client: Any) -> Any:
            try:
                return client.head_bucket(Bucket=self.bucket)
            except ClientError as error:
                return error.response

        date = self._asked("", ask)["ResponseMetadata"].get("HTTPHeaders", {}).get("date", "")
        try:
            return parsedate_to_datetime(date).timestamp()
        except ValueError:
            return None

    def delete(self, key: str) -> None:
        """See `Storage`."""
        self._asked(key, lambda client: client.delete_object(**self._at(key)))

    def delete_many(self, keys: Sequence[str]) -> None:
        """See `Storage`: up to a thousand a request."""
        for start in range(0, len(keys), _MOST_DELETES):
            chosen = [{"Key": self.prefix + key} for key in keys[start : start + _MOST_DELETES]]
            answer = self._asked(
                keys[start],
                lambda client, chosen=chosen: client.delete_objects(  # type: ignore[misc]
                    Bucket=self.bucket, Delete={"Objects": chosen, "Quiet": True}
                ),
            )
            if errors := answer.get("Errors"):
                code = errors[0].get("Code")
                kind = StoreRefused if code in FINAL else StoreError
                raise kind(f"{self.url}: {len(errors)} keys were not deleted: {code}")

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + key}

    def _asked(self, key: str, request: Callable[[Any], T]) -> T:
        """The answer to a request, which is made again while that may help."""
        tries, renewed = Tries(self._options.max_attempts), False
        while True:
            access = self._access()
            try:
                return request(access.client)
            except ERRORS as error:
                if not renewed and self._renew(error, access):
                    renewed = True
                    continue
                tries.failed(error, f"{self.url}/{key}")

    def _renew(self, error: Exception, access: Access) -> bool:
        """Ask the chain of credentials anew if the store doubts those of `access`; returns whether there are others.

        botocore renews what it knows to expire, and keeps for ever what it read from a file or a program told it.
        """
        if code_of(error) not in DOUBTFUL or access.credentials is None:
            return False
        with _renewing:
            if self._access() is not access:
                return True  # another thread was quicker
            now = time.monotonic()
            if now - _renewals.get(self._options, -RENEW_S) < RENEW_S:
                return False
            _renewals[self._options] = now
            try:
                found = botocore.session.Session().get_credentials()
                if not found or found.get_frozen_credentials() == access.credentials.get_frozen_credentials():
                    return False
            except ERRORS:
                return False
            _access.cache_clear()
            return self._access() is not access

    def _receive(
        self,
        key: str,
        span: tuple[int, int] | None = None,
        total: int | None = None,
        room: Callable[[int], memoryview] = fresh,
    ) -> tuple[memoryview, Headers]:
        """The bytes of a span, or of the whole object, in memory that `room` makes, and the answer's headers.

        Each try asks for what is still missing, and must be answered from the same version of the object.
        """
        where, tries = f"{self.url}/{key}", Tries(self._options.max_attempts)
        first, size = span or (0, 0)
        data, done, version, renewed = room(size) if span else fresh(0), 0, "", False
        while True:
            before, access = done, self._access()
            part = f"bytes={first + done}-{first + size - 1 if span else ''}" if span or done else ""
            try:
                with self._answer(access, key, part) as (headers, readinto):
                    version, begun = headers.get("etag", ""), version
                    if done and version != begun:
                        raise Altered(f"{where}: replaced while it was read")
                    whole = _whole(headers, where, part)
                    if whole != total and (total is not None or whole < first + size):
                        raise wrong_size(where, whole, first + size if total is None else total)
                    if not span and not done:
                        data = room(whole)
                    while done < len(data) and (count := readinto(data[done : done + _PIECE])):
                        done += count
                if done == len(data):
                    return data, headers
                raise ConnectionError("the answer ended early")
            except ERRORS as error:
                if code_of(error) in BEYOND:
                    raise wrong_size(where, self.size(key), total or first + size) from error
                if not renewed and self._renew(error, access):
                    renewed = True
                    continue
                so_far = f"{done} of {len(data)} bytes"
                tries.failed(error, where, progress=done > before, so_far=so_far)

    @contextmanager
    def _answer(self, access: Access, key: str, part: str) -> Iterator[tuple[Headers, Callable[[memoryview], int]]]:
        """Headers, by names in small letters, and body of the object or, as of the header Range, a part of it."""
        headers = {"Range": part} if part else {}
        with access.direct.get(self.bucket, self.prefix + key, headers) as answer:
            if answer is not None:
                yield {name.lower(): value for name, value in answer.headers.items()}, answer.readinto
                return
        found = access.client.get_object(**self._at(key), **headers)
        access.direct.learn(self.bucket, self.prefix + key)
        with found["Body"] as body:
            yield found["ResponseMetadata"]["HTTPHeaders"], body.readinto


def _whole(headers: Headers, where: str, part: str) -> int:
    """Length of the whole object that an answer is about."""
    name = "content-range" if part else "content-length"
    if name not in headers:
        what = "do range reads" if part else "tell how long objects are"
        raise StoreRefused(f"{where}: the store does not {what}")
    return int(headers[name].rpartition("/")[2])


@dataclass(frozen=True)
class Access:
    """A process's ways to a store: through a boto3 client, and past it for GETs."""

    client: Any
    direct: Direct
    credentials: Any = None
    """botocore's; None = there are none, or they are not known."""


def access_of(options: StoreOptions) -> Access:
    """This process's access with these options; what the process was forked from has its own."""
    return _access(replace(options, max_attempts=1), os.getpid())  # who tries how often has the same connections


@lru_cache(maxsize=8)
def _access(options: StoreOptions, process: int) -> Access:
    session = botocore.session.Session()
    try:
        client = boto3.session.Session(botocore_session=session).client(
            "s3",
            endpoint_url=options.endpoint_url or None,
            region_name=options.region or None,
            config=Config(
                # `Tries` asks again; a read then goes on in the middle
                retries={"mode": "standard", "total_max_attempts": 1},
                connect_timeout=options.connect_timeout_s,
                read_timeout=options.read_timeout_s,
                max_pool_connections=options.connections,
                # S3-compatible stores reject the trailing checksums that newer clients send by default
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                **({"signature_version": UNSIGNED} if options.anonymous else {}),
            ),
        )
    except ValueError as error:
        raise StoreRefused(f"{options.endpoint_url}: {error}") from error
    client.meta.events.register("before-call.s3.DeleteObjects", _add_md5)
    credentials = None if options.anonymous else session.get_credentials()
    direct = Direct(options, credentials, session.get_config_variable("ca_bundle"))
    direct.watch(client)
    return Access(client, direct, credentials)


def _add_md5(params: dict[str, Any], **_: object) -> None:
    """Deleting many keys needs a checksum. Newer clients send a CRC32, which many stores don't take for one."""
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()
