"""CPU time of range reads from S3: our store against boto3 alone, urllib3, boto3's CRT, obstore and pyarrow.

The server is Ceph radosgw in separate processes of this machine; the CPU time is that of this process with all its
threads. Candidates alternate within each round. Then each reads from a server that breaks off its answers, to test
whether it resumes in the middle, and from a forked process, as the workers of a DataLoader do. Candidates that are
not installed are listed: pip install awscrt obstore.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any, Protocol
from urllib.parse import urlsplit

import boto3
import numpy as np
import urllib3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from servers import flaky_server, radosgw

from bench.record import keep
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.s3 import S3Storage

BUCKET, KEY, REGION = "bench", "set/blob", "us-east-1"
SIZES = {"64 KiB": 1 << 16, "1 MiB": 1 << 20, "16 MiB": 1 << 24}
REQUESTS = {"64 KiB": 32, "1 MiB": 16, "16 MiB": 2}
"""Requests per round, one at a time; as many again with 16 in flight."""
IN_FLIGHT = 16
OBJECT = 1 << 25
_PIECE = 1 << 17
_BREAK = 600_000
_FORK_S = 10.0


class Candidate(Protocol):
    """A way to read ranges of one object."""

    def __init__(self, endpoint: str) -> None: ...

    def read(self, offset: int, into: memoryview) -> str:
        """Fill `into` with the bytes from `offset`; returns the ETag of the object, "" if unknown."""


class Ours:
    """`S3Storage.read`."""

    def __init__(self, endpoint: str) -> None:
        self._storage = S3Storage(f"s3://{BUCKET}", StoreOptions(endpoint_url=endpoint, region=REGION))

    def read(self, offset: int, into: memoryview) -> str:
        data, headers = self._storage._receive(KEY, (offset, len(into)))
        into[:] = data
        return headers["etag"]


class Boto3:
    """`get_object` of a boto3 client."""

    def __init__(self, endpoint: str) -> None:
        self._client = boto3.session.Session().client("s3", endpoint_url=endpoint, region_name=REGION)

    def read(self, offset: int, into: memoryview) -> str:
        part = f"bytes={offset}-{offset + len(into) - 1}"
        answer = self._client.get_object(Bucket=BUCKET, Key=KEY, Range=part)
        _fill(into, answer["Body"].readinto)
        return str(answer["ETag"])


class Urllib3:
    """A pool of urllib3, requests signed by botocore."""

    def __init__(self, endpoint: str) -> None:
        self._url = f"{endpoint}/{BUCKET}/{KEY}"
        self._credentials = boto3.session.Session().get_credentials()
        self._pool = urllib3.PoolManager(maxsize=IN_FLIGHT)

    def read(self, offset: int, into: memoryview) -> str:
        request = AWSRequest("GET", self._url, {"Range": f"bytes={offset}-{offset + len(into) - 1}"})
        S3SigV4Auth(self._credentials.get_frozen_credentials(), "s3", REGION).add_auth(request)
        answer = self._pool.request(
            "GET", self._url, headers=dict(request.headers.items()), preload_content=False, retries=False
        )
        _fill(into, answer.readinto)
        answer.release_conn()
        return str(answer.headers["etag"])


class Crt:
    """The S3 client of awscrt, which boto3's CRT transfers are made with; those know whole objects only."""

    def __init__(self, endpoint: str) -> None:
        from awscrt import auth, io, s3

        self._host = urlsplit(endpoint).netloc
        group = io.EventLoopGroup()
        credentials = auth.AwsCredentialsProvider.new_static(
            os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
        )
        self._client = s3.S3Client(
            bootstrap=io.ClientBootstrap(group, io.DefaultHostResolver(group)),
            region=REGION,
            tls_mode=s3.S3RequestTlsMode.DISABLED,
            signing_config=s3.create_default_s3_signing_config(region=REGION, credential_provider=credentials),
        )

    def read(self, offset: int, into: memoryview) -> str:
        from awscrt import http, s3

        told: dict[str, str] = {}
        part = f"bytes={offset}-{offset + len(into) - 1}"
        headers = http.HttpHeaders([("host", self._host), ("range", part)])

        def on_body(chunk: bytes, offset: int, **_: Any) -> None:
            into[offset - first : offset - first + len(chunk)] = chunk

        def on_headers(headers: list[tuple[str, str]], **_: Any) -> None:
            told.update({name.lower(): value for name, value in headers})

        first = offset
        self._client.make_request(
            type=s3.S3RequestType.GET_OBJECT,
            request=http.HttpRequest("GET", f"/{BUCKET}/{KEY}", headers),
            on_body=on_body,
            on_headers=on_headers,
        ).finished_future.result(60)
        return told.get("etag", "")


