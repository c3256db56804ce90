"""Meshes through the command line's `render`, and their views through the gate in front of a fit."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from gaussianverse.fitter.agreement.gate import gate
from gaussianverse.fitter.errors import InconsistentViews
from gaussianverse.fitter.views import load_views


def through_verb(files: list[Path], size: int) -> dict[str, Any]:
    """Render each mesh as a user does, load the views as a fit does, and count the gate's outcomes."""
    outcomes, views, lowest = Counter[str](), Counter[int](), 1.0
    named: dict[str, str] = {}
    for file in files:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "views"
            command = [sys.executable, "-m", "gaussianverse.pipeline.cli", "render", str(file), str(out)]
            done = subprocess.run(
                [*command, "--size", str(size), "--no-geometry"], capture_output=True, text=True, check=False
            )
            if done.returncode:
                outcomes["unreadable"] += 1
                named[file.stem] = done.stderr.strip().splitlines()[-1].replace(str(file), file.name)
                continue
            loaded = load_views(out)
        views[len(loaded)] += 1
        try:
            found = gate(loaded, "refuse", 0.25)
        except InconsistentViews as error:
            outcomes["refused"] += 1
            named[file.stem] = str(error)
            continue
        lowest = min(lowest, found.agreement)
        outcome = "doubtful" if found.doubtful else "agrees" if found.agreement >= 0 else "cannot tell"
        outcomes[outcome] += 1
        if outcome != "agrees":
            named[file.stem] = f"{outcome}, {found.agreement:.3f}: {', '.join(found.doubtful)}"
        sys.stderr.write(f"{file.stem}: {outcome}\n")
    return {
        "size": size,
        "files": len(files),
        "outcomes": dict(outcomes),
        "views": dict(views),
        "lowest_agreement": lowest,
        "named": named,
    }
