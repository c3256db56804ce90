"""`Direct`: GETs that botocore signs and http.client sends, for a quarter of the CPU time that boto3 takes.

boto3 sends the first GET of a bucket. How the one that came through looked (endpoint, addressing style and region,
after redirects) is how the others look. boto3 also sends those that cannot be sent this way, through a proxy or with
another kind of signature, and those that were not answered with success: its answer counts.
"""

from __future__ import annotations

import http.client
import re
import ssl
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from gaussianverse.atlas.store.options import StoreOptions

_SUCCESS = (200, 206)
_SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=.+/\d{8}/([^/]+)/s3/aws4_request,")


@dataclass(frozen=True)
class Route:
    """The form of GETs of a bucket: their address up to the key, and the region that signatures are for."""

    scheme: str
    host: str
    """With the port."""
    path: str
    agent: str
    region: str
    """"" = requests are not signed."""


def route_of(request: Any, key: str) -> Route | None:
    """The route of a GET that boto3 has sent; None where others cannot be sent without boto3."""
    headers = {name: v.decode() if isinstance(v, bytes) else v for name, v in request.headers.items()}
    signature = headers.get("Authorization", "")
    scope = _SCOPE.match(signature)
    if not request.url.endswith(_quoted(key)) or bool(signature) != bool(scope):
        return None
    scheme, host, path, _, _ = urlsplit(request.url.removesuffix(_quoted(key)))
    if scheme in get_environ_proxies(request.url):
        return None
    return Route(scheme, host, path, headers.get("User-Agent", ""), scope[1] if scope else "")


class Direct:
    """GETs of one process.

    Args:
        options: of the store.
        credentials: botocore's, which renew themselves; None = there are none.
        ca_bundle: certificates to trust; None = the usual ones.
    """

    def __init__(self, options: StoreOptions, credentials: Any, ca_bundle: str | None) -> None:
        self._options, self._credentials, self._ca_bundle = options, credentials, ca_bundle
        self._routes: dict[str, Route] = {}
        self._idle: defaultdict[Route, deque[http.client.HTTPConnection]] = defaultdict(deque)
        self._sent = threading.local()

    def watch(self, client: Any) -> None:
        """Learn from the GETs of a boto3 client."""
        client.meta.events.register("before-send.s3.GetObject", self._notice)

    def _notice(self, request: Any, **_: object) -> None:
        self._sent.request = request

    def learn(self, bucket: str, key: str) -> None:
        """Note how the last GET of this thread looked, which was of this key, and came through."""
        request = getattr(self._sent, "request", None)
        if request is not None and (route := route_of(request, key)):
            self._routes[bucket] = route

    @contextmanager
    def get(self, bucket: str, key: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse | None]:
        """The answer to a GET if it is one of success, else None."""
        route = self._routes.get(bucket)
        if route is None:
            yield None
            return
        path = route.path + _quoted(key)
        request = AWSRequest("GET", f"{route.scheme}://{route.host}{path}", {"User-Agent": route.agent, **headers})
        if route.region:
            S3SigV4Auth(self._credentials.get_frozen_credentials(), "s3", route.region).add_auth(request)
        connection, answer = self._ask(route, path, dict(request.headers.items()))
        idle = self._idle[route]
        try:
            yield answer if answer.status in _SUCCESS else None
        finally:
            # one that is still to be read from cannot be asked again
            if answer.length == 0 and not answer.will_close and len(idle) < self._options.connections:
                idle.append(connection)
            else:
                connection.close()

    def _ask(
        self, route: Route, path: str, headers: dict[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Send a request over a connection that is open, or a new one, and wait until the answer begins."""
        while True:
            try:
                connection, kept = self._idle[route].pop(), True
            except IndexError:
                connection, kept = self._connected(route), False
            try:
                connection.request("GET", path, headers=headers)
                return connection, connection.getresponse()
            except (ConnectionError, ssl.SSLError):
                connection.close()
                if not kept:  # else the server has closed it meanwhile, as servers do
                    raise
            except BaseException:
                connection.close()
                raise

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._ca_bundle or get_cert_path(True))

    def _connected(self, route: Route) -> http.client.HTTPConnection:
        timeout = self._options.connect_timeout_s
        connection = (
            http.client.HTTPSConnection(route.host, timeout=timeout, context=self._trust)
            if route.scheme == "https"
            else http.client.HTTPConnection(route.host, timeout=timeout)
        )
        connection.connect()
        connection.sock.settimeout(self._options.read_timeout_s)
        return connection


def _quoted(key: str) -> str:
    """A key as part of an address, as botocore writes it."""
    return quote(key, safe="/~")
