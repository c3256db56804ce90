"""Credentials that expire or lose their rights half-way: asked anew, or said with the mend."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from servers.fault_proxy import proxying
from servers.moto_server import BUCKET

from gaussianverse.atlas.store import retries, s3
from gaussianverse.atlas.store.errors import StoreError, StoreRefused
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.s3 import S3Storage


def write_profile(path: Path, key: str) -> None:
    path.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3_endpoint: str) -> Path:
    path = tmp_path / "credentials"
    write_profile(path, "old")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setattr(s3, "_renewals", {})
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.0)
    return path


class Guard:
    """Lets a store refuse requests that are signed with a key that it no longer takes."""

    def __init__(self, storage: S3Storage, code: str) -> None:
        self.code, self.refused, self.asked = code, {"old"}, list[str]()
        access = storage._access

        def guarded() -> s3.Access:
            found = access()
            found.client.meta.events.register_first("before-send.s3", self._check, unique_id="guard")
            found.direct._routes.clear()
            return found

        storage._access = guarded  # type: ignore[assignment]

    def _check(self, request: Any, event_name: str, **_: Any) -> None:
        key = str(request.headers["Authorization"]).split("Credential=")[1].split("/")[0]
        self.asked.append(key)
        if key in self.refused:
            raise ClientError({"Error": {"Code": self.code, "Message": ""}}, event_name.rpartition(".")[2])


@pytest.fixture
def storage(profile: Path, s3_endpoint: str, tmp_path: Path) -> Iterator[S3Storage]:
    s3._access.cache_clear()
    yield S3Storage(
        f"s3://{BUCKET}/{tmp_path.name}", StoreOptions(endpoint_url=s3_endpoint, region="us-east-1", max_attempts=3)
    )
    s3._access.cache_clear()


OPERATIONS: list[Callable[[S3Storage], Any]] = [
    lambda s: s.put_if_absent("new", b"x"), lambda s: s.get("k"), lambda s: s.head("k"), lambda s: s.size("k"),
    lambda s: list(s.list("")), lambda s: s.read("k", 0, 1), lambda s: s.delete("gone"),
]  # fmt: skip


@pytest.mark.parametrize("code", sorted(retries.DOUBTFUL))
def test_credentials_that_were_renewed_outside_are_used_at_once(storage: S3Storage, profile: Path, code: str) -> None:
    storage.put_if_absent("k", b"data")
    guard = Guard(storage, code)
    for k, operation in enumerate(OPERATIONS):
        s3._renewals.clear()
        guard.asked.clear()
        write_profile(profile, f"new{k}")
        guard.refused = {f"new{k - 1}" if k else "old"}
        operation(storage)
        assert guard.asked[0] != guard.asked[-1] == f"new{k}"


@pytest.mark.parametrize(
    ("code", "kind", "asked"),
    [
        ("ExpiredToken", StoreError, 3),
        ("400", StoreError, 3),
        ("AccessDenied", StoreRefused, 1),
        ("403", StoreRefused, 1),
    ],
)
def test_credentials_that_stay_are_an_error_with_its_mend(
    storage: S3Storage, profile: Path, code: str, kind: type[StoreError], asked: int
) -> None:
    guard = Guard(storage, code)
    with pytest.raises(kind, match=r"credentials ((have|may have) expired: renew them|are still valid)"):
        storage.get("k")
    assert guard.asked == ["old"] * asked


def test_a_right_that_is_missing_for_good_does_not_ask_the_chain_for_ever(storage: S3Storage, profile: Path) -> None:
    guard = Guard(storage, "AccessDenied")
    guard.refused = {"old", "new", "newer"}
    storage._access()
    for key in ("new", "newer"):
        write_profile(profile, key)
        with pytest.raises(StoreRefused):
            storage.get("k")
    assert guard.asked == ["old", "new", "new"]


def test_a_chain_that_fails_is_no_other_error(
    storage: S3Storage, profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Guard(storage, "AccessDenied")
    storage._access()

    def fails(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("botocore.session.Session.get_credentials", fails)
    with pytest.raises(StoreRefused, match="AccessDenied"):
        storage.get("k")


def test_threads_renew_once(storage: S3Storage, profile: Path) -> None:
    storage.put_if_absent("k", b"data")
    guard = Guard(storage, "ExpiredToken")
    storage._access()
    write_profile(profile, "new")
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(storage.get("k"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"data"] * 6
    assert guard.asked.count("old") <= 6


def test_a_web_identity_is_exchanged_again_before_its_credentials_end(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pods on EKS and GKE get credentials (deploy/): a token in a file, which Kubernetes renews, and a role."""
    asked = list[tuple[str, str]]()

    def forwarded(method: str, path: str) -> str:
        asked.append((method, path))
        return ""

    with proxying(s3_endpoint) as proxy:
        proxy.fault = forwarded
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        (tmp_path / "token").write_text("a token")
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/gaussianverse")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        storage = S3Storage(f"s3://{BUCKET}/{tmp_path.name}", StoreOptions(region="us-east-1", max_attempts=3))
        try:
            storage.put_if_absent("k", b"data")
            assert [storage.get("k"), storage.get("k")] == [b"data"] * 2
            exchange = ("POST", "/")
            assert asked.count(exchange) == 1
            credentials = storage._access().credentials
            # an hour later: they end soon, and what botocore keeps of the last exchange has ended
            credentials._expiry_time = datetime.now(UTC) + timedelta(minutes=5)
            credentials._refresh_using.__self__._cache.clear()
            assert storage.get("k") == b"data"
            assert asked.count(exchange) == 2
        finally:
            s3._access.cache_clear()
