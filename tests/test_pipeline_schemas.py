import json
import math

import pyarrow as pa
import pytest

from gaussianverse.atlas.canonical_json import to_json
from gaussianverse.atlas.dataset_format import ATLAS, SPLATS
from gaussianverse.pipeline.dataset import parquet, schemas
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
    assert schemas.from_json(schema, to_json(row)) == row
    assert parquet.from_parquet(schema, parquet.to_parquet(schema, [row, row])).to_pylist() == [row, row]
    assert len(set(schema.names)) == len(schema.names)


@pytest.mark.parametrize("schema", ALL)
def test_an_empty_table_is_a_table(schema: pa.Schema) -> None:
    assert parquet.from_parquet(schema, parquet.to_parquet(schema, [])).num_rows == 0


def test_numbers_that_are_none_become_minus_one_and_json_stays_json() -> None:
    row = schemas.row(schemas.FACTS[SPLATS], {"psnr": math.nan, "loss": math.inf, "lpips": 3})
    assert (row["psnr"], row["loss"], row["lpips"]) == (-1.0, -1.0, 3.0)
    json.loads(to_json(row), parse_constant=lambda word: pytest.fail(word))


@pytest.mark.parametrize("values", [{"psnr": "good"}, {"uid": 3}, {"uid": None}, {"steps": 1.5}, {"no_column": 1}])
def test_values_of_another_kind_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(PipelineError, match=next(iter(values))):
        schemas.row(schemas.FACTS[SPLATS], values)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000])
def test_other_json_is_refused(text: bytes) -> None:
    with pytest.raises(PipelineError):
        schemas.from_json(schemas.FACTS[ATLAS], text)


def test_a_null_in_json_is_refused() -> None:
    schema = schemas.FACTS[SPLATS]
    row: dict[str, object] = {**schemas.row(schema, {}), "caption": None}
    with pytest.raises(PipelineError, match="caption"):
        schemas.from_json(schema, json.dumps(row).encode())
