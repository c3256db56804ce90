"""A run that is killed again and again, in any phase, as users start it: the last call ends with the same bytes."""

from __future__ import annotations

import random
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from pipeline_commands import build_command, kill_all, last_line, run, running, temporary_folder
from pipeline_runs import dataset, write_inputs

from gaussianverse.atlas.store.local import LocalStorage

ROUNDS = 24
UIDS = ["a", "b", "c", "d", "e"]
SHARDS = ("--set", "run.shard_size=2")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds Ray's processes in /proc")
def test_killed_in_24_rounds_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL to the driver alone, or with all of Ray, at moments drawn from the whole of a run's time."""
    write_inputs(tmp_path, UIDS)
    started = time.monotonic()
    assert run(build_command(tmp_path, tmp_path / "whole", *SHARDS)).returncode == 0
    length, expected = time.monotonic() - started, dataset(LocalStorage(tmp_path / "whole"))
    draw, kills, out = random.Random(0), 0, 0
    with temporary_folder() as (temporary, environment):
        while kills < ROUNDS:
            command = build_command(tmp_path, tmp_path / str(out), *SHARDS)
            with running(command, tmp_path / "errors", environment) as driver:
                with suppress(subprocess.TimeoutExpired):
                    # it comes to its end sooner or later, since each round keeps what those before it did
                    assert driver.wait(draw.uniform(0.1, 0.9) * length) == 0, last_line(tmp_path / "errors")
                    assert dataset(LocalStorage(tmp_path / str(out))) == expected
                    out += 1
                    continue
                if draw.random() < 0.5:
                    kill_all(driver)
                else:
                    driver.kill()
                    driver.wait()
                kills += 1
        done = run(build_command(tmp_path, tmp_path / str(out), *SHARDS), environment)
        assert done.returncode == 0, done.stderr
        assert dataset(LocalStorage(tmp_path / str(out))) == expected
        assert not any(temporary.glob("gv-ray-*"))
