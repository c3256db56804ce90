"""JSON to bytes and back. What is read was published, fetched or given by somebody."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def to_json(values: Mapping[str, Any]) -> bytes:
    """Canonical JSON for machines: one line, keys as given, no NaN."""
    return json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def to_json_file(values: Mapping[str, Any], *, sort_keys: bool = False) -> bytes:
    """Indented JSON for people, with a newline at its end."""
    return (json.dumps(values, indent=1, sort_keys=sort_keys) + "\n").encode()


def json_object(data: bytes | memoryview, error: type[Exception], where: str = "") -> dict[str, Any]:
    """The JSON object in `data`.

    Args:
        data: of any origin.
        error: what to raise where there is none, with one line of text.
        where: names the data in that text.
    """
    prefix = f"{where}: " if where else ""
    try:
        value = json.loads(bytes(data))
    except (ValueError, RecursionError) as why:
        raise error(f"{prefix}invalid JSON: {why}") from why
    if not isinstance(value, dict):
        raise error(f"{prefix}expected a JSON object, got {type(value).__name__}")
    return value
