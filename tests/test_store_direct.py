"""GETs past boto3: they look as boto3's do, and boto3 sends those again that are not answered with success."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from botocore.credentials import ReadOnlyCredentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from servers.fault_proxy import proxying
from servers.flaky_server import Behaviour, serving
from servers.moto_server import BUCKET

from gaussianverse.atlas.store import retries, s3
from gaussianverse.atlas.store.direct import Route, route_of
from gaussianverse.atlas.store.errors import StoreError
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.s3 import S3Storage

BLOB = np.random.default_rng(0).bytes(500_000)
ODD = "a b/c+d~e(1)/é%41&=.bin"


@pytest.fixture
def behaviour(tmp_path: Path, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Behaviour:
    # `s3_endpoint` is there for its credentials
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.001)
    for key in ("blob", ODD):
        (tmp_path / "b/x" / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "b/x" / key).write_bytes(BLOB)
    return Behaviour(tmp_path)


@pytest.fixture
def endpoint(behaviour: Behaviour) -> Iterator[str]:
    with serving(behaviour) as url:
        yield url


def storage_at(endpoint: str, **options: Any) -> S3Storage:
    return S3Storage("s3://b/x", StoreOptions(endpoint_url=endpoint, region="us-east-1", **options))


def counted(storage: S3Storage, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys that boto3 is asked for."""
    client, asked = storage._access().client, list[str]()
    get = client.get_object

    def get_object(**request: Any) -> Any:
        asked.append(request["Key"])
        return get(**request)

    monkeypatch.setattr(client, "get_object", get_object)
    return asked


@pytest.mark.parametrize("anonymous", [False, True])
@pytest.mark.parametrize("key", ["blob", ODD])
def test_the_first_get_is_boto3s_and_the_others_look_like_it(
    behaviour: Behaviour, endpoint: str, monkeypatch: pytest.MonkeyPatch, key: str, anonymous: bool
) -> None:
    storage = storage_at(endpoint, anonymous=anonymous)
    asked = counted(storage, monkeypatch)
    for _ in range(3):
        assert storage.get(key) == BLOB
    assert storage.read(key, 7, 100, len(BLOB)) == BLOB[7:107]
    assert asked == [f"x/{key}"]
    assert len({path for _, path, _ in behaviour.requests}) == 1
    assert len({h["host"] for h in behaviour.headers}) == len({h["user-agent"] for h in behaviour.headers}) == 1
    scopes = {h.get("authorization", "").partition(", ")[0] for h in behaviour.headers}
    assert len(scopes) == 1
    assert scopes.pop().endswith("" if anonymous else "/us-east-1/s3/aws4_request")


def test_credentials_are_asked_for_each_time(behaviour: Behaviour, endpoint: str) -> None:
    storage, left = storage_at(endpoint), ["first", "second"]
    storage.get("blob")
    direct = storage._access().direct
    renewed = lambda: ReadOnlyCredentials("key", "secret", left.pop(0))  # noqa: E731
    direct._credentials = SimpleNamespace(get_frozen_credentials=renewed)
    for _ in range(2):
        storage.get("blob")
    assert [h.get("x-amz-security-token") for h in behaviour.headers] == [None, "first", "second"]


@pytest.mark.parametrize("status", [301, 400, 403, 404, 412, 416, 503])
def test_what_was_not_answered_with_success_is_boto3s_to_judge(
    behaviour: Behaviour, endpoint: str, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    storage = storage_at(endpoint, max_attempts=1)
    storage.get("blob")
    asked = counted(storage, monkeypatch)
    behaviour.refuse = [status]
    assert storage.get("blob") == BLOB
    assert asked == ["x/blob"]


def test_connections_that_the_server_has_closed_are_opened_again(
    behaviour: Behaviour, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = storage_at(endpoint, max_attempts=1)
    asked = counted(storage, monkeypatch)
    behaviour.hang_up = True
    for _ in range(5):
        assert storage.read("blob", 3, 1000) == BLOB[3:1003]
    assert len(asked) == 1


def test_a_new_connection_that_fails_is_a_failed_try(endpoint: str, behaviour: Behaviour) -> None:
    with serving(behaviour) as url:
        storage = storage_at(url, max_attempts=2, connect_timeout_s=1)
        storage.get("blob")
    with pytest.raises(StoreError, match=r"blob: 0 of 10 bytes after 2 tries in a row \(ConnectionRefusedError"):
        storage.read("blob", 0, 10)


def test_after_an_answer_that_broke_off_its_connection_is_not_used_again(behaviour: Behaviour, endpoint: str) -> None:
    storage = storage_at(endpoint, max_attempts=3)
    storage.get("blob")
    behaviour.cut_after = [200_000, 0]
    assert storage.get("blob") == BLOB
    assert [part for _, _, part in behaviour.requests] == ["", "", "bytes=200000-", "bytes=200000-"]
    assert storage.get("blob") == BLOB


def test_threads_have_connections_of_their_own_and_few_are_kept(endpoint: str) -> None:
    storage = storage_at(endpoint, connections=3)
    storage.get("blob")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda k: bytes(storage.read("blob", k * 1000, 5000)), range(64)))
    assert found == [BLOB[k * 1000 : k * 1000 + 5000] for k in range(64)]
    (idle,) = storage._access().direct._idle.values()
    assert 1 <= len(idle) <= 3


