"""Whether a node has room in its memory."""

from __future__ import annotations

from pathlib import Path

_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
ENOUGH = 0.5
"""Share of a node's memory that must be free for a task that runs there alone to be blamed for what it takes."""


def memory_shortage(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> str:
    """Why a task on this node, on which no other runs, cannot be blamed if it is killed; "" if it can.

    Args:
        meminfo: Linux' file about the machine.
        cgroup: folder of this container's limits (Linux, cgroup v2).
    """
    for total, free in filter(None, (_of_machine(meminfo), _of_container(cgroup))):
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


def _of_container(cgroup: Path) -> tuple[int, int] | None:
    """Bytes of the container, and of them those that are free; its cache of files counts as free."""
    try:
        limit, used = (int((cgroup / name).read_text()) for name in ("memory.max", "memory.current"))
        counts = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return None
    cache = int(counts.get("inactive_file", 0)) + int(counts.get("active_file", 0))
    return limit, limit - used + cache
