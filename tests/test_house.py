"""One object's call stack from the command line to its published fragment: short, and only downwards."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from pipeline_runs import InProcess, tiny_arguments, write_inputs

import gaussianverse
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.config import RunConfig
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.run import job, ray_executor
from gaussianverse.pipeline.run.executor import Job
from gaussianverse.pipeline.run.ray_executor import RayExecutor

ROOMS = ("", "run", "dataset", "store")
"""Sub-packages of pipeline that a stack enters, from the top down; "" holds the command line."""
MOST_FILES = 8


@dataclass(eq=False)
class Ended:
    """Handle of a task that has ended."""

    result: Any


class InlineRay:
    """Stands in for Ray and runs tasks at submission, so that one stack holds all calls."""

    exceptions = ray.exceptions

    def nodes(self) -> list[dict[str, Any]]:
        return []

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1}

    def remote(self, **_: Any) -> Any:
        return lambda function: SimpleNamespace(remote=lambda *args: Ended(function(*args)))

    def wait(self, handles: list[Ended], **_: Any) -> tuple[list[Ended], list[Ended]]:
        return handles, []

    def get(self, handle: Ended) -> Any:
        return handle.result

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "here")


def stack() -> list[str]:
    """Files of `pipeline` on the stack of the caller, outermost first, each once."""
    found, root = list[str](), Path(gaussianverse.__file__).parent.resolve().parent
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename).resolve()
        if path.is_relative_to(root / "pipeline"):
            found.append(path.relative_to(root / "pipeline").as_posix())
        frame = frame.f_back  # type: ignore[assignment]
    return list(dict.fromkeys(reversed(found)))


def test_the_call_stack_of_a_published_fragment_is_short_and_only_goes_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: dict[str, list[str]] = {}
    put = LocalStorage.put_if_absent

    def watched(self: LocalStorage, key: str, data: bytes) -> bool:
        if found := layout.parse_fragment(key):
            ways[found[0]] = stack()
        return put(self, key, data)

    @contextmanager
    def inline(config: RunConfig, given: Job) -> Iterator[RayExecutor]:
        yield RayExecutor(InlineRay(), config, given)

    monkeypatch.setattr(LocalStorage, "put_if_absent", watched)
    monkeypatch.setattr(RayExecutor, "metrics", InProcess.metrics)
    monkeypatch.setattr(job, "ray_executor", inline)
    # asked for its context, Ray would start
    monkeypatch.setattr(ray_executor, "import_module", lambda _: InlineRay())
    manifest = write_inputs(tmp_path, ["a"])
    arguments = ["fit-shard", "--manifest", manifest, "--out", str(tmp_path / "out"), *tiny_arguments()]
    assert cli.main(arguments) == 0
    assert set(ways) == set(layout.STAGES)
    for way in ways.values():
        assert way[0] == "cli.py"
        assert way[-1].startswith("store/")
        assert len(way) <= MOST_FILES
        depths = [ROOMS.index(Path(file).parent.as_posix().removeprefix(".")) for file in way]
        assert depths == sorted(depths)
