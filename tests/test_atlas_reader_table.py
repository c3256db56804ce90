"""The tables of docs/reading.md: each row names tests, and all of them exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from markdown_pages import page_of

ROOT = Path(__file__).resolve().parents[1]
TABLES = [table for table in page_of((ROOT / "docs/reading.md").read_text()).tables if table[0][-1] == "test"]
LOOPS = ("AtlasLoader", "DataLoader", "StatefulDataLoader", "torchrun", "accelerate", "Lightning", "Trainer")


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table[0][0])
def test_each_row_names_tests_that_exist(table: list[list[str]]) -> None:
    for row in table[1:]:
        named = re.findall(r"(\w+)::(\w+)", row[-1])
        assert named, row
        for file, test in named:
            assert re.search(rf"^def {test}\(", (ROOT / "tests" / f"{file}.py").read_text(), re.M), (file, test)


def test_the_tables_are_there() -> None:
    assert [table[0][0] for table in TABLES] == ["promise", "epochs of another length", "loop"]
    rows = [row[0] for row in TABLES[-1][1:]]
    assert all(any(loop in row for row in rows) for loop in LOOPS)


def test_all_tests_of_loops_stand_in_the_table() -> None:
    """A test of a library that no row names would promise something in secret."""
    rows = " ".join(row[-1] for table in TABLES for row in table[1:])
    for file in ("ranks", "trainer"):
        text = (ROOT / f"tests/test_atlas_reader_{file}.py").read_text()
        for test in re.findall(r"^def (test_\w+)\(", text, re.M):
            assert f"test_atlas_reader_{file}::{test}" in rows
