"""Decisions as pure functions: whether to retry a failed task, quarantine its object, or stop the run."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from gaussianverse.pipeline.errors import UsageError, message

REASONS = (
    "bad_input", "missing_views", "unreadable", "inconsistent_views", "decode_error", "too_few_gaussians", "nan_loss",
    "low_psnr", "cuda_error", "out_of_memory", "timeout", "worker_killed", "transport_failed", "rough_atlas",
    "unknown",
)  # fmt: skip
"""Reasons of quarantine; a closed list."""

PROVISIONAL = frozenset({
    "missing_views", "unreadable", "decode_error", "cuda_error", "out_of_memory", "timeout", "worker_killed",
    "unknown",
})  # fmt: skip
"""Reasons that could come from outside. Such a verdict is held back until the rest of its shard is done and the run
is seen to be well; a run that stops before that has not quarantined the object."""

INFRASTRUCTURE = "infrastructure"
"""Reason of a task that failed because of the store or the machine; never quarantines its object."""
UNREAD = "unread"
"""Reason of a task that could not read its views, while it could read those of another object beside them. It becomes
`unreadable` when it stays with the object."""
DAMAGED = "damaged"
"""Reason of a task whose fragment is damaged or missing: reading it again may help; never quarantines its object."""
CONFLICT = "conflict"
"""Reason of a task that found other bytes under a key than its own; ends the run."""


def failed(reason: str, error: BaseException | str, *, lasting: bool = False) -> dict[str, Any]:
    """Result of a failed task.

    Args:
        reason: one of `REASONS`, or of those above.
        error: what happened.
        lasting: the cause stays until somebody mends it (a full disk, no permission), so that waiting is no use.
    """
    kind = type(error).__name__ if isinstance(error, BaseException) else ""
    result = {"status": "failed", "reason": reason, "error_class": kind, "error_message": message(error)}
    if isinstance(error, BaseException) and not type(error).__module__.startswith("gaussianverse."):
        # texts of others hold addresses, places and times of the machine; the journal keeps them
        result |= {"error_message": f"unexpected {kind}; the journal has its text", "error_text": message(error)}
    return {**result, "lasting": True} if lasting else result


def text_of(result: Mapping[str, Any]) -> str:
    """Text of a failed result: the one for the journal, where it has one of its own."""
    return str(result.get("error_text") or result["error_message"])


@dataclass(frozen=True)
class PolicyConfig:
    """Retries, deadlines and limits of a run. May differ between two calls that work on one output."""

    infrastructure_retries: int = 20
    """Retries of a task that failed because of the store or the machine; at least 0."""
    cuda_retries: int = 2
    """Retries after an error of CUDA; at least 0."""
    nan_retries: int = 1
    """Retries of a fit whose loss was not finite, each with another seed; at least 0."""
    memory_retries: int = 1
    """Retries of a task that ran out of memory; at least 0."""
    timeout_retries: int = 1
    """Retries of a task that passed its deadline; at least 0."""
    unknown_retries: int = 1
    """Retries after an error that has no name; at least 0."""
    damage_retries: int = 2
    """Retries of a task whose fragment is damaged or missing; at least 0."""
    unread_tries: int = 5
    """Tries, with pauses that double, after which views that cannot be read, while others can, are the object's
    fault; at least 1."""
    kills: int = 3
    """An object that has killed this many workers, and another one when it ran alone on its node, is quarantined; at
    least 1."""
    pause_s: float = 1.0
    """Seconds before the first retry of such a task; doubles up to `pause_max_s`; at least 0."""
    pause_max_s: float = 60.0
    """Longest pause before such a retry, in seconds; at least 0."""
    breaker_window: int = 200
    """Number of the last objects of which `breaker_fraction` is taken; at least 0."""
    breaker_fraction: float = 0.2
    """The run stops if more than this share of the last `breaker_window` objects is quarantined; 0 to 1."""
    breaker_streak: int = 8
    """The run stops if so many objects in a row fail for one reason that could come from outside; 0 = never."""
    breaker_store_failures: int = 10
    """Failures of the store or the machine in a row that stop the run, see `breaker_store_s`; at least 0."""
    breaker_store_s: float = 120.0
    """The run stops if the store or the machine fails `breaker_store_failures` times in a row, for at least so many
    seconds; at once where waiting is no use; at least 0."""
    memory_calm_s: float = 300.0
    """Seconds without a kill after which half of the slots lost to kills for memory is given back; at least
    0."""
    fit_deadline_s: float = 3600.0
    """Seconds that a fit may take, checked by itself at every step; at least 0."""
    atlas_deadline_s: float = 600.0
    """Seconds that the atlas of an object may take; at least 0."""
    pack_deadline_s: float = 1800.0
    """Seconds that packing a shard may take; at least 0."""
    grace_s: float = 120.0
    """Seconds added to a deadline before the driver cancels the task by force; at least 0."""
    stall_s: float = 1800.0
    """The run ends if tasks are under way and none has ended for so many seconds beyond every
    deadline; at least 0."""
    window: int = 2
    """Tasks under way per slot; at least 1."""
    repeat_after_s: float = 300.0
    """At the end of a run, a task older than so many seconds is started a second time on an idle slot; 0 = never."""


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


@dataclass(frozen=True)
class Alone:
    """Run the task once with nothing else on its node: others may have taken the memory."""


Decision = Retry | Quarantine | Stop | Alone


def retries_of(reason: str, config: PolicyConfig) -> int:
    """Number of retries of a task that failed for this reason."""
    return {
        INFRASTRUCTURE: config.infrastructure_retries,
        "cuda_error": config.cuda_retries,
        "nan_loss": config.nan_retries,
        "out_of_memory": config.memory_retries,
        "timeout": config.timeout_retries,
        "unknown": config.unknown_retries,
        UNREAD: config.unread_tries - 1,
        DAMAGED: config.damage_retries,
        "worker_killed": config.kills - 1,
    }.get(reason, 0)


KILLS = frozenset({"out_of_memory", "worker_killed"})
"""Reasons that the other tasks of a node may be the cause of."""


def decide(reason: str, history: History, config: PolicyConfig, *, alone: bool = False) -> Decision:
    """Decide about a task that has just failed for `reason`, a failure that `history` already counts.

    `alone`: it had its node for itself.
    """
    if reason not in (INFRASTRUCTURE, UNREAD, DAMAGED, *REASONS):
        reason = "unknown"
    if reason in KILLS and alone:
        return Quarantine(reason)
    if history.count(reason) <= retries_of(reason, config):
        if reason not in (INFRASTRUCTURE, UNREAD):
            return Retry()
        return Retry(min(config.pause_max_s, config.pause_s * 2 ** (history.count(reason) - 1)))
    if reason in KILLS:
        return Alone()
    if reason in (INFRASTRUCTURE, DAMAGED):
        return Stop(f"failed {history.count(reason)} times because of the store or the machine")
    return Quarantine("unreadable" if reason == UNREAD else reason)


class Breaker:
    """Stops a run whose failures look like an outage rather than like bad objects.

    By default it opens when more than 20 % of the last 200 objects failed, when eight in a row failed in one stage
    for one reason that could come from outside, or after ten infrastructure failures without a success in between
    that took two minutes, or that waiting does not mend. A small run never fills the window, so a few bad objects
    cannot stop it.
    """

    def __init__(self, config: PolicyConfig) -> None:
        self._config = config
        self._recent: deque[bool] = deque(maxlen=config.breaker_window)
        self._streaks: dict[str, tuple[str, int]] = {}
        self._store_failures, self._lasting, self._since = 0, 0, 0.0

    def succeeded(self, stage: str) -> None:
        """Record that a task did its work; `stage` is "" for one that is of no object."""
        self._store_failures = self._lasting = 0
        self._streaks.pop(stage, None)

    def finished(self, quarantined: bool) -> str | None:
        """Record an object that is complete or was given up; returns why the run must stop, or None."""
        self._recent.append(quarantined)
        bad, limit = sum(self._recent), self._config.breaker_fraction * self._config.breaker_window
        if len(self._recent) == self._config.breaker_window and bad > limit:
            return f"{bad} of the last {len(self._recent)} objects were quarantined"
        return None

    def gave_up(self, stage: str, reason: str) -> str | None:
        """Record that an object is to be quarantined; returns why the run must stop, or None."""
        self._store_failures = self._lasting = 0
        if reason not in PROVISIONAL:
            self._streaks.pop(stage, None)
        else:
            before, count = self._streaks.get(stage, (reason, 0))
            self._streaks[stage] = reason, count + 1 if before == reason else 1
        outage = self.finished(True)
        _, count = self._streaks.get(stage, ("", 0))
        if 0 < self._config.breaker_streak <= count:
            return (
                f"{count} objects in a row failed as {reason}, which looks like a fault of the machine (if the "
                "objects are really so: --set policy.breaker_streak=0)"
            )
        return outage

    def calm(self, stage: str) -> bool:
        """Whether the last object of this stage that ended did not fail for a reason that could come from outside."""
        return stage not in self._streaks

    def infrastructure(self, now: float, *, lasting: bool = False) -> str | None:
        """Record an infrastructure failure at `now`, in seconds; returns why the run must stop, or None."""
        if not self._store_failures:
            self._since = now
        self._store_failures += 1
        self._lasting += lasting
        if self._store_failures < self._config.breaker_store_failures:
            return None
        if self._lasting < self._config.breaker_store_failures and now - self._since < self._config.breaker_store_s:
            return None
        return f"{self._store_failures} infrastructure failures in a row"


class Throttle:
    """Slots that are used: half as many after kills for memory, for a while."""

    def __init__(self, config: PolicyConfig) -> None:
        self._calm_s, self._halvings, self._last = config.memory_calm_s, 0, 0.0
        self._settles = 0.0

    def killed(self, now: float, slots: int) -> None:
        """Record a kill at `now`, in seconds. Kills within a tenth of `memory_calm_s` are of one shortage."""
        self._recover(now)
        if now >= self._settles and self.slots(slots, now) > 1:
            self._halvings += 1
            self._settles = now + self._calm_s / 10
        self._last = now

    def slots(self, slots: int, now: float) -> int:
        """Number of `slots` to use at `now`, at least 1."""
        self._recover(now)
        return max(1, slots >> self._halvings)

    def _recover(self, now: float) -> None:
        while self._halvings and now - self._last >= self._calm_s:
            self._halvings -= 1
            self._last += self._calm_s


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


def ordered_shards(shards: str, there: Sequence[int]) -> list[int]:
    """Shard numbers from "3", "0-9" or "0-9,12", ascending, each once; "" = all that are `there`, in order.

    Raises:
        UsageError: the text has another form, or a shard does not exist.
    """
    if not shards:
        return list(there)
    wanted: set[int] = set()
    for part in shards.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"shards {shards!r}: expected numbers and ranges, such as 0-9,12")
        wanted.update(range(int(first), int(last or first) + 1))
    if beyond := sorted(wanted - set(there)):
        which = f"there are shards {there[0]} to {there[-1]}" if there else "there are none"
        raise UsageError(f"shards {shards!r}: no shard {beyond[0]}; {which}")
    if not wanted:
        raise UsageError(f"shards {shards!r}: names none")
    return sorted(wanted)
