"""Checks that samples are what the manifest, the settings and each other say; each yields its faults as text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gaussianverse import atlas
from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.dataset_format import OK, SPLATS
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.manifests.schema import SPLATS as SPLATS_FORMAT
from gaussianverse.manifests.schema import SPLATS_BGR
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import FRAME
from gaussianverse.pipeline.policy import seed_of

_SOURCE = (
    "index", "uid", "source_id", "category", "license", "caption", "caption_source", "captions", "caption_sources",
    "split", "attribution",
)  # fmt: skip
_SEEDS = 16
"""Seeds that a fit may have had: one per attempt whose loss was not finite, and the first."""
_APPEARANCE = ("opacities", "colors", "scales", "quats")
_POSITION_ERROR = {"float32": 2e-6, "float16": 4e-3}
"""Largest change of a position in the round trip, relative for values above 1: offsets are at most about 2."""


def faults_of_facts(
    run: Run, family: str, manifest_row: Mapping[str, Any], facts: Mapping[str, Any]
) -> Iterator[str]:
    """Compare the facts of an object with its row of the manifest and the configuration of the run.

    Args:
        run: the run.
        family: family of the facts.
        manifest_row: the object's row.
        facts: a row of the shard's table, or a JSON member.
    """
    for name in (*_SOURCE, *(name for name, _ in run.extras)):
        if name in facts and facts[name] != manifest_row[name]:
            yield f"{name} is {facts[name]!r}, the manifest says {manifest_row[name]!r}"
    if facts["config_digest"] != run.digest:
        yield f"config_digest is {facts['config_digest'][:12]}.., that of the run {run.digest[:12]}.."
    if facts["schema_version"] != run.version:
        yield f"schema_version is {facts['schema_version']}, that of the run {run.version}"
    if facts["status"] != OK or family != SPLATS:
        return
    fitted = manifest_row["format"] not in (SPLATS_FORMAT, SPLATS_BGR)
    steps = run.fit.steps if fitted else -1
    if facts["steps"] != steps:
        yield f"steps is {facts['steps']}, the settings say {steps}"
    if fitted and facts["seed"] not in {seed_of(run.settings.seed, facts["uid"], k) for k in range(_SEEDS)}:
        yield f"seed is {facts['seed']}, which the settings give to no attempt"
    if run.version > 1 and facts["fit_digest"] != run.fit_digest:
        yield f"fit_digest is {facts['fit_digest'][:12]}.., the settings give {run.fit_digest[:12]}.."


def faults_of_splats(facts: Mapping[str, Any], gaussians: Gaussians) -> Iterator[str]:
    """Compare the facts of a splat with its arrays."""
    if facts["n_gaussians"] != len(gaussians):
        yield f"n_gaussians is {facts['n_gaussians']}, its arrays have {len(gaussians)}"
    for name, value in gaussians.bounds().items():
        if name in facts and facts[name] != value:
            yield f"{name} is {facts[name]}, its arrays have {value}"


def faults_of_atlas(
    facts: Mapping[str, Any], array: npt.NDArray[Any], splat: Gaussians, of: Mapping[str, Any], config: AtlasConfig
) -> Iterator[str]:
    """Compare an atlas with its facts, and with the splat beside it.

    Args:
        facts: of the atlas.
        array: the atlas, [size, size, 16].
        splat: the Gaussians it must hold, but for the smallest where they are more than its cells.
        of: facts of the splat.
        config: configuration of the atlas.
    """
    held = atlas.unpack(array, config)
    cells = config.size**2
    counts = {"n_gaussians": len(held), "n_padded": cells - len(held), "n_dropped": len(splat) - len(held)}
    counts["size"] = config.size
    for name, count in counts.items():
        if facts[name] != count:
            yield f"{name} is {facts[name]}, its arrays give {count}"
    if len(held) != min(len(splat), cells):
        yield f"it holds {len(held)} Gaussians, the splat beside it {len(splat)}"
        return
    for name in FRAME:
        if name in facts and facts[name] != of[name]:
            yield f"{name} is {facts[name]}, the splat's is {of[name]}"
    if strangers := _strangers(held, splat, config.dtype):
        yield f"{strangers} of its {len(held)} Gaussians are not in the splat beside it"


def _strangers(held: Gaussians, splat: Gaussians, dtype: str) -> int:
    """Number of unpacked Gaussians that have no equal, but for rounding of their position, in the splat."""
    places: dict[bytes, list[int]] = defaultdict(list)
    for place, key in enumerate(_appearance(splat, dtype)):
        places[key].append(place)
    error, strangers = _POSITION_ERROR[dtype], 0
    means = splat.means.astype(np.float64)
    for mean, key in zip(held.means.astype(np.float64), _appearance(held, "float32"), strict=True):
        candidates = places.get(key, [])
        if not candidates:
            strangers += 1
            continue
        # those that look alike are told apart by their positions
        near = min(candidates, key=lambda place: float(np.abs(means[place] - mean).max()))
        if (np.abs(means[near] - mean) > error * np.maximum(1.0, np.abs(means[near]))).any():
            strangers += 1
        else:
            candidates.remove(near)
    return strangers


def _appearance(gaussians: Gaussians, dtype: str) -> list[bytes]:
    """What is stored unchanged of each Gaussian, after rounding to a dtype."""
    columns = [getattr(gaussians, name).reshape(len(gaussians), -1) for name in _APPEARANCE]
    table = np.hstack(columns).astype(dtype).astype(np.float32) + np.float32(0.0)
    return [row.tobytes() for row in table]
