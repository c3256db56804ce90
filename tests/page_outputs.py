"""A small output with its page, for tests of the page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline_runs import in_process, tiny_arguments, write_inputs

from gaussianverse.pipeline import cli
from gaussianverse.pipeline.run import job

UIDS = ["a", "b", "c", "d"]
FOREIGN = '</script><img src=x onerror=alert(1)>\u2028 & "quoted"'
"""Caption of every object."""


def built(folder: Path) -> Path:
    """An output `out` of four balls with its page, built by the command line in this process beside its views."""
    manifest = write_inputs(folder, UIDS, caption=FOREIGN)
    arguments = ["fit-shard", "--manifest", manifest, "--out", str(folder / "out"), *tiny_arguments()]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(job, "ray_executor", in_process)
        assert cli.main(arguments) == 0
    return folder


def called(path: Path) -> Any:
    """The value that a script of the page hands over."""
    found = re.fullmatch(r"[a-z.]+\((.*)\);\n", path.read_text("ascii"))
    assert found
    return json.loads(found[1])


def rows_of(page: Path) -> list[dict[str, Any]]:
    """Rows of the gallery."""
    names = [column["name"] for column in called(page / "files" / "columns.js")["columns"]]
    files = sorted((page / "files").glob("objects-*.js"))
    return [dict(zip([*names, "place"], row, strict=True)) for file in files for row in called(file)]


def report(out: Path | str, *options: str | Path) -> int:
    return cli.main(["report", "--out", str(out), *map(str, options)])


def rewritten(path: Path, **values: list[object]) -> None:
    """Give columns of a table other values, as somebody else's dataset may have them."""
    table = pq.read_table(path)
    for name, given in values.items():
        k = table.column_names.index(name)
        column = table.schema.field(name)
        table = table.set_column(k, column.with_nullable(None in given), pa.array(given, column.type))
    pq.write_table(table, path)
