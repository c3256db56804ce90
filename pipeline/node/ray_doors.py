"""Finds what Ray left open on this machine: tokens and sockets that other users can reach. Runs use none of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from gaussianverse.pipeline.node.gpu import Finding

_MOST_SESSIONS = 1000


def examine() -> Finding:
    """Say where runs start Ray, and what of it is open to others; never a fault, since runs do not use it."""
    address = os.environ.get("RAY_ADDRESS", "")
    where = (
        f"runs join {address} (RAY_ADDRESS)"
        if address and address != "local"
        else "a run starts it in a folder and with a token of its own"
    )
    return Finding("ray", True, "; ".join([where, *_open_doors()]))


def _open_doors() -> Iterator[str]:
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        yield "RAY_AUTH_MODE is `disabled`, so that every local user can run code in a run: unset it"
    given = os.environ.get("RAY_AUTH_TOKEN_PATH", "")
    for token in [Path.home() / ".ray" / "auth_token", *([Path(given)] if given else [])]:
        mode = _mode(token)
        if mode & 0o044 and all(_mode(parent) & 0o011 for parent in token.parents):
            yield f"others can read the token {token} (mode {mode:04o}): chmod 600 it"
    sessions = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray"
    if found := sum(map(_is_open, _sessions(sessions))):
        yield f"others can reach the sockets of {found} sessions of other programs in {sessions}"


def _sessions(folder: Path) -> list[Path]:
    with suppress(OSError), os.scandir(folder) as entries:
        return [Path(e.path) for e in islice(entries, _MOST_SESSIONS) if e.name.startswith("session_2")]
    return []


def _is_open(session: Path) -> bool:
    sockets = session / "sockets"
    with suppress(OSError):
        return bool(_mode(sockets) & 0o011) and sockets.stat().st_uid == os.getuid()
    return False


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0
