"""The profile that a run's settings come from, found by comparing them: run.json names none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gaussianverse.fitter import config as fitter_config
from gaussianverse.pipeline.config import RunConfig, load
from gaussianverse.pipeline.dataset.run_file import Run

MOST = 6
"""Settings that are named; a run with more of them has a profile of its own."""


def profile_of(run: Run) -> str:
    """Such as "quick", or "quick with fit.steps = 500"; "" if the settings resemble no profile that is shipped."""
    there = _settings(run)
    folder = Path(fitter_config.__file__).parent / "profiles"
    found = []
    for name in sorted(path.stem for path in folder.glob("*.toml")):
        shipped = _settings(load(name))
        others = [f"{key} = {json.dumps(value)}" for key, value in there.items() if shipped[key] != value]
        found.append((len(others), name, others))
    count, name, others = min(found)
    if count > MOST:
        return ""
    return f"{name} with {', '.join(others)}" if others else name


def _settings(config: RunConfig | Run) -> dict[str, Any]:
    tables: dict[str, Any] = {"fit": config.fit, "atlas": config.atlas, "reduce": config.reduce}
    return {key: value for name, table in tables.items() for key, value in _flat(asdict(table), name)}


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from _flat(entry, f"{path}.{name}")
    else:
        yield path, value
