"""Device time that a dataset took, from its journals and the summaries of its calls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from gaussianverse.atlas.canonical_json import json_object
from gaussianverse.atlas.dataset_format import OK
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.errors import PipelineError

YEAR = 365.25 * 24 * 3600


@dataclass
class Spent:
    """Seconds of one stage on one kind of device."""

    kept: float = 0.0
    """Sum over the attempts whose result is in the dataset."""
    lost: float = 0.0
    """Sum over failed attempts, estimated: see `Cost.add`."""
    objects: int = 0
    """Objects in the dataset."""


@dataclass
class Cost:
    """Device time by stage and device, e.g. `by_device["splats", "cpu"]`."""

    by_device: dict[tuple[str, str], Spent] = field(default_factory=lambda: defaultdict(Spent))
    _given_up: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, stage: str, entries: Iterable[Facts]) -> None:
        """Add the journal of a shard.

        The journal has the seconds of the attempt that counts, and the number of attempts. A failed attempt before it
        is taken to have lasted as long. An object that was taken over has none: another journal has its seconds.
        """
        for entry in entries:
            if int(entry["attempts"]) == 0:
                continue
            attempts = max(0, int(entry["attempts"]))
            if entry["status"] != OK:
                self._given_up[stage] += attempts
                continue
            seconds = max(0.0, float(entry["seconds"]))
            spent = self.by_device[stage, str(entry["device"]) or "cpu"]
            spent.kept += seconds
            spent.lost += seconds * max(0, attempts - 1)
            spent.objects += 1

    def years(self, storage: Storage) -> dict[str, Any]:
        """Device-years, of 365.25 days.

        Returns:
            by_device: {"splats on cpu": {kept, lost, objects}}; kept and lost, their sums over stages and devices;
            given_up_attempts of quarantined objects, whose seconds no journal has; held, slots times wall time of all
            calls, from their summaries: it includes every lost attempt, and the time that slots waited.
        """
        rows = {
            f"{stage} on {device}": {"kept": s.kept / YEAR, "lost": s.lost / YEAR, "objects": s.objects}
            for (stage, device), s in sorted(self.by_device.items())
        }
        return {
            "by_device": rows,
            "kept": sum(s.kept for s in self.by_device.values()) / YEAR,
            "lost": sum(s.lost for s in self.by_device.values()) / YEAR,
            "given_up_attempts": sum(self._given_up.values()),
            "held": _held(storage) / YEAR,
        }


def _held(storage: Storage) -> float:
    seconds = 0.0
    for entry in storage.list(f"{layout.JOURNAL}summary-"):
        try:
            found = json_object(storage.get(entry.key), PipelineError).get("slot_seconds", 0.0)
        except PipelineError:
            continue  # a damaged summary is verify's to report
        seconds += float(found) if isinstance(found, int | float) else 0.0
    return seconds
