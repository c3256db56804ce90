"""Where `evaluate` leaves what it measured, and the page of `report` looks for it."""

from __future__ import annotations

from pathlib import Path

from gaussianverse.atlas.store import is_remote
from gaussianverse.pipeline.dataset import layout

REPORT = "evaluation.json"


def default_folder(out: str) -> Path:
    """A folder in the output, or in the working directory where the output is no folder."""
    return Path(layout.EVALUATION) if is_remote(out) else Path(out, layout.EVALUATION)