class Obstore:
    """obstore's `get` with a range, its answer as a stream."""

    def __init__(self, endpoint: str) -> None:
        from obstore.store import S3Store

        self._store = S3Store(
            BUCKET,
            endpoint=endpoint,
            region=REGION,
            access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
            secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
            client_options={"allow_http": True},
        )

    def read(self, offset: int, into: memoryview) -> str:
        import obstore

        answer = obstore.get(self._store, KEY, options={"range": (offset, offset + len(into))})
        done = 0
        for chunk in answer.stream(min_chunk_size=_PIECE):
            into[done : done + len(chunk)] = memoryview(chunk)
            done += len(chunk)
        return str(answer.meta["e_tag"])


class Pyarrow:
    """`read_at` of pyarrow's S3 filesystem."""

    def __init__(self, endpoint: str) -> None:
        import pyarrow.fs

        address = urlsplit(endpoint)
        store = pyarrow.fs.S3FileSystem(endpoint_override=address.netloc, scheme=address.scheme, region=REGION)
        self._file = store.open_input_file(f"{BUCKET}/{KEY}")

    def read(self, offset: int, into: memoryview) -> str:
        into[:] = memoryview(self._file.read_at(len(into), offset))
        return ""


CANDIDATES: dict[str, tuple[type[Candidate], str]] = {
    "ours": (Ours, "boto3"),
    "boto3": (Boto3, "boto3"),
    "urllib3": (Urllib3, "urllib3"),
    "crt": (Crt, "awscrt"),
    "obstore": (Obstore, "obstore"),
    "pyarrow": (Pyarrow, "pyarrow"),
}
"""Candidates, each with its package."""


def _fill(into: memoryview, readinto: Callable[[memoryview], int]) -> None:
    done = 0
    while done < len(into):
        count = readinto(into[done : done + _PIECE])
        if not count:
            raise ConnectionError("the answer ended early")
        done += count


def versions() -> dict[str, str]:
    """Version of each candidate's package, or "not installed"."""
    found = {}
    for name, (_, package) in CANDIDATES.items():
        try:
            found[name] = f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            found[name] = f"{package} not installed"
    return found


