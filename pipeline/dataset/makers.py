"""Names the shards that other code, or other versions of packages, made than those that the run began with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gaussianverse.pipeline.dataset.provenance import line_of
from gaussianverse.pipeline.dataset.run_file import Run


@dataclass(frozen=True)
class Maker:
    """Code and packages, and the shards of a family that they made.

    Attributes:
        family: family of the shards.
        code: digest of the code.
        versions: versions of the packages, as one line.
        shards: numbers of the shards with at least one of their objects, in order.
        objects: number of these objects.
    """

    family: str
    code: str
    versions: str
    shards: tuple[int, ...]
    objects: int


def begun_with(run: Run) -> tuple[str, str]:
    """Digest of the code, and versions of the packages as one line, of the call that began the run."""
    return str(run.identity.get("code_digest", "")), line_of(run.identity["versions"])


def other_makers(run: Run, commits: Mapping[tuple[str, int], Mapping[str, Any]]) -> list[Maker]:
    """The makers beside the one that began the run, by family.

    Args:
        run: the run.
        commits: commit records by (family, shard); those of version 1 do not name their makers.
    """
    made: dict[tuple[str, str, str], dict[int, int]] = defaultdict(dict)
    for (family, shard), commit in sorted(commits.items()):
        for entry in commit.get("made_with", []):
            maker = (entry["code_digest"], entry["versions"])
            if maker != begun_with(run):
                made[(family, *maker)][shard] = entry["objects"]
    return [
        Maker(family, code, versions, tuple(shards), sum(shards.values()))
        for (family, code, versions), shards in sorted(
            made.items(), key=lambda m: (run.families.index(m[0][0]), m[0])
        )
    ]


def notes_of(run: Run, commits: Mapping[tuple[str, int], Mapping[str, Any]]) -> Iterator[str]:
    """Say in a line for each of `other_makers` what it made; that is no fault."""
    code, versions = begun_with(run)
    for maker in other_makers(run, commits):
        shards = f"shard{'s' if len(maker.shards) > 1 else ''} {ranges(maker.shards)}"
        objects = "1 object was" if maker.objects == 1 else f"{maker.objects} objects were"
        yield (
            f"{shards} of {maker.family}: {objects} made by {maker.versions} "
            f"(code {maker.code[:12]}), the run began with {versions} (code {code[:12]})"
        )


def ranges(numbers: tuple[int, ...]) -> str:
    """Ascending numbers as "0,3-5,9", in the form that `--shards` takes."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
