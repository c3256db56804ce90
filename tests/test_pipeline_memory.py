"""Room in a node's memory, by the files of Linux."""

from __future__ import annotations

from pathlib import Path

import pytest

from gaussianverse.pipeline.node.memory import memory_shortage

GIB = 1 << 20  # kiB


def machine(folder: Path, total: int, free: int) -> Path:
    path = folder / "meminfo"
    path.write_text(f"MemTotal:  {total * GIB} kB\nMemFree: 5 kB\nMemAvailable:  {free * GIB} kB\n")
    return path


def container(folder: Path, limit: str, used: int, cached: int) -> Path:
    (folder / "memory.max").write_text(limit)
    (folder / "memory.current").write_text(str(used << 30))
    stat = f"anon 7\ninactive_file {cached << 29}\nactive_file {cached << 29}\n"
    (folder / "memory.stat").write_text(stat)
    return folder


@pytest.mark.parametrize(("free", "short"), [(64, False), (32, False), (31, True), (0, True)])
def test_half_of_the_machine_must_be_free(tmp_path: Path, free: int, short: bool) -> None:
    text = memory_shortage(machine(tmp_path, 64, free), tmp_path / "none")
    assert bool(text) == short
    assert not short or f"{free}.0 of 64.0 GiB are free" in text


@pytest.mark.parametrize(
    ("limit", "used", "cached", "short"),
    [(str(8 << 30), 5, 0, True), (str(8 << 30), 5, 2, False), (str(8 << 30), 2, 0, False), ("max", 60, 0, False)],
)
def test_half_of_the_container_must_be_free_and_its_cache_counts_as_free(
    tmp_path: Path, limit: str, used: int, cached: int, short: bool
) -> None:
    found = memory_shortage(machine(tmp_path, 64, 60), container(tmp_path, limit, used, cached))
    assert bool(found) == short


def test_where_nothing_is_known_a_task_can_be_blamed(tmp_path: Path) -> None:
    assert memory_shortage(tmp_path / "none", tmp_path / "none") == ""
