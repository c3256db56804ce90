"""Damaged and contradictory files of every kind: each is read or gives the reader's named error, in 10 s and 1 GB.

A sample by default, and 300 of each kind by `make fuzz`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_files import NAMES, SECONDS, kinds
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
SEARCH = settings.default.max_examples > 1000
MANY = 300
COUNT = MANY if SEARCH else 20


def test_every_kind_is_tried() -> None:
    assert tuple(kinds()) == NAMES
    assert MANY * len(NAMES) >= 3000


@pytest.mark.hypothesis
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measures memory in /proc")
@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_give_named_errors(name: str) -> None:
    """A reader that hangs in native code is ended from here, and the last number on stderr is its input's."""
    command = [sys.executable, str(ROOT / "tests" / "fuzz_files.py"), name, "0", str(COUNT)]
    limit = 120 + COUNT + SECONDS
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit, env=os.environ)
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert outcomes["others"] == []
    assert outcomes["read"] + outcomes["named"] == COUNT
    assert outcomes["named"] > COUNT // 4
