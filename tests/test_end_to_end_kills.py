"""A run that is killed again and again, in any phase, as users start it: the last call ends with the same bytes."""

from __future__ import annotations

import random
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from pipeline_commands import build_command, kill_all, last_line, run, running, temporary_folder
from pipeline_runs import dataset, differing, until, write_inputs

from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline.dataset import layout

ROUNDS = 24
UIDS = ["a", "b", "c", "d", "e"]
SHARDS = ("--set", "run.shard_size=2")


def written(out: Path) -> int:
    """Number of files that a run has written."""
    return sum(1 for entry in LocalStorage(out).list("") if not entry.key.startswith(layout.JOURNAL))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds Ray's processes in /proc")
def test_killed_in_24_rounds_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL to the driver alone, or with all of Ray, once it has written as many files as each round draws."""
    write_inputs(tmp_path, UIDS)
    assert run(build_command(tmp_path, tmp_path / "whole", *SHARDS)).returncode == 0
    most, expected = written(tmp_path / "whole"), dataset(LocalStorage(tmp_path / "whole"))
    draw, kills, outputs = random.Random(0), 0, 0
    with temporary_folder() as (temporary, environment):
        while kills < ROUNDS:
            out, errors = tmp_path / str(outputs), tmp_path / "errors"
            goal = draw.randrange(written(out), most)
            with running(build_command(tmp_path, out, *SHARDS), errors, environment) as driver:
                until(lambda driver=driver, out=out, goal=goal: driver.poll() is not None or written(out) >= goal)
                with suppress(subprocess.TimeoutExpired):  # a while into what comes next, or into its start
                    driver.wait(draw.uniform(0, 3))
                ended = driver.poll() is not None
                assert not ended or driver.returncode == 0, last_line(errors)
                if not ended and draw.random() < 0.5:
                    kill_all(driver)
                elif not ended:
                    driver.kill()
                    driver.wait()
            kills += not ended
            if written(out) == most:  # the rounds go on with another output
                assert differing(dataset(LocalStorage(out)), expected) == []
                outputs += 1
        for _ in range(2):  # the second has nothing to do
            done = run(build_command(tmp_path, tmp_path / str(outputs), *SHARDS), environment)
            assert done.returncode == 0, done.stderr
            assert differing(dataset(LocalStorage(tmp_path / str(outputs))), expected) == []
        assert outputs >= 2
        assert not any(temporary.glob("gv-ray-*"))
