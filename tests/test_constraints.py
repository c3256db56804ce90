"""constraints.txt names, with their versions, all distributions that the extras bring."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PINNED = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
}


def asked_for() -> list[Requirement]:
    """Requirements that `make setup` installs by name: the package's own requirements and those of four extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    names = [r for extra in ("build", "render", "meshes", "dev") for r in extras[extra]]
    return [Requirement(r) for r in [*project["dependencies"], *names]]


def closure() -> dict[str, str]:
    """{name: installed version} of all that is reached from there, on this platform."""
    found: dict[str, str] = {}
    waiting, seen = [(r, extra) for r in asked_for() for extra in ("", *r.extras)], set[tuple[str, str]]()
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            there = distribution(name)
        except PackageNotFoundError:
            pytest.fail(f"{name} is not installed: make setup")
        found[name] = there.version.partition("+")[0]
        for line in there.requires or ():
            below = Requirement(line)
            if below.marker is None or below.marker.evaluate({"extra": extra}):
                waiting += [(below, e) for e in ("", *below.extras)]
    return found


def test_every_distribution_is_named_with_its_version() -> None:
    found = {
        name: version for name, version in closure().items() if not name.startswith(("nvidia-", "cuda-", "triton"))
    }
    assert len(found) > 100
    assert {name: PINNED.get(name) for name in found} == found


def test_every_line_is_one_exact_version() -> None:
    comment, *lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert comment.startswith("#")
    assert len(lines) == len(PINNED)
    assert all(
        requirement.specifier.contains(PINNED[canonicalize_name(requirement.name)]) for requirement in asked_for()
    )
