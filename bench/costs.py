"""Renew `pipeline/run/costs.json`, the seconds by which `plan` prices a run, from results of other benchmarks.

    python -m bench.costs

The seconds of profile `quick` are the mean over the sample of `bench/results/fit.json` (`make bench-fit`), those of
`cpu` that of `bench/results/fit512.json` (`make bench-fit512`): CPU seconds of one core, all of a fit included. Those
of an atlas are the `whole_atlas_s` of `bench/results/atlas.json` (`make bench-atlas`), those of a reduction the mean
of `refine` over fits in `bench/results/reduce.json` (`make bench-reduce`). Other entries, such as the paper's own
time, are kept as they are.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from gaussianverse.pipeline.run.costs import OF_ATLAS, OF_REDUCTION

RESULTS = Path(__file__).parent / "results"
COSTS = Path(__file__).parents[1] / "pipeline" / "run" / "costs.json"


def measured() -> dict[str, dict[str, Any]]:
    """The entries that results hold: of fits under their profile, of the atlas and the reduction."""
    names = ("fit", "fit512", "atlas", "reduce")
    fit, fit512, atlas, reduce = (json.loads((RESULTS / f"{name}.json").read_text()) for name in names)
    samples = [float(sample["cpu_seconds"]) for sample in fit["samples"].values()]
    mean, of_512 = statistics.fmean(samples), float(fit512["cpu_s_per_object"])
    refined = [r["cpu_s"] for r in reduce["table"] if r["rule"] == "refine" and r["whole_heldout_psnr"] > 0]
    source = "bench/results/reduce.json: table, mean of refine over fits"
    whole = float(atlas["whole_atlas_s"])
    return {
        OF_ATLAS: _entry(OF_ATLAS, atlas, whole, 1, "bench/results/atlas.json: whole_atlas_s"),
        OF_REDUCTION: _entry(OF_REDUCTION, reduce, statistics.fmean(refined), len(refined), source),
        "quick": _entry("quick", fit, mean, len(samples), "bench/results/fit.json: samples, mean"),
        "cpu": _entry("cpu", fit512, of_512, fit512["objects"], "bench/results/fit512.json: cpu_s_per_object"),
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
