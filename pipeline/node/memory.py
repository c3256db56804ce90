"""Whether a node has room in its memory: that of the machine, and that of every group of processes with a limit.

Containers, Slurm and systemd give a job less than the machine by groups of processes (cgroups, version 1 or 2); the
kernel kills for the smallest of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_MEMINFO, _CGROUP, _GROUPS = Path("/proc/meminfo"), Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
ENOUGH = 0.5
"""Share of a node's memory that must be free for a task that runs there alone to be blamed for what it takes."""


def memory_shortage(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP, groups: Path = _GROUPS) -> str:
    """Why a task on this node, on which no other runs, cannot be blamed if it is killed; "" if it can.

    Args:
        meminfo: Linux' file about the machine.
        cgroup: folder where the limits of groups of processes are mounted.
        groups: Linux' file about the groups that this process is in.
    """
    counted = [_of_machine(meminfo), *(_of_group(*found) for found in _groups(cgroup, groups))]
    for total, free in filter(None, counted):
        if free < ENOUGH * total:
            return (
                f"the node is short of memory: {free / 2**30:.1f} of {total / 2**30:.1f} GiB are free while no other "
                "task of this run is on it; end what else uses it"
            )
    return ""


def _of_machine(meminfo: Path) -> tuple[int, int] | None:
    """Bytes of the machine, and of them those that are free."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return tuple(int(lines[name].split()[0]) << 10 for name in ("MemTotal", "MemAvailable"))  # type: ignore[return-value]
    except (OSError, KeyError, ValueError):
        return None


_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
_V2 = ("memory.max", "memory.current", "")
"""Names of the files of a limit and of what is used, and what the names of counts of the whole group begin with."""


def _groups(cgroup: Path, groups: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Folders of the group of this process and of those that it is in, with the names of their files.

    In a container its own group is mounted as the root, and the group's path may be that outside.
    """
    try:
        lines = [line.split(":", 2) for line in groups.read_text().splitlines()]
    except OSError:
        lines = []
    for version, mount, controllers in ((_V2, cgroup, ""), (_V1, cgroup / "memory", "memory")):
        paths = [line[2] for line in lines if len(line) == 3 and controllers in line[1].split(",")]
        yield from ((mount / folder, version) for folder in _and_above(paths[0] if paths else "/"))


def _and_above(path: str) -> Iterator[Path]:
    below = Path(path.strip("/"))
    yield from (below, *below.parents) if below.parts else [below]


def _of_group(folder: Path, names: tuple[str, str, str]) -> tuple[int, int] | None:
    """Bytes of a group of processes, and of them those that are free; its cache of files counts as free."""
    limit_name, used_name, whole = names
    try:
        limit, used = (int((folder / name).read_text()) for name in (limit_name, used_name))
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such group, or "max"
        return None
    cache = int(counts.get(f"{whole}inactive_file", 0)) + int(counts.get(f"{whole}active_file", 0))
    return limit, limit - used + cache
