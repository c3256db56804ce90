"""Decisions as pure functions: whether to retry a failed task, quarantine its object, or stop the run."""

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
"""Reasons of quarantine; a closed list."""

INFRASTRUCTURE = "infrastructure"
"""Reason of a task that failed because of the store or the machine; never quarantines its object."""
DAMAGED = "damaged"
"""Reason of a task whose fragment is damaged or missing: reading it again may help; never quarantines its object."""
CONFLICT = "conflict"
"""Reason of a task that found other bytes under a key than its own; ends the run."""


def failed(reason: str, error: BaseException | str) -> dict[str, Any]:
    """Result of a failed task."""
    kind = type(error).__name__ if isinstance(error, BaseException) else ""
    return {"status": "failed", "reason": reason, "error_class": kind, "error_message": message(error)}


@dataclass(frozen=True)
class PolicyConfig:
    """Retries, deadlines and limits of a run. May differ between two calls that work on one output."""

    infrastructure_retries: int = 20
    cuda_retries: int = 2
    nan_retries: int = 1
    """Each with another seed."""
    memory_retries: int = 1
    timeout_retries: int = 1
    unknown_retries: int = 1
    damage_retries: int = 2
    kills: int = 3
    """An object that has killed this many workers is quarantined."""
    pause_s: float = 1.0
    """Before the first retry after an infrastructure failure; doubles up to `pause_max_s`."""
    pause_max_s: float = 60.0
    breaker_window: int = 200
    breaker_fraction: float = 0.2
    breaker_store_failures: int = 10
    fit_deadline_s: float = 3600.0
    """Checked by the fit itself at every step."""
    atlas_deadline_s: float = 600.0
    pack_deadline_s: float = 1800.0
    grace_s: float = 120.0
    """Added to a deadline before the driver cancels the task by force."""
    stall_s: float = 1800.0
    """The run ends if tasks are under way and none has ended for this long beyond every deadline."""
    window: int = 2
    """Tasks under way per slot."""
    repeat_after_s: float = 300.0
    """At the end of a run, a task older than this is started a second time on an idle slot; 0 = never."""


@dataclass(frozen=True)
class History:
    """Failure counts of one task, by reason."""

    counts: Mapping[str, int] = field(default_factory=dict)

    def after(self, reason: str) -> History:
        """The history with one more failure for `reason`."""
        return History({**self.counts, reason: self.count(reason) + 1})

    def count(self, reason: str) -> int:
        """Number of failures for `reason`."""
        return self.counts.get(reason, 0)

    @property
    def attempts(self) -> int:
        """Number of failed attempts."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class Retry:
    """Try the task again after `pause_s` seconds."""

    pause_s: float = 0.0


@dataclass(frozen=True)
class Quarantine:
    """Quarantine the object for this reason and continue with the others."""

    reason: str


@dataclass(frozen=True)
class Stop:
    """End the run and quarantine nothing, since the object did not cause the failures."""

    message: str


Decision = Retry | Quarantine | Stop


def retries_of(reason: str, config: PolicyConfig) -> int:
    """Number of retries of a task that failed for this reason."""
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
    """Decide about a task that has just failed for `reason`, a failure that `history` already counts."""
    if reason not in (INFRASTRUCTURE, DAMAGED, *REASONS):
        reason = "unknown"
    if history.count(reason) <= retries_of(reason, config):
        if reason != INFRASTRUCTURE:
            return Retry()
        return Retry(min(config.pause_max_s, config.pause_s * 2 ** (history.count(reason) - 1)))
    if reason in (INFRASTRUCTURE, DAMAGED):
        return Stop(f"failed {history.count(reason)} times because of the store or the machine")
    return Quarantine(reason)


class Breaker:
    """Stops a run whose failures look like an outage rather than like bad objects.

    By default it opens when more than 20 % of the last 200 objects were quarantined, or after ten infrastructure
    failures without a success in between. A small run never fills the window, so a few bad objects cannot stop it.
    """

    def __init__(self, config: PolicyConfig) -> None:
        self._config = config
        self._recent: deque[bool] = deque(maxlen=config.breaker_window)
        self._store_failures = 0

    def finished(self, quarantined: bool) -> str | None:
        """Record a finished object; returns why the run must stop, or None."""
        self._store_failures = 0
        self._recent.append(quarantined)
        bad, limit = sum(self._recent), self._config.breaker_fraction * self._config.breaker_window
        if len(self._recent) == self._config.breaker_window and bad > limit:
            return f"{bad} of the last {len(self._recent)} objects were quarantined"
        return None

    def infrastructure(self) -> str | None:
        """Record an infrastructure failure; returns why the run must stop, or None."""
        self._store_failures += 1
        if self._store_failures >= self._config.breaker_store_failures:
            return f"{self._store_failures} infrastructure failures in a row"
        return None


def seed_of(config_seed: int, uid: str, nan_losses: int) -> int:
    """Seed of a fit, 31 bits: a function of the object and of how often its loss has become NaN."""
    return int.from_bytes(sha256(f"{config_seed}/{uid}/{nan_losses}".encode()).digest()[:4], "big") >> 1


def deadline_of(kind: str, config: PolicyConfig) -> float:
    """Seconds after its start at which the driver cancels a task of this kind by force."""
    soft = {"fit": config.fit_deadline_s, "atlas": config.atlas_deadline_s, "pack": config.pack_deadline_s}
    return soft[kind] + config.grace_s


def repeats(ages: Sequence[float], idle: int, config: PolicyConfig) -> list[int]:
    """Indices of the tasks to start a second time: the oldest, one per idle slot. `ages` are in seconds."""
    if config.repeat_after_s <= 0:
        return []
    old = [k for k, age in enumerate(ages) if age >= config.repeat_after_s]
    return sorted(old, key=lambda k: -ages[k])[: max(0, idle)]


def ordered_shards(shards: str, n_shards: int) -> list[int]:
    """Shard numbers from "3", "0-9" or "0-9,12", ascending, each once; "" = all.

    Raises:
        UsageError: the text has another form, or a shard does not exist.
    """
    if not shards:
        return list(range(n_shards))
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
