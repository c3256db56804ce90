"""A bit that rots in a fragment is found before the fragment is used, and the fragment is made again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pipeline_runs import TINY, InProcess, build_in_process, dataset, in_process, undisturbed_dataset, write_inputs

from gaussianverse.atlas.dataset_format import ATLAS, SPLATS, VIEWS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline.config import RunConfig, load
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.errors import BreakerOpen
from gaussianverse.pipeline.policy import DAMAGED
from gaussianverse.pipeline.run import executor as kinds
from gaussianverse.pipeline.run import job, tasks
from gaussianverse.pipeline.run.executor import Job, Task

UIDS = ("a", "b")
CONFIG = load("test", [*TINY, "run.views=2", "policy.pause_s=0.01"])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_inputs(tmp_path_factory.mktemp("inputs"), UIDS))


@pytest.fixture(scope="module")
def expected(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return undisturbed_dataset(tmp_path_factory.mktemp("whole") / "out", str(inputs), CONFIG)


class Rotting(InProcess):
    """Flips a bit of a fragment before the first tasks of a kind and stage."""

    def __init__(
        self, given: Job, root: Path, family: str, before: tuple[str, str], *, at: float, times: int
    ) -> None:
        super().__init__(given)
        self.path = root / layout.fragment(family, 0, "a")
        self.before, self.at, self.times = before, at, times

    def submit(self, task: Task) -> int:
        if self.times and (task.kind, task.stage) == self.before:
            self.times -= 1
            data = bytearray(self.path.read_bytes())
            data[int(self.at * (len(data) - 1))] ^= 4
            self.path.write_bytes(data)
        return super().submit(task)


def build(out: Path, inputs: Path, config: RunConfig, **rot: object) -> list[str]:
    """Build a dataset whose fragments rot; returns the names of the tasks."""
    storage, run, base = job.plan(str(out), str(inputs), config)
    made: list[Rotting] = []

    @contextmanager
    def executor(config: RunConfig, given: Job) -> Iterator[InProcess]:
        made.append(Rotting(given, out, **rot))  # type: ignore[arg-type]
        yield made[0]

    build_in_process(storage, run, config, base, executor=executor)
    return made[0].names


@pytest.mark.parametrize("at", [0.02, 0.5, 0.9])
@pytest.mark.parametrize(
    ("family", "before"),
    [
        (SPLATS, (kinds.PACK, SPLATS)), (ATLAS, (kinds.PACK, ATLAS)), (VIEWS, (kinds.PACK, VIEWS)),
    ],
)  # fmt: skip
def test_the_fragment_is_made_again_and_the_bytes_are_those_of_an_undisturbed_run(
    inputs: Path, expected: dict[str, bytes], tmp_path: Path, family: str, before: tuple[str, str], at: float
) -> None:
    names = build(tmp_path / "out", inputs, CONFIG, family=family, before=before, at=at, times=1)
    assert dataset(LocalStorage(tmp_path / "out")) == expected
    assert names.count("fit of a") == (1 if family == ATLAS else 2)
    assert names.count("fit of b") == 1


def test_a_disk_on_which_everything_rots_stops_the_run_and_says_so(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(BreakerOpen, match=r"a\.tar: its sha256 is that of no fragment"):
        build(tmp_path / "out", inputs, CONFIG, family=SPLATS, before=(kinds.PACK, SPLATS), at=0.5, times=99)
    storage, run, base = job.plan(str(tmp_path / "out"), str(inputs), CONFIG)
    assert not list(storage.list("_commits/splats/"))
    # the next call, on a disk that was mended, makes what is missing
    build_in_process(storage, run, CONFIG, base, executor=in_process)
    assert list(storage.list("_commits/splats/"))


def test_journals_that_are_lost_are_no_obstacle(inputs: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    storage, run, base = job.plan(str(tmp_path / "out"), str(inputs), CONFIG)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(layout, "run_record", lambda family, shard, uid, sha256: f"_work/lost/{family}/{sha256}.json")
        build_in_process(storage, run, CONFIG, base)
    assert dataset(storage) == expected


def test_no_atlas_is_made_of_a_fit_that_rotted(inputs: Path, tmp_path: Path) -> None:
    storage, run, base = job.plan(str(tmp_path / "out"), str(inputs), CONFIG)
    given = Job(storage.url, base)
    row = {**shard_rows(storage, run, 0)[0], "shard": 0}
    assert tasks.fit_object(given, row, 1, 0)["status"] == "ok"
    path = tmp_path / "out" / layout.fragment(SPLATS, 0, "a")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    result = tasks.atlas_object(given, row, 1)
    assert (result["status"], result["reason"]) == ("failed", DAMAGED)
    assert not path.exists()
    assert tasks.fit_object(given, row, 2, 0)["status"] == tasks.atlas_object(given, row, 2)["status"] == "ok"
