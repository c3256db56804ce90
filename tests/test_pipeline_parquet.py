import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from gaussianverse.atlas.dataset_format import ATLAS, SPLATS
from gaussianverse.pipeline.dataset.parquet import ParquetSink, from_parquet, same_rows, to_parquet
from gaussianverse.pipeline.dataset.schemas import JOURNAL, STATS, row
from gaussianverse.pipeline.errors import PipelineError


def test_page_checksums_notice_a_flipped_bit() -> None:
    schema = JOURNAL[SPLATS]
    rows = [row(schema, {"uid": f"object-{i}", "seconds": i}) for i in range(50)]
    data = to_parquet(schema, rows, checksums=True)
    noticed = 0
    for at in range(0, len(data), 7):
        damaged = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        try:
            assert from_parquet(schema, damaged).to_pylist() == rows, f"byte {at}"
        except PipelineError:
            noticed += 1
    assert noticed > 100


def test_parquet_bytes_are_a_function_of_the_rows() -> None:
    schema = STATS[ATLAS]
    rows = [row(schema, {"uid": str(i)}) for i in range(20)]
    assert to_parquet(schema, rows) == to_parquet(schema, iter(rows))


@given(st.lists(st.integers(0, 60), max_size=12))
def test_a_files_bytes_do_not_depend_on_the_pieces_it_was_made_from(pieces: list[int]) -> None:
    class Small(ParquetSink):
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
    assert from_parquet(schema, data).to_pylist() == rows
    assert same_rows(schema, data, data)
    if len(rows) <= Small.ROW_GROUP:
        assert data == to_parquet(schema, rows)
    if rows:
        other = Small(schema)
        other.add(pa.Table.from_pylist([*rows[:-1], {"uid": "z", "x": -1}], schema=schema))
        assert not same_rows(schema, data, other.finish())
