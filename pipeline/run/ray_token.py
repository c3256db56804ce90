"""The token by which Ray knows who may join a cluster: what this process shows, and what to do if it is refused."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from gaussianverse.pipeline.errors import PipelineError, message

_MEND = (
    "write the cluster's token to a file that only you can read, and set RAY_AUTH_MODE=token and "
    "RAY_AUTH_TOKEN_PATH to it (docs/clusters.md)"
)


@dataclass(frozen=True)
class Shown:
    """The token as gRPC sends it, empty if none is sent, and where it comes from."""

    metadata: tuple[tuple[str, str], ...]
    source: str


def shown() -> Shown:
    """The token that Ray sends from this process.

    Raises:
        PipelineError: tokens are switched on, and there is none, or it cannot be read.
    """
    interceptor = import_module("ray._private.authentication.grpc_authentication_client_interceptor")
    try:
        metadata = tuple(interceptor._get_authentication_metadata_tuple())
    except Exception as error:  # Ray's own and those of its C++
        raise PipelineError(f"Ray's token: {message(error)}") from error
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    if mode == "token" and not metadata:
        raise PipelineError(f"RAY_AUTH_MODE is `token`, and there is no token here; {_MEND}")
    if not metadata:
        return Shown((), f"RAY_AUTH_MODE is {mode!r}" if mode else "RAY_AUTH_MODE is not set")
    if os.environ.get("RAY_AUTH_TOKEN"):
        return Shown(metadata, "RAY_AUTH_TOKEN")
    if given := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return Shown(metadata, f"{given} (RAY_AUTH_TOKEN_PATH)")
    return Shown(metadata, str(Path.home() / ".ray" / "auth_token"))


def refused(token: Shown) -> str:
    """Why a cluster answered that this token is none of its own, and the mend."""
    if token.metadata:
        return f"it refuses the token of {token.source}, which is not its own; {_MEND}"
    return f"it asks for a token, and none is sent since {token.source}; {_MEND}"
