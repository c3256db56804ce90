"""Imports: the prefix, the contracts of .importlinter, and what a start of Python may load."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
ROOMS = ("atlas", "examples", "fitter", "manifests", "pipeline")
# seconds each, and none is needed to tell a version or to print help
HEAVY = {"boto3", "llvmlite", "numba", "numpy", "pyarrow", "ray", "scipy", "torch"}


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("line", ["import {}", "import {}.errors", "from {} import errors", "from {}.a import b"])
def test_an_import_without_the_prefix_is_refused(room: str, line: str) -> None:
    command = [str(BIN / "ruff"), "check", "--select", "TID251", "--stdin-filename", "tests/written.py", "-"]
    done = subprocess.run(command, cwd=ROOT, input=f"{line.format(room)}\n", capture_output=True, text=True)
    assert done.returncode == 1
    assert "TID251" in done.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("fitter/views.py", "import gaussianverse.pipeline.policy", "pipeline > fitter > atlas"),
        ("atlas/arrays.py", "import gaussianverse.fitter.errors", "pipeline > fitter > atlas"),
        ("atlas/arrays.py", "import gaussianverse.atlas.reader.order", "atlas: "),
        ("atlas/arrays.py", "def later():\n    import torch", "torch"),
        ("manifests/jsonl.py", "import gaussianverse.fitter.errors", "pipeline > fitter > atlas"),
        ("pipeline/store/publish.py", "import gaussianverse.pipeline.run.inputs", "pipeline: "),
        ("pipeline/policy.py", "import ray", "Ray"),
        ("fitter/ranking.py", "import gaussianverse.fitter.growth", "no circles"),
        ("pipeline/spare.py", "", "pipeline: "),  # a module that no layer names
    ],
)
def test_a_broken_contract_is_found_behind_the_links(module: str, line: str, contract: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "gaussianverse", tmp_path / "gaussianverse", symlinks=True)
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__", "sample"))
    shutil.copy(ROOT / ".importlinter", tmp_path)
    with (tmp_path / module).open("a") as file:
        file.write(f"\n{line}\n")
    assert any(name.startswith(contract) for name in broken_contracts(tmp_path))


def broken_contracts(folder: Path) -> list[str]:
    """Names of the contracts that are broken."""
    command = [str(BIN / "lint-imports"), "--no-cache", "--no-logo"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return [line.split(" BROKEN")[0] for line in done.stdout.splitlines() if " BROKEN" in line]


@pytest.mark.parametrize(
    "program",
    [
        "import gaussianverse",
        "from gaussianverse.pipeline.cli import main; main(['--help'])",
        "from gaussianverse.pipeline.cli import main; main(['--version'])",
    ],
)
def test_a_start_loads_nothing_heavy(program: str) -> None:
    program = f"import sys; {program}; print('loaded:', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split("loaded:")[1].split()}
    assert not loaded & HEAVY
