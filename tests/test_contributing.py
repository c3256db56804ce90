"""CONTRIBUTING.md as far as it can be held to the code: files, targets and the list of slow tests."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def test_every_file_that_it_names_exists() -> None:
    named = set(re.findall(r"`([\w./-]+\.(?:py|md|toml|txt|yml))`", TEXT))
    assert len(named) > 15
    assert not [name for name in named if not ((ROOT / name).exists() or (ROOT / "tests" / name).exists())]


def test_every_target_that_it_names_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"\bmake ([a-z-]+[a-z])\b", TEXT)) - {"bench"}
    assert {"setup", "lint", "test", "docs"} <= named
    assert named <= targets


def test_it_lists_the_files_with_slow_tests() -> None:
    slow = {
        path.name
        for path in (ROOT / "tests").glob("test_*.py")
        if re.search(r"\bpytest\.mark\.slow\b", path.read_text())
    }
    assert set(re.findall(r"^\| `(test_\w+\.py)` \|", TEXT, re.M)) == slow


def test_the_tests_run_in_a_checkout_of_any_name(tmp_path: Path) -> None:
    """pytest counts the names of the folders above a test among its keywords."""
    checkout = tmp_path / "slow"
    checkout.mkdir()
    shutil.copy(ROOT / "tests" / "conftest.py", checkout)
    (checkout / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    (checkout / "test_one.py").write_text(
        "from pytest import mark\ndef test_quick(): pass\n@mark.slow\ndef test_slow(): assert False\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(checkout)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=120)
    assert "1 passed, 1 skipped" in done.stdout, done.stdout + done.stderr
