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
    text = memory_shortage(machine(tmp_path, 64, free), tmp_path / "none", tmp_path / "none")
    assert bool(text) == short
    assert not short or f"{free}.0 of 64.0 GiB are free" in text


@pytest.mark.parametrize(
    ("limit", "used", "cached", "short"),
    [(str(8 << 30), 5, 0, True), (str(8 << 30), 5, 2, False), (str(8 << 30), 2, 0, False), ("max", 60, 0, False)],
)
def test_half_of_the_container_must_be_free_and_its_cache_counts_as_free(
    tmp_path: Path, limit: str, used: int, cached: int, short: bool
) -> None:
    found = memory_shortage(machine(tmp_path, 64, 60), container(tmp_path, limit, used, cached), tmp_path / "none")
    assert bool(found) == short


V1 = {"memory.limit_in_bytes": "memory.max", "memory.usage_in_bytes": "memory.current"}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("limited", ["slurm/job_1/step_0", "slurm/job_1", "slurm", ""])
def test_the_limit_of_every_group_above_this_process_counts(tmp_path: Path, version: int, limited: str) -> None:
    """Slurm limits a job, and the processes are in a step of it; a container's own group is mounted as the root."""
    mount = tmp_path / "cgroup" / ("memory" if version == 1 else "")
    group = mount / limited
    group.mkdir(parents=True)
    container(group, str(8 << 30), 5, 0)
    if version == 1:
        for name, of_two in V1.items():
            (group / of_two).rename(group / name)
    groups = tmp_path / "groups"
    other, named = ("9:name=systemd:/", "4:memory:") if version == 1 else ("1:cpu:/", "0::")
    groups.write_text(f"{other}\n{named}/slurm/job_1/step_0\n")
    assert "3.0 of 8.0 GiB are free" in memory_shortage(machine(tmp_path, 64, 60), tmp_path / "cgroup", groups)
    groups.write_text(f"{named}/elsewhere\n")
    assert bool(memory_shortage(machine(tmp_path, 64, 60), tmp_path / "cgroup", groups)) == (limited == "")


def test_no_limit_of_version_1_is_a_huge_one(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text(str(2**63 - 4096))
    (folder / "memory.usage_in_bytes").write_text(str(60 << 30))
    (folder / "memory.stat").write_text("total_inactive_file 0\n")
    assert memory_shortage(machine(tmp_path, 64, 60), tmp_path, tmp_path / "none") == ""


def test_the_cache_of_a_group_of_version_1_counts_as_free(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text(str(8 << 30))
    (folder / "memory.usage_in_bytes").write_text(str(6 << 30))
    (folder / "memory.stat").write_text(
        f"inactive_file 7\ntotal_inactive_file {1 << 30}\ntotal_active_file {2 << 30}\n"
    )
    assert memory_shortage(machine(tmp_path, 64, 60), tmp_path, tmp_path / "none") == ""


def test_where_nothing_is_known_a_task_can_be_blamed(tmp_path: Path) -> None:
    assert memory_shortage(tmp_path / "none", tmp_path / "none", tmp_path / "none") == ""