def process_cpu() -> float:
    """CPU seconds of this process and all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def timed(candidates: dict[str, Candidate], rounds: int) -> dict[str, dict[str, Any]]:
    """Medians over the rounds, of each candidate: by size, CPU ms a request, and requests a second."""
    memory = [np.empty(max(SIZES.values()), np.uint8).data for _ in range(IN_FLIGHT)]
    found: dict[str, dict[str, Any]] = {name: {} for name in candidates}
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        for size, nbytes in SIZES.items():
            taken: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in candidates}
            for _ in range(rounds + 1):  # the first warms up
                for name, candidate in candidates.items():

                    def one(k: int, candidate: Candidate = candidate, nbytes: int = nbytes) -> str:
                        return candidate.read(k * 65_536, memory[k % IN_FLIGHT][:nbytes])

                    cpu, wall = process_cpu(), time.perf_counter()
                    for k in range(REQUESTS[size]):
                        one(k)
                    alone = process_cpu() - cpu, time.perf_counter() - wall
                    cpu, wall = process_cpu(), time.perf_counter()
                    list(pool.map(one, range(max(REQUESTS[size], IN_FLIGHT))))
                    taken[name].append((*alone, process_cpu() - cpu, time.perf_counter() - wall))
            for name, times in taken.items():
                cpu, wall, cpu_16, wall_16 = (median(t[i] for t in times[1:]) for i in range(4))
                count, count_16 = REQUESTS[size], max(REQUESTS[size], IN_FLIGHT)
                found[name][size] = {
                    "cpu_ms": 1e3 * cpu / count,
                    "cpu_ms_16_in_flight": 1e3 * cpu_16 / count_16,
                    "requests_per_s": count / wall,
                    "requests_per_s_16_in_flight": count_16 / wall_16,
                }
    for measured in found.values():
        small, large = (measured[size]["cpu_ms"] for size in ("64 KiB", "16 MiB"))
        measured["cpu_ms_per_mib"] = (large - small) / ((SIZES["16 MiB"] - SIZES["64 KiB"]) / 2**20)
    return found


def goes_on(make: type[Candidate], folder: Path) -> str:
    """Test how a candidate resumes a read whose answer breaks off."""
    path = folder / BUCKET / KEY
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(0).bytes(1 << 20)
    path.write_bytes(data)
    behaviour = flaky_server.Behaviour(folder)
    into = np.empty(len(data), np.uint8).data
    with flaky_server.serving(behaviour) as endpoint:
        candidate = make(endpoint)
        candidate.read(0, into)
        behaviour.requests.clear()
        behaviour.cut_after = [_BREAK]
        try:
            candidate.read(0, into)
        except Exception as error:  # libraries raise different errors
            return f"fails: {type(error).__name__}"
        starts = [int(part.removeprefix("bytes=").partition("-")[0] or 0) for *_, part in behaviour.requests]
        if into != data:
            return "gives wrong bytes"
        return "in the middle" if len(starts) > 1 and starts[1] > _BREAK - 2 * _PIECE else "from the beginning"


def after_fork(make: type[Candidate], endpoint: str) -> str:
    """Test whether a forked process can read with its own client, after its parent has read."""
    child = os.fork()
    if not child:
        ended = 1
        with suppress(BaseException):
            make(endpoint).read(0, np.empty(1 << 16, np.uint8).data)
            ended = 0
        os._exit(ended)
    until = time.monotonic() + _FORK_S
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "yes" if status == 0 else "fails"
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hangs"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    if reason := radosgw.why_not():
        print(f"bench-store measures on Ceph radosgw: {reason}", file=sys.stderr)
        return 1
    os.environ.update(AWS_ACCESS_KEY_ID=radosgw.ACCESS_KEY, AWS_SECRET_ACCESS_KEY=radosgw.SECRET_KEY)
    installed = versions()
    makers = {n: make for n, (make, _) in CANDIDATES.items() if not installed[n].endswith("not installed")}
    with tempfile.TemporaryDirectory() as folder, radosgw.serving(Path(folder)) as endpoint:
        client = boto3.session.Session().client("s3", endpoint_url=endpoint, region_name=REGION)
        client.create_bucket(Bucket=BUCKET)
        etag = client.put_object(Bucket=BUCKET, Key=KEY, Body=np.random.default_rng(1).bytes(OBJECT))["ETag"]
        candidates = {name: make(endpoint) for name, make in makers.items()}
        measured = timed(candidates, options.rounds)
        for name, candidate in candidates.items():
            told = candidate.read(0, np.empty(1000, np.uint8).data)
            measured[name]["tells_version"] = told.strip('"') == etag.strip('"')
        for name, make in makers.items():
            with tempfile.TemporaryDirectory() as bucket:
                measured[name]["broken_answer"] = goes_on(make, Path(bucket))
        for name, make in makers.items():  # last: a fork that tries to read may stop its parent from reading
            measured[name]["after_fork"] = after_fork(make, endpoint)
    ratio = measured["ours"]["64 KiB"]["cpu_ms"] / measured["boto3"]["64 KiB"]["cpu_ms"]
    result = {"time": "process CPU", "server": "Ceph radosgw", "packages": installed}
    keep("store", {**result, "cpu_of_boto3": ratio, "candidates": measured})
    return 0


if __name__ == "__main__":
    sys.exit(main())
