"""The cache of compiled kernels: damaged, cut short, not writable, nowhere. Kernels run, with at most one warning."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gaussianverse.atlas import kernel_cache

KERNEL = """
from gaussianverse.atlas.compiled import kernel

@kernel(nogil=True)
def double(x):
    return 2 * x

@kernel(nogil=True)
def triple(x):
    return 3 * x
"""
PROGRAM = """
import kernels
value = kernels.double(2), kernels.triple(2)
print(*value, *(sum(f.stats.cache_hits.values()) for f in (kernels.double, kernels.triple)))
"""


def made(folder: Path) -> Path:
    (folder / "code").mkdir()
    (folder / "code" / "kernels.py").write_text(KERNEL)
    for name in ("home", "tmp"):
        (folder / name).mkdir()
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Sources without a cache."""
    return made(tmp_path)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = made(tmp_path_factory.mktemp("filled"))
    assert ran(place) == ([4, 6, 0, 0], [])
    return place


@pytest.fixture
def warm(filled: Path, tmp_path: Path) -> Path:
    """Sources and their cache."""
    return Path(shutil.copytree(filled, tmp_path / "warm"))


def ran(place: Path, before: str = "", **variables: str) -> tuple[list[int], list[str]]:
    """Both kernels' values and numbers of hits, and the lines on stderr."""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), str(place / "code")])
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "NUMBA_"))} | {
        "PYTHONPATH": paths, "HOME": str(place / "home"), "TMPDIR": str(place / "tmp"), **variables,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", before + PROGRAM], env=environment, capture_output=True, text=True, cwd=place
    )
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()], done.stderr.splitlines()


def cache(place: Path) -> Path:
    return place / "code" / "__pycache__"


def no_folder(path: Path) -> None:
    """Let nothing be written below `path`, whatever this user's rights."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("")


def emptied(data: bytes) -> bytes:
    return b""


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 4]) + data[-8:]


@pytest.mark.parametrize("damage", [emptied, cut, flipped])
def test_what_is_damaged_is_compiled_again_with_one_warning(warm: Path, damage: Callable[[bytes], bytes]) -> None:
    for name in ("*double*.nbi", "*triple*.nbc"):
        (path,) = cache(warm).glob(name)
        path.write_bytes(damage(path.read_bytes()))
    values, warnings = ran(warm)
    assert values == [4, 6, 0, 0]
    assert len(warnings) == 1
    assert "damaged" in warnings[0]
    if damage is cut:
        assert ran(warm) == ([4, 6, 1, 1], [])


def test_entries_without_a_sum_are_believed_and_those_that_are_gone_made_again(warm: Path) -> None:
    for path in cache(warm).glob("*double*.sha256"):
        path.unlink()
    (path,) = cache(warm).glob("*triple*.nbc")
    path.unlink()
    assert ran(warm) == ([4, 6, 1, 0], [])


def test_an_installation_that_cannot_be_written_to_uses_the_home(place: Path) -> None:
    no_folder(cache(place))
    assert ran(place) == ([4, 6, 0, 0], [])
    assert list((place / "home" / ".cache").rglob("*.nbc"))


@pytest.mark.parametrize("home", ["no folder", "not absolute"])
def test_without_a_home_a_private_folder_is_used_with_one_warning(place: Path, home: str) -> None:
    no_folder(cache(place))
    if home == "no folder":
        no_folder(place / "home" / ".cache")
    variables = {"HOME": "~"} if home == "not absolute" else {}
    for hits in (0, 1)[: 1 if variables else 2]:
        values, warnings = ran(place, **variables)
        assert values == [4, 6, hits, hits]
        assert len(warnings) == 1
        assert "set NUMBA_CACHE_DIR" in warnings[0]
    (private,) = (place / "tmp").iterdir()
    assert str(private) in warnings[0]
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert not (place / "~").exists()


def test_where_nothing_can_be_kept_kernels_are_compiled_with_one_warning(place: Path) -> None:
    no_folder(cache(place))
    no_folder(place / "home" / ".cache")
    nowhere = "from gaussianverse.atlas import kernel_cache\nkernel_cache.private_folder = lambda: ''\n"
    values, warnings = ran(place, nowhere)
    assert values == [4, 6, 0, 0]
    assert len(warnings) == 1
    assert "cannot be kept anywhere" in warnings[0]


def test_a_disk_that_is_full_when_a_kernel_is_kept_moves_the_cache(place: Path) -> None:
    full = """
import os
from numba.core import caching
dump = caching.IndexDataCacheFile._save_index
def fails(self, overloads):
    if "__pycache__" in self._cache_path:
        raise OSError(28, "No space left on device")
    dump(self, overloads)
caching.IndexDataCacheFile._save_index = fails
"""
    values, warnings = ran(place, full)
    assert values == [4, 6, 0, 0]
    assert len(warnings) == 1
    assert list((place / "tmp").rglob("*.nbc"))


def private(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    kernel_cache.private_folder.cache_clear()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    try:
        return Path(kernel_cache.private_folder())
    finally:
        kernel_cache.private_folder.cache_clear()


def test_a_private_folder_is_used_again_only_if_nobody_else_can_enter_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = private(tmp_path, monkeypatch)
    assert private(tmp_path, monkeypatch) == first
    first.chmod(0o755)
    second = private(tmp_path, monkeypatch)
    assert second != first
    assert stat.S_IMODE(second.stat().st_mode) == 0o700
    first.rmdir()
    first.symlink_to(second)
    assert private(tmp_path, monkeypatch) not in (first, second)
    first.unlink()
    first.mkdir(0o700)
    real = os.geteuid()
    monkeypatch.setattr(os, "lstat", lambda path: os.stat_result((0o40700, 0, 0, 0, real + 1, 0, 0, 0, 0, 0)))
    assert private(tmp_path, monkeypatch) != first


def test_without_any_folder_for_temporary_files_there_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert kernel_cache.private_folder
    monkeypatch.setattr(os, "mkdir", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    assert str(private(tmp_path, monkeypatch)) == "."