def test_a_forked_process_has_connections_of_its_own(endpoint: str) -> None:
    storage = storage_at(endpoint)
    for _ in range(2):
        assert storage.get("blob") == BLOB
    child = os.fork()
    if not child:
        os._exit(0 if all(storage.read("blob", 0, 99) == BLOB[:99] for _ in range(3)) else 1)
    assert storage.get("blob") == BLOB
    assert os.waitpid(child, 0)[1] == 0
    assert storage.get("blob") == BLOB


def test_behind_a_proxy_boto3_sends_all(s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is of a network that is nowhere, so nothing comes past the proxy."""
    direct = S3Storage(f"s3://{BUCKET}/{tmp_path.name}", StoreOptions(endpoint_url=s3_endpoint))
    direct.put_if_absent("k", BLOB)
    with proxying(s3_endpoint) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        options = StoreOptions(endpoint_url="http://192.0.2.1", connect_timeout_s=1, max_attempts=1)
        storage = S3Storage(f"s3://{BUCKET}/{tmp_path.name}", options)
        asked = counted(storage, monkeypatch)
        for _ in range(3):
            assert storage.get("k") == BLOB
        assert len(asked) == proxy.met[""] == 3


def certificate(folder: Path) -> ssl.SSLContext:
    """TLS of 127.0.0.1, vouched for by folder/ca.pem alone."""
    key, name = (ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "s3")]))
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return context


def test_certificates_are_those_that_boto3_is_told_of(
    behaviour: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(behaviour, certificate(tmp_path)) as url:
        with pytest.raises(StoreError, match="SSLError"):
            storage_at(url, max_attempts=1).get("blob")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        s3._access.cache_clear()  # as in a new process: connections are shared, and read the environment once
        storage = storage_at(url, max_attempts=2)
        asked = counted(storage, monkeypatch)
        behaviour.hang_up = True
        for _ in range(3):
            assert storage.get("blob") == BLOB
        assert len(asked) == 1
        monkeypatch.setattr(storage._access().direct, "_trust", ssl.create_default_context())
        with pytest.raises(StoreError, match="SSLCertVerificationError"):
            storage.get("blob")


V4 = "AWS4-HMAC-SHA256 Credential={}/20260101/eu-west-1/{}/aws4_request, SignedHeaders=host, Signature=0"
SENT = [
    (V4.format("key", "s3"), "https://b.s3.eu-west-1.amazonaws.com/p/k%20%C3%A9", "eu-west-1"),
    (V4.format("a/b:c", "s3"), "https://h:8/b/p/k%20%C3%A9", "eu-west-1"),
    ("", "https://h/b/p/k%20%C3%A9", ""),
]
OTHERS = [
    ("AWS key:signature", "https://h/b/p/k%20%C3%A9"),
    (V4.format("key", "s3express"), "https://h/b/p/k%20%C3%A9"),
    ("AWS4-ECDSA-P256-SHA256 Credential=key/20260101/s3/aws4_request, Signature=0", "https://h/b/p/k%20%C3%A9"),
    ("", "https://h/b/p/k%20%C3%A9?X-Amz-Signature=0"),
    (V4.format("key", "s3"), "https://h/b/p/another"),
]


@pytest.mark.parametrize(("signature", "url", "region"), SENT)
def test_a_route_is_learnt_from_what_was_sent(signature: str, url: str, region: str) -> None:
    headers = {"User-Agent": b"boto", **({"Authorization": signature} if signature else {})}
    route = route_of(SimpleNamespace(url=url, headers=headers), "p/k é")
    address = urlsplit(url)
    assert route == Route("https", address.netloc, address.path.removesuffix("p/k%20%C3%A9"), "boto", region)


@pytest.mark.parametrize(("signature", "url"), OTHERS)
def test_other_kinds_of_requests_stay_boto3s(signature: str, url: str) -> None:
    headers = {"Authorization": signature} if signature else {}
    assert route_of(SimpleNamespace(url=url, headers=headers), "p/k é") is None


def test_proxies_keep_requests_with_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    request = SimpleNamespace(url="https://h/b/k", headers={})
    past = Route("https", "h", "/b/", "", "")
    assert route_of(request, "k") == past
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "g")
    assert route_of(request, "k") == past
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert route_of(request, "k") is None
    monkeypatch.setenv("no_proxy", "h")
    assert route_of(request, "k") == past
