"""Renders templates, and values for scripts; foreign text stays text in both."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jinja2

from gaussianverse.escape import one_line

_PACKAGE = "gaussianverse.pipeline.ops.page"


MOST_TEXT = 2000
"""Characters of a foreign text that a page shows."""


def _shown(text: object) -> str:
    whole = str(text)
    shown = one_line(whole[:MOST_TEXT])
    return shown if len(whole) <= MOST_TEXT else f"{shown} ... ({len(whole)} characters)"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(_PACKAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["one_line"] = _shown
    return environment


def rendered(template: str, **values: Any) -> bytes:
    """A template of this package with its values, every one of which is escaped for HTML."""
    # lone surrogates, which a manifest may hold, have no encoding
    return _environment().get_template(template).render(**values).encode("utf-8", "backslashreplace")


def script(function: str, value: Any) -> bytes:
    """A classic script that calls a function with a value: ASCII, and without the start of a tag."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f"{function}({text});\n".encode("ascii")
