"""Decisions, as functions of values: what a fault means, whether to try again, when to stop everything."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from gaussianverse.pipeline.errors import UsageError, message

REASONS = (
    "bad_input", "missing_views", "decode_error", "too_few_gaussians", "nan_loss", "low_psnr", "cuda_error",
    "out_of_memory", "timeout", "worker_killed", "transport_failed", "rough_atlas", "unknown",
)  # fmt: skip
"""Why an object may be quarantined; a closed list."""

INFRASTRUCTURE = "infrastructure"
"""What a task reports when the store or the machine failed it; never a reason to quarantine."""
DAMAGED = "damaged"
"""What a task reports when a fragment is wrong or gone: reading again may help, condemning the object would not."""
CONFLICT = "conflict"
"""What a task reports when it met other bytes than it must under a key; ends the run."""


def failed(reason: str, fault: BaseException | str) -> dict[str, Any]:
    """The result of a task that did not do its work."""
    kind = type(fault).__name__ if isinstance(fault, BaseException) else ""
    return {"status": "failed", "reason": reason, "error_class": kind, "error_message": message(fault)}


@dataclass(frozen=True)
class PolicyConfig:
    """How patient a run is. May differ between two runs of the same work."""

    infrastructure_retries: int = 20
    cuda_retries: int = 2
    nan_retries: int = 1
    """Each with another seed."""
    memory_retries: int = 1
    timeout_retries: int = 1
    unknown_retries: int = 1
    damage_retries: int = 2
    kills: int = 3
    """An object that has brought down this many workers is quarantined."""
    pause_s: float = 1.0
    """Before the first retry after an infrastructure fault; doubles up to `pause_max_s`."""
    pause_max_s: float = 60.0
    breaker_window: int = 200
    breaker_fraction: float = 0.2
    breaker_store_failures: int = 10
    fit_deadline_s: float = 3600.0
    """Checked by the fit itself at every step."""
    atlas_deadline_s: float = 600.0
    pack_deadline_s: float = 1800.0
    grace_s: float = 120.0
    """On top of a deadline, before the driver cancels the task by force."""
    stall_s: float = 1800.0
    """With work under way and nothing finished for this long beyond every deadline, the run gives up."""
    window: int = 2
    """Tasks under way per slot."""
    repeat_after_s: float = 300.0
    """At the tail a task that has run for this long is started a second time on an idle slot; 0 = never."""


@dataclass(frozen=True)
class History:
    """How often what went wrong with one task so far: {reason: count}."""

    counts: Mapping[str, int] = field(default_factory=dict)

    def after(self, reason: str) -> History:
        """With one more of `reason`."""
        return History({**self.counts, reason: self.counts.get(reason, 0) + 1})

    def count(self, reason: str) -> int:
        """How often this reason was seen."""
        return self.counts.get(reason, 0)

    @property
    def attempts(self) -> int:
        """How many attempts have failed."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class Retry:
    """Try again after `pause_s` seconds."""

    pause_s: float = 0.0


@dataclass(frozen=True)
class Quarantine:
    """The object itself is at fault: record this reason, go on with the others."""

    reason: str


@dataclass(frozen=True)
class Stop:
    """The surroundings are at fault: end the run, condemn nothing."""

    why: str


Decision = Retry | Quarantine | Stop


def retries_of(reason: str, config: PolicyConfig) -> int:
    """How often a task that failed for this reason is tried again."""
    return {
        INFRASTRUCTURE: config.infrastructure_retries,
        "cuda_error": config.cuda_retries,
        "nan_loss": config.nan_retries,
        "out_of_memory": config.memory_retries,
        "timeout": config.timeout_retries,
        "unknown": config.unknown_retries,
        DAMAGED: config.damage_retries,
        "worker_killed": config.kills - 1,
    }.get(reason, 0)


def decide(reason: str, history: History, config: PolicyConfig) -> Decision:
    """What to do about a task that has just failed for `reason`; `history` holds this failure already."""
    if reason not in (INFRASTRUCTURE, DAMAGED, *REASONS):
        reason = "unknown"
    if history.count(reason) <= retries_of(reason, config):
        if reason != INFRASTRUCTURE:
            return Retry()
        return Retry(min(config.pause_max_s, config.pause_s * 2 ** (history.count(reason) - 1)))
    if reason in (INFRASTRUCTURE, DAMAGED):
        return Stop(f"it failed {history.count(reason)} times for reasons that are not its own")
    return Quarantine(reason)


class Breaker:
    """Opens when outcomes look like an outage rather than like bad objects.

    Twenty per cent of the last 200 in quarantine, or ten infrastructure faults with no success in between.
    A small job never fills the window, so a handful of bad objects cannot stop it.
    """

    def __init__(self, config: PolicyConfig) -> None:
        self._config = config
        self._recent: deque[bool] = deque(maxlen=config.breaker_window)
        self._store_failures = 0

    def finished(self, quarantined: bool) -> str | None:
        """Record an object's end; why the run must stop, or None."""
        self._store_failures = 0
        self._recent.append(quarantined)
        bad, limit = sum(self._recent), self._config.breaker_fraction * self._config.breaker_window
        if len(self._recent) == self._config.breaker_window and bad > limit:
            return f"{bad} of the last {len(self._recent)} objects ended in quarantine"
        return None

    def infrastructure(self) -> str | None:
        """Record an infrastructure fault; why the run must stop, or None."""
        self._store_failures += 1
        if self._store_failures >= self._config.breaker_store_failures:
            return f"{self._store_failures} infrastructure faults in a row"
        return None


def seed_of(config_seed: int, uid: str, nan_losses: int) -> int:
    """The seed of a fit: a function of the object, and of how often its loss has become NaN. 31 bits."""
    return int.from_bytes(sha256(f"{config_seed}/{uid}/{nan_losses}".encode()).digest()[:4], "big") >> 1


def deadline_of(kind: str, config: PolicyConfig) -> float:
    """Seconds after its start at which the driver cancels a task of this kind by force."""
    soft = {"fit": config.fit_deadline_s, "atlas": config.atlas_deadline_s, "pack": config.pack_deadline_s}
    return soft[kind] + config.grace_s


def repeats(ages: Sequence[float], idle: int, config: PolicyConfig) -> list[int]:
    """Which of the running tasks to start a second time: the oldest, one for each idle slot.

    Args:
        ages: seconds since each task was submitted.
        idle: slots without a task.
        config: how old a task must be.
    """
    if config.repeat_after_s <= 0:
        return []
    old = [k for k, age in enumerate(ages) if age >= config.repeat_after_s]
    return sorted(old, key=lambda k: -ages[k])[: max(0, idle)]


def ordered_shards(shards: str, n_shards: int) -> list[int]:
    """Shard numbers from "3", "0-9" or "0-9,12": ascending, each once.

    Raises:
        UsageError: not of this form, or a shard that does not exist.
    """
    wanted: set[int] = set()
    for part in shards.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"shards {shards!r}: expected numbers and ranges, such as 0-9,12")
        wanted.update(range(int(first), int(last or first) + 1))
    beyond = [k for k in wanted if k >= n_shards]
    if beyond or not wanted:
        raise UsageError(f"shards {shards!r}: the manifest has shards 0 to {n_shards - 1}")
    return sorted(wanted)
