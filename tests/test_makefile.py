"""The first command of a newcomer: what is wrong with the Python is one line with the mend."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make")

PYTHON = f"""#!/bin/sh
case "$2" in {{case}}) exit 1;; esac
exec {sys.executable} "$@"
"""


def made(target: str, python: str, folder: Path) -> str:
    """What `make` says on stderr; it must fail and make nothing."""
    command = ["make", target, f"PYTHON={python}", f"VENV={folder / 'venv'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert not (folder / "venv").exists()
    return done.stderr


def lacking(case: str, folder: Path) -> str:
    """A Python that fails where the program that it is given contains the words of a case of sh."""
    file = folder / "python"
    file.write_text(PYTHON.format(case=case))
    file.chmod(0o755)
    return str(file)


def test_a_python_that_is_not_there_is_named_with_the_package_and_the_option(tmp_path: Path) -> None:
    said = made("fit-shard", "python3.99", tmp_path)
    assert said.startswith("error: python3.99 not found. Install Python 3.11 (Debian, Ubuntu: apt-get install ")
    assert "make fit-shard PYTHON=python3" in said
    assert "127" not in said


def test_a_python_that_is_too_old_is_named_with_its_version(tmp_path: Path) -> None:
    python = lacking("*'< (3, 11)'*", tmp_path)
    version = sys.version.split()[0]
    assert made("test", python, tmp_path).startswith(f"error: {python} is Python {version}, and 3.11 is the least. ")


def test_debians_python_without_venv_is_named_with_the_package(tmp_path: Path) -> None:
    python = lacking("*ensurepip*", tmp_path)
    said = made("setup", python, tmp_path)
    assert said.startswith(f"error: {python} cannot make environments")
    assert f"apt-get install python3.{sys.version_info[1]}-venv" in said


def test_a_python_that_has_all_goes_on_to_the_environment() -> None:
    done = subprocess.run(
        ["make", "--dry-run", "setup", f"PYTHON={sys.executable}", "VENV=/none/venv"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    checks = [line for line in done.stdout.splitlines() if line.startswith("@") or "error:" in line]
    for check in checks:
        assert subprocess.run(["sh", "-c", check.removeprefix("@")], capture_output=True).returncode == 0
    assert len(checks) == 3
    assert f"{sys.executable} -m venv /none/venv" in done.stdout
