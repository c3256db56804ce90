import json
import math
from functools import partial

import pyarrow as pa
import pytest

from gaussianverse.atlas.canonical_json import to_json
from gaussianverse.atlas.dataset_format import ADDRESS, ATLAS, SPLATS
from gaussianverse.manifests import schema as manifest_schema
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


EXTRAS = [("good", pa.bool_()), ("note", pa.string()), ("score", pa.float64())]


@pytest.mark.parametrize("version", [1, 2])
def test_a_table_tells_its_version_and_the_columns_of_the_author(version: int) -> None:
    extras = EXTRAS if version == 2 else []
    schema = schemas.stats_schema(SPLATS, extras, version)
    found = schemas.like(partial(schemas.stats_schema, SPLATS), schema, after=len(ADDRESS))
    assert found == schema
    assert schemas.extras_in(schema) == extras


@pytest.mark.parametrize(
    "extras",
    [
        [("psnr", pa.float64())],
        [("score", pa.float32())],
        [("when", pa.timestamp("s"))],
        [("n", pa.list_(pa.int64()))],
    ],
)
def test_columns_that_no_author_may_have_are_told(extras: list[tuple[str, pa.DataType]]) -> None:
    schema = schemas.stats_schema(SPLATS, extras)
    assert schemas.like(partial(schemas.stats_schema, SPLATS), schema, after=len(ADDRESS)) is None


def test_a_member_tells_the_types_of_the_columns_of_the_author() -> None:
    schema = schemas.facts_schema(SPLATS, EXTRAS)
    row = schemas.row(schema, {"schema_version": 2, "captions": ["a", "b"], "good": True, "note": "x", "score": 1})
    assert row["score"] == 1.0
    assert type(row["score"]) is float
    assert schemas.facts_from_json(SPLATS, to_json(row)) == row
    assert schemas.extras_of(row) == EXTRAS
    for change in ({"score": None}, {"score": [1]}, {"schema_version": 3}, {"captions": [1]}, {"psnr": True}):
        with pytest.raises(PipelineError):
            schemas.facts_from_json(SPLATS, to_json({**row, **change}))


def test_names_that_a_manifest_may_not_use_are_those_of_all_tables() -> None:
    own = {"uid", "views", "format", "category", "license", "caption", "caption_source", "source_id", "split"}
    own |= {"attribution", "captions", "caption_sources"}
    assert schemas.RESERVED - own <= manifest_schema.RESERVED
    assert set(manifest_schema.FIELDS) == own
