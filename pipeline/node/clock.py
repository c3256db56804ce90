"""Judges clocks: those of a store and of a cluster's nodes against this machine's."""

from __future__ import annotations

import time

from gaussianverse.pipeline.node.gpu import Finding

MOST_S = 300.0
"""Clocks that differ by more are a fault. S3 refuses requests from 900 s on."""
_MEND = "set the clock, by NTP (`timedatectl set-ntp true`, chrony)"


def now() -> float:
    """Seconds since 1970 by this machine's clock. Ray runs it on a node; `time.time`, of C, it refuses."""
    return time.time()


def judge(what: str, told: float, before: float, after: float) -> Finding:
    """Compare a clock with this machine's.

    Args:
        what: has the clock.
        told: seconds since 1970 by it.
        before: by this machine's clock, before the other was asked.
        after: by this machine's clock, when it had answered.
    """
    ahead = told - after if told > after else min(0.0, told - before)
    if abs(ahead) <= MOST_S:
        return Finding("clock", True, f"{what} and this machine agree")
    text = f"{what} is {_span(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} this machine"
    return Finding(
        "clock", False, f"{text}; S3 refuses signatures that are 15 minutes off: {_MEND} where it is wrong"
    )


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 100 else f"{minutes / 60:.1f} hours"
