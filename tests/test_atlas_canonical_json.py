from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaussianverse.atlas.canonical_json import json_object, to_json, to_json_file

VALUES = st.dictionaries(st.text(), st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False))


@given(VALUES)
def test_what_was_written_comes_back_in_its_order(values: dict[str, object]) -> None:
    data = to_json(values)
    assert b"\n" not in data
    assert list(json_object(data, ValueError).items()) == list(values.items())
    assert json_object(memoryview(to_json_file(values, sort_keys=True)), ValueError) == values


def test_numbers_that_json_has_no_word_for_are_not_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_json({"x": math.nan})


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "invalid JSON"),
        (b"\xff", "invalid JSON"),
        (b"[" * 100_000, "invalid JSON"),
        (b"[1]", "expected a JSON object, got list"),
        (b"null", "expected a JSON object, got NoneType"),
    ],
)
def test_anything_else_is_the_callers_error(data: bytes, text: str) -> None:
    class Bad(Exception):
        pass

    with pytest.raises(Bad, match=f"^{text}"):
        json_object(data, Bad)
    with pytest.raises(Bad, match=f"^a.json: {text}"):
        json_object(data, Bad, "a.json")
