"""Renew `pipeline/ops/costs.json`, the seconds by which `plan` prices a run, from results of other benchmarks.

    python -m bench.costs

The seconds of profile `quick` are the mean over the sample of `bench/results/fit.json` (`make bench-fit`, CPU
seconds of one core, all of a fit included), those of an atlas the `whole_atlas_s` of `bench/results/atlas.json`
(`make bench-atlas`). Entries of profiles that neither holds, such as the paper's own time, are kept as they are.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
COSTS = Path(__file__).parents[1] / "pipeline" / "ops" / "costs.json"
SAMPLES = "quick"
"""The profile of the fits in fit.json."""


def measured() -> dict[str, dict[str, Any]]:
    """The entries that results hold: of the atlas under "", of fits under their profile."""
    fit, atlas = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("fit", "atlas"))
    seconds = [float(sample["cpu_seconds"]) for sample in fit["samples"].values()]
    return {
        "": _entry("", atlas, float(atlas["whole_atlas_s"]), 1, "bench/results/atlas.json: whole_atlas_s"),
        SAMPLES: _entry(
            SAMPLES, fit, statistics.fmean(seconds), len(seconds), "bench/results/fit.json: samples, mean"
        ),
    }


def _entry(profile: str, result: dict[str, Any], seconds: float, objects: int, source: str) -> dict[str, Any]:
    environment = result["environment"]
    return {
        "profile": profile,
        "device": f"one core, {environment['cpu']}",
        "seconds": round(seconds, 2),
        "objects": objects,
        "source": source,
        "commit": environment["commit"],
    }


def main() -> None:
    """Write the table."""
    table = json.loads(COSTS.read_text())
    for entry in measured().values():
        here = [one for one in table["costs"] if one["profile"] == entry["profile"]]
        table["costs"] = [one for one in table["costs"] if one not in here] + [entry]
    table["costs"].sort(key=lambda one: str(one["profile"]))
    COSTS.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
