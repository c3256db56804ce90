"""Checks that samples are what the manifest, the settings and each other say; each yields its faults as text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.dataset_format import ALBEDO, CHANNELS, OFFSET, OK, OPACITY_COPIES, QUATERNION, SCALE, SPLATS
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.packing import channels_of, rounded
from gaussianverse.atlas.padding import prune
from gaussianverse.atlas.plane import points_of
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
_APPEARANCE = tuple(np.r_[ALBEDO, SCALE, QUATERNION].tolist())
"""Channels that cells store as the splat has them, in padding too."""


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
    facts: Mapping[str, Any], array: npt.NDArray[Any], splat: Gaussians, of: Mapping[str, Any], config: AtlasConfig,
    rule: str,
) -> Iterator[str]:  # fmt: skip
    """Compare an atlas with its facts, and each of its cells with the splat beside it.

    Cells that were refined (`fitter.reduce`) are no Gaussians of the splat, and are only counted.

    Args:
        facts: of the atlas.
        array: the atlas, [size, size, 16].
        splat: the Gaussians it must hold, as many as it has cells.
        of: facts of the splat.
        config: configuration of the atlas.
        rule: `ReduceConfig.rule`.
    """
    cells = array.reshape(-1, CHANNELS).astype(np.float32)
    opacities = cells[:, OPACITY_COPIES]
    live = (opacities != 0).any(axis=1)
    held, expected, surplus = int(live.sum()), min(len(splat), len(cells)), len(splat) > len(cells)
    counts = {"n_gaussians": held, "n_padded": len(cells) - held, "n_dropped": len(splat) - held, "size": config.size}
    for name, count in counts.items():
        if facts[name] != count:
            yield f"{name} is {facts[name]}, its arrays give {count}"
    for name in FRAME:
        if name in facts and facts[name] != of[name]:
            yield f"{name} is {facts[name]}, the splat's is {of[name]}"
    if unequal := int((opacities != opacities[:, :1]).any(axis=1).sum()):
        yield f"{unequal} of its cells do not have one opacity in all three channels"
    if held != expected:
        yield f"it holds {held} Gaussians, of the splat beside it {expected} belong there"
        return
    if surplus and rule == "refine":
        return
    points = points_of(config)
    kept = splat[prune(splat, len(cells))] if rule == "scale" else splat
    count = len(kept)
    own = rounded(channels_of(kept, np.ones(count, np.bool_), np.zeros((count, 3))), config.dtype).astype(np.float32)
    gaussians = _Stored(own, kept.means.astype(np.float64), config.dtype)
    if strangers := gaussians.strangers(cells[live], points[live]):
        yield f"{strangers} of its {held} Gaussians are not in the splat beside it"
    if strangers := gaussians.strangers(cells[~live], points[~live], padding=True):
        yield f"{strangers} of its {len(cells) - held} cells of padding repeat no Gaussian of the splat beside it"


@dataclass(frozen=True)
class _Stored:
    """The M Gaussians that an atlas may hold.

    Attributes:
        channels: as the atlas stores them, but for the offset, [M, 16].
        means: [M, 3].
        dtype: of the stored atlas.
    """

    channels: npt.NDArray[np.float32]
    means: npt.NDArray[np.float64]
    dtype: str

    def strangers(
        self, cells: npt.NDArray[np.float32], points: npt.NDArray[np.float64], *, padding: bool = False
    ) -> int:
        """Number of cells that hold none of the Gaussians, or one that another cell holds.

        Args:
            cells: channels of N cells, [N, 16].
            points: their sphere points, [N, 3].
            padding: the cells repeat Gaussians with another opacity.
        """
        compared = _APPEARANCE if padding else (OPACITY_COPIES[0], *_APPEARANCE)
        places: dict[bytes, list[int]] = defaultdict(list)
        for place, key in enumerate(_keys(self.channels, compared)):
            places[key].append(place)
        offsets = cells[:, OFFSET].astype(np.float64)
        found = np.full(len(cells), -1)
        for cell, key in enumerate(_keys(cells, compared)):
            candidates = places.get(key, [])
            if not candidates:
                continue
            found[cell] = candidates[0]
            if len(candidates) > 1:  # those that look alike are told apart by their positions
                away = np.abs(self.means[candidates] - (offsets[cell] + points[cell])).max(axis=1)
                found[cell] = candidates[int(away.argmin())]
            if not padding:
                candidates.remove(int(found[cell]))
        expected = (self.means[found] - points).astype(np.float32).astype(self.dtype)
        # sphere points may differ by a rounding error between two machines
        step = np.spacing(np.abs(expected)).astype(np.float64) + 1e-9
        far = (np.abs(offsets - expected) > step).any(axis=1)
        return int(((found < 0) | far).sum())


def _keys(channels: npt.NDArray[np.float32], compared: Sequence[int]) -> list[bytes]:
    """The bytes of the compared channels of each row; 0.0 and -0.0 are one."""
    return [row.tobytes() for row in channels[:, compared] + np.float32(0.0)]
