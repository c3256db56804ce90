import json
import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaussianverse.pipeline.dataset import layout, schemas
from gaussianverse.pipeline.errors import PipelineError

ALL = [
    *schemas.FACTS.values(),
    *schemas.STATS.values(),
    *schemas.JOURNAL.values(),
    schemas.METADATA,
    schemas.QUARANTINE,
]


@pytest.mark.parametrize("schema", ALL)
def test_rows_are_complete_typed_and_never_null(schema: pa.Schema) -> None:
    row = schemas.row(schema, {})
    assert list(row) == schema.names
    assert None not in row.values()
    assert schemas.from_json(schema, schemas.to_json(row)) == row
    assert schemas.from_parquet(schema, schemas.to_parquet(schema, [row, row])).to_pylist() == [row, row]
    assert len(set(schema.names)) == len(schema.names)


@pytest.mark.parametrize("schema", ALL)
def test_an_empty_table_is_a_table(schema: pa.Schema) -> None:
    assert schemas.from_parquet(schema, schemas.to_parquet(schema, [])).num_rows == 0


def test_numbers_that_are_none_become_minus_one_and_json_stays_json() -> None:
    row = schemas.row(schemas.FACTS[layout.SPLATS], {"psnr": math.nan, "loss": math.inf, "lpips": 3})
    assert (row["psnr"], row["loss"], row["lpips"]) == (-1.0, -1.0, 3.0)
    json.loads(schemas.to_json(row), parse_constant=lambda word: pytest.fail(word))


@pytest.mark.parametrize(
    "values", [{"psnr": "good"}, {"uid": 3}, {"uid": None}, {"steps": 1.5}, {"no_column": 1}]
)
def test_values_of_another_kind_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(PipelineError, match=next(iter(values))):
        schemas.row(schemas.FACTS[layout.SPLATS], values)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000])
def test_other_json_is_refused(text: bytes) -> None:
    with pytest.raises(PipelineError):
        schemas.from_json(schemas.FACTS[layout.ATLAS], text)


def test_a_null_in_json_is_refused() -> None:
    schema = schemas.FACTS[layout.SPLATS]
    row: dict[str, object] = {**schemas.row(schema, {}), "caption": None}
    with pytest.raises(PipelineError, match="caption"):
        schemas.from_json(schema, json.dumps(row).encode())


def test_page_checksums_notice_a_flipped_bit() -> None:
    schema = schemas.JOURNAL[layout.SPLATS]
    rows = [schemas.row(schema, {"uid": f"object-{i}", "seconds": i}) for i in range(50)]
    data = schemas.to_parquet(schema, rows, checksums=True)
    noticed = 0
    for at in range(0, len(data), 7):
        damaged = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        try:
            assert schemas.from_parquet(schema, damaged).to_pylist() == rows, f"byte {at}"
        except PipelineError:
            noticed += 1
    assert noticed > 100


def test_parquet_bytes_are_a_function_of_the_rows() -> None:
    schema = schemas.STATS[layout.ATLAS]
    rows = [schemas.row(schema, {"uid": str(i)}) for i in range(20)]
    assert schemas.to_parquet(schema, rows) == schemas.to_parquet(schema, iter(rows))


def test_messages_are_one_short_line() -> None:
    assert schemas.message(ValueError("a\n  b")) == "a b"
    assert schemas.message(ValueError()) == "ValueError"
    assert len(schemas.message("x" * 10_000)) == schemas.MESSAGE_LIMIT


@given(st.lists(st.integers(0, 60), max_size=12))
def test_a_files_bytes_do_not_depend_on_the_pieces_it_was_made_from(pieces: list[int]) -> None:
    class Small(schemas.ParquetSink):
        ROW_GROUP = 50

    schema = pa.schema([("uid", pa.string()), ("x", pa.int64())])
    rows = [{"uid": f"o{i}", "x": i} for i in range(sum(pieces))]
    whole, cut, at = Small(schema), Small(schema), 0
    whole.add(pa.Table.from_pylist(rows, schema=schema))
    for count in pieces:
        cut.add(pa.Table.from_pylist(rows[at : at + count], schema=schema))
        at += count
    data = cut.finish()
    assert data == whole.finish()
    assert schemas.from_parquet(schema, data).to_pylist() == rows
    assert schemas.same_rows(schema, data, data)
    if len(rows) <= Small.ROW_GROUP:
        assert data == schemas.to_parquet(schema, rows)
    if rows:
        other = Small(schema)
        other.add(pa.Table.from_pylist([*rows[:-1], {"uid": "z", "x": -1}], schema=schema))
        assert not schemas.same_rows(schema, data, other.finish())
