"""What `evaluate` measured of an output, as the page shows it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaussianverse.atlas.os_errors import describe
from gaussianverse.atlas.store import is_remote
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.errors import PipelineError, UsageError, message
from gaussianverse.pipeline.ops.evaluation.place import REPORT, default_folder
from gaussianverse.pipeline.ops.evaluation.rows import MEASURED
from gaussianverse.pipeline.ops.evaluation.tables import Table, tables_of


@dataclass(frozen=True)
class Evaluation:
    """The tables of an evaluation.json."""

    tables: Sequence[Table]
    measured: int
    """Objects that were measured, of `objects`."""
    objects: int


def evaluation_of(storage: Storage, run: Run, given: Path | None) -> Evaluation | None:
    """The evaluation of a run; None if `evaluate` has not run, or not on this output.

    Args:
        storage: store of the run.
        run: the run.
        given: evaluation.json; None looks where `evaluate` writes it by default.

    Raises:
        UsageError: `given` is no evaluation.json, or one of another output.
        PipelineError: the same of a file that was found.
    """
    if given is not None:
        try:
            return _parsed(given.read_bytes(), run)
        except OSError as error:
            raise UsageError(f"{given}: cannot be read: {describe(error)}") from error
        except PipelineError as error:
            raise UsageError(f"{given}: {error}") from error
    path = default_folder(storage.url) / REPORT
    try:
        data = storage.get(f"{layout.EVALUATION}{REPORT}")
    except NotFound:
        if not is_remote(storage.url) or not path.is_file():
            return None
        data = path.read_bytes()
    except OSError as error:
        raise PipelineError(f"{path}: cannot be read: {describe(error)}") from error
    try:
        return _parsed(data, run)
    except PipelineError as error:
        raise PipelineError(f"{path}: {error}") from error


def _parsed(data: bytes, run: Run) -> Evaluation:
    try:
        found: dict[str, Any] = json.loads(data)
        first = found["datasets"][0]
        made_of, version = (first["config_digest"], first["manifest_sha256"]), first.get("version", 1)
        # a page that is published does not tell the machine's folders
        found["datasets"] = [{**d, "out": name_of(d["out"])} for d in found["datasets"]]
        tables, states = tables_of(found), first["states"]
        measured, objects = int(states.get(MEASURED, 0)), sum(map(int, states.values()))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise PipelineError(f"not an evaluation.json of `evaluate`: {message(error)}") from error
    if version != run.number:
        raise PipelineError(f"the evaluation of version {version}; run `evaluate` on version {run.number}")
    if made_of != (run.digest, run.identity["manifest_sha256"]):
        raise PipelineError("the evaluation of another output; run `evaluate` on this one")
    return Evaluation(tables, measured, objects)


def name_of(url: str) -> str:
    """An output as a page calls it: an address, or the name of a folder."""
    return url if is_remote(url) else Path(url).resolve().name
