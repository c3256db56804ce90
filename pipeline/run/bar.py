"""A line of progress on stderr: a bar on a terminal, elsewhere a plain line a minute, with `--quiet` nothing."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from gaussianverse.terminal import is_terminal, notes_wanted

_LINE_EVERY_S = 60.0
FIT_SHARE = 0.9
"""Share of the work on an object that is its fit; the rest is its atlas."""


@dataclass
class Tally:
    """Objects of a run that are done, what became of them, and how fast they come."""

    total: int
    done: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """Quarantined objects by reason."""
    gaussians: list[int] = field(default_factory=lambda: [0, 0])
    """Number of Gaussians, and of the objects that have them."""
    psnr: list[float] = field(default_factory=lambda: [0.0, 0])
    """Sum of PSNRs in dB, and number of the objects that have one."""

    def add(self, gaussians: int, psnr: float) -> None:
        """Count the Gaussians and the PSNR of an object; 0 and negative are unknown."""
        if gaussians > 0:
            self.gaussians = [self.gaussians[0] + gaussians, self.gaussians[1] + 1]
        if psnr >= 0:
            self.psnr = [self.psnr[0] + psnr, self.psnr[1] + 1]

    def text(self, position: float, gained: float, seconds: float) -> str:
        """Format it for people.

        Args:
            position: objects that are done, with parts of those under way.
            gained: how much of it was done in the last `seconds`.
            seconds: duration of that, from which the speed is.
        """
        rate = gained / seconds if seconds > 0 else 0.0
        parts = [f"{self.done}/{self.total} objects"]
        if rate > 0:
            parts.append(f"{3600 * rate:.0f}/h")
        if self.done < self.total:
            left = max(0.0, self.total - position)
            parts.append(f"{duration(left / rate)} left" if rate > 0 else "time left unknown")
        if self.reasons:
            listed = ", ".join(f"{n} {reason}" for reason, n in self.reasons.most_common())
            parts.append(f"{self.reasons.total()} quarantined ({listed})")
        if self.gaussians[1]:
            parts.append(f"{self.gaussians[0] / self.gaussians[1]:,.0f} Gaussians")
        if self.psnr[1]:
            parts.append(f"{self.psnr[0] / self.psnr[1]:.2f} dB")
        return ", ".join(parts)


class Bar:
    """Draws a position between 0 and `total`, and a text.

    Args:
        total: where the bar ends.
        clock: seconds, monotonic.
        at_once: where stderr is no terminal, print the first line at once and not after a minute.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic, *, at_once: bool = False) -> None:
        self._clock, self._text, self._said = clock, "", ""
        self._due = clock() + (0.0 if at_once else _LINE_EVERY_S)
        self._bar: Any = None
        self._wanted = notes_wanted()
        if self._wanted and is_terminal(sys.stderr):
            form = "{percentage:3.0f}%|{bar:10}| {desc}"
            self._bar = tqdm(total=total, file=sys.stderr, dynamic_ncols=True, bar_format=form, desc="starting")

    def show(self, position: float, text: str) -> None:
        """Draw it anew; where stderr is no terminal, print the text if the last line is a minute old."""
        self._text = text
        if self._bar is not None:
            self._bar.n = min(position, self._bar.total)
            self._bar.set_description_str(text)
        elif self._wanted and self._clock() >= self._due:
            self._say()

    def _say(self) -> None:
        self._due, self._said = self._clock() + _LINE_EVERY_S, self._text
        print(self._text, file=sys.stderr, flush=True)

    @contextmanager
    def above(self) -> Iterator[None]:
        """Within the context, lines may be printed to stderr; on a terminal the bar is drawn again below them."""
        if self._bar is None:
            yield
            return
        with tqdm.external_write_mode(file=sys.stderr):
            yield

    def close(self) -> None:
        """Leave the last state behind."""
        if self._bar is not None:
            self._bar.close()
        elif self._wanted and self._text != self._said:
            self._say()


def duration(seconds: float) -> str:
    """A duration for people: "41 s", "2.5 min", "7.0 h", "23 days"."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.{0 if seconds >= 10 * length else 1}f} {unit}"
    return f"{seconds:.0f} s"
