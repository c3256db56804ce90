"""The first line of a call that builds shards: what will happen, and about how long it will take."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gaussianverse.atlas.configuration import ConfigError
from gaussianverse.atlas.dataset_format import SPLATS
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.manifest_rows import count_taken, shard_rows
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.run import splats
from gaussianverse.pipeline.run.bar import duration
from gaussianverse.pipeline.run.costs import OF_ATLAS, cost_of, costs


def first_line(
    storage: Storage, run: Run, shards: Sequence[int], stages: tuple[str, ...], slots: int, of: int
) -> str:
    """Line that says what a call will do.

    Such as "4 objects, 2 at a time, about 27 s (12.5 s a fit: profile quick on one core)". The time is from seconds
    that were measured once, and missing where none were, as for imports and own settings.

    Args:
        storage: store of the run.
        run: the run.
        shards: requested shards that are not committed, at least one.
        stages: stages of the call.
        slots: objects that are worked on at once.
        of: objects of all requested shards.
    """
    there = sum(run.objects_in(k) for k in shards)
    done = of - there + _begun(storage, shards, stages[-1])
    left = of - done
    if not left:
        return f"{_objects(of)}, all done but not packed"
    slots = min(slots, left)
    taken = count_taken(storage, run, shards)
    known = [f"{count} of them {what}" for count, what in ((done, "done"), (taken, "taken over")) if count]
    line = f"{', '.join([_objects(of), *known])}, {slots} at a time"
    left -= min(taken, left)
    found = _seconds(storage, run, shards[0], stages)
    if not found or not left:
        return line
    seconds, whose = found
    return f"{line}, about {duration(math.ceil(left / slots) * seconds)} ({whose})"


def _objects(count: int) -> str:
    return f"{count} object{'s' if count != 1 else ''}"


def _begun(storage: Storage, shards: Sequence[int], stage: str) -> int:
    """Objects that are done in uncommitted shards; these are opened in order, so the first ones have them."""
    done = 0
    for shard in shards:
        found = sum(layout.parse_fragment(e.key) is not None for e in storage.list(layout.fragments(stage, shard)))
        if not found:
            break
        done += found
    return done


def _seconds(storage: Storage, run: Run, shard: int, stages: tuple[str, ...]) -> tuple[float, str] | None:
    """Kept seconds of one object, and whose they are; None if there are none."""
    try:
        atlas, cost = costs()[OF_ATLAS], cost_of(run.fit)
    except (ConfigError, OSError):  # a forecast ends no run: an ill disk is named by what needs it
        return None
    if SPLATS not in stages:
        return atlas.seconds, f"{atlas.seconds:.2g} s an atlas on {atlas.device}"
    if cost is None or any(row["format"] in splats.FORMATS for row in shard_rows(storage, run, shard)):
        return None
    on_gpus = run.fit.backend == "gsplat"  # atlases then run on cores that fits leave idle
    whose = f"{cost.seconds:.3g} s a fit: profile {cost.profile} on {cost.device}"
    return cost.seconds + (0.0 if on_gpus else atlas.seconds), whose
