"""Canonical JSON, and a checked reader of JSON objects from untrusted bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def to_json(values: Mapping[str, Any]) -> bytes:
    """Encode canonical JSON for machines: one line, keys in the given order, no NaN."""
    return json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def to_json_file(values: Mapping[str, Any], *, sort_keys: bool = False) -> bytes:
    """Encode indented JSON for people, with a final newline."""
    return (json.dumps(values, indent=1, sort_keys=sort_keys) + "\n").encode()


def json_object(data: bytes | memoryview, error_type: type[Exception], where: str = "") -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        data: the bytes to parse.
        error_type: exception to raise, with one line of text, if `data` is not a JSON object.
        where: name of the data in that text.
    """
    prefix = f"{where}: " if where else ""
    try:
        value = json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise error_type(f"{prefix}invalid JSON: {error}") from error
    if not isinstance(value, dict):
        raise error_type(f"{prefix}expected a JSON object, got {type(value).__name__}")
    return value
