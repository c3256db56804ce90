"""Commands and what they print, as a page shows them: indented blocks whose commands begin with `$ `."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_MARK = "    $ "
# what differs from run to run, also in a page: numbers, paths, names of processors
_LOOSE = re.compile(r"\d[\d.,]*|(?:/[\w.+-]+)+|avx512|avx2|portable")


@dataclass(frozen=True)
class Shown:
    """A command, and the lines that the page shows below it."""

    command: str
    printed: tuple[str, ...]

    def matches(self, printed: str) -> bool:
        """Whether these lines are the page's, but for numbers, paths and what the page leaves out (`..`)."""
        lines = printed.splitlines()
        return len(lines) == len(self.printed) and all(map(_matches, self.printed, lines))


def _matches(shown: str, line: str) -> bool:
    pattern = re.escape(_LOOSE.sub("#", shown.rstrip())).replace(re.escape(".."), ".*")
    return re.fullmatch(pattern, _LOOSE.sub("#", line.rstrip())) is not None


def transcript(page: Path, heading: str) -> list[Shown]:
    """The commands of a page below a heading, up to the next of its level."""
    section = page.read_text().split(f"\n{heading}\n", 1)[1].split(f"\n{heading.split()[0]} ", 1)[0]
    found: list[tuple[str, list[str]]] = []
    block = False
    for line in section.splitlines():
        if line.startswith(_MARK):
            found.append((line.removeprefix(_MARK), []))
            block = True
        elif block and line.startswith("    "):
            found[-1][1].append(line.removeprefix("    "))
        else:
            block = False
    return [Shown(command, tuple(lines)) for command, lines in found]
