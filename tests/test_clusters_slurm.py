"""docs/clusters.md, "Slurm": its commands, one after the other, on a real Slurm and an S3 server; and requeues."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from pipeline_runs import PATIENCE_S, dataset, tiny_arguments, undisturbed_dataset, until, write_inputs
from servers import slurm
from servers.slurm import Slurm
from transcripts import Shown, transcript

from gaussianverse.atlas.dataset_format import SPLATS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.dataset import layout

pytestmark = pytest.mark.skipif(bool(slurm.why_not()), reason=slurm.why_not() or "it is there")

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = str(ROOT / "deploy" / "slurm.sh")
COMMANDS = transcript(ROOT / "docs" / "clusters.md", "## Slurm")
SETUP = "make setup"
BUCKET = "my-bucket"
MORE = ["run.shard_size=3", "fit.steps=400"]
"""Shards of three objects, whose fits last long enough to be disturbed."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Slurm]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, slurm.serving(Path(folder)) as started:
        yield started


@pytest.fixture
def login(cluster: Slurm, tmp_path: Path) -> dict[str, str]:
    """Environment of a login: an empty home, and the commands of the environment that `make setup` makes."""
    kept = ("SLURM_CONF", "LANG", "LC_ALL", "PYTHONPATH", "OMP_NUM_THREADS")
    environment = {name: value for name, value in cluster.environment.items() if name in kept}
    path = f"{Path(sys.executable).parent}:{cluster.environment['PATH']}"
    (tmp_path / "home").mkdir()
    return {**environment, "PATH": path, "HOME": str(tmp_path / "home"), "USER": "root"}


def test_the_page_shows_every_step() -> None:
    words = [shown.command.split()[0] for shown in COMMANDS]
    assert words == ["make", "export", "srun", "mkdir", "sbatch", "tail", "gaussianverse", "gaussianverse"]


@pytest.mark.parametrize("fresh", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_commands_of_the_page_lead_to_a_first_verified_dataset(
    fresh: bool, login: dict[str, str], s3_endpoint: str, tmp_path: Path
) -> None:
    """`fresh`: also its first command, `make setup`, in a checkout of its own."""
    aws = Path(login["HOME"]) / ".aws"
    aws.mkdir()
    keys = "aws_access_key_id = test\naws_secret_access_key = test-secret"
    aws.joinpath("credentials").write_text(f"[default]\n{keys}\n")
    aws.joinpath("config").write_text(f"[default]\nregion = us-east-1\nendpoint_url = {s3_endpoint}\n")
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=BUCKET)
    checkout = tmp_path / "gaussianverse"
    if fresh:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(checkout)], check=True)
        login.pop("PYTHONPATH", None)
    else:
        for name in ("deploy", "manifests"):
            shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    with subprocess.Popen(
        ["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=login,
        cwd=checkout,
    ) as shell:  # fmt: skip
        for shown in COMMANDS:
            if shown.command != SETUP:
                assert shown.matches(said := answer(shell, shown.command)), f"$ {shown.command}\n{said}"
            elif fresh:
                answer(shell, shown.command)
        assert shell.stdin
        shell.stdin.close()


def answer(shell: subprocess.Popen[str], command: str) -> str:
    """What a command prints in a shell."""
    assert shell.stdin
    assert shell.stdout
    # `srun` would hand the shell's own input, the commands to come, to its task
    shell.stdin.write(f"{{ {command}\n}} < /dev/null\necho; echo end-of-answer\n")
    shell.stdin.flush()
    lines = list[str]()
    while (line := shell.stdout.readline()) != "end-of-answer\n":
        assert line, "the shell has ended"
        lines.append(line)
    return "".join(lines).removesuffix("\n")


def test_a_page_that_shows_something_else_is_noticed() -> None:
    shown = Shown("x", ("2 of 2 objects published", "versions: .."))
    assert shown.matches("4 of 4 objects published\nversions: a 1, b 2\n")
    assert not shown.matches("2 of 2 objects quarantined\nversions: a 1\n")
    assert not shown.matches("2 of 2 objects published\n")


@pytest.fixture
def array(login: dict[str, str], tmp_path: Path) -> tuple[Path, dict[str, bytes], list[str]]:
    """An output, the dataset that an undisturbed run makes, and the arguments of sbatch that make it."""
    manifest = write_inputs(tmp_path, ["a", "b", "c", "d", "e", "f"])
    whole = undisturbed_dataset(tmp_path / "whole", manifest, load("test", [*tiny_arguments()[3::2], *MORE]))
    (tmp_path / "logs").mkdir()
    out = tmp_path / "out"
    options = [f"--output={tmp_path}/logs/%a.txt", "--cpus-per-task=1", "--mem=3G", f"--chdir={tmp_path}"]
    given = [SCRIPT, manifest, str(out), "2", *tiny_arguments(), *(w for more in MORE for w in ("--set", more))]
    return out, whole, ["sbatch", "--parsable", "--array=0-1", *options, *given]


def fits(out: Path) -> int:
    return sum(1 for _ in LocalStorage(out).list(f"{layout.WORK}{SPLATS}/"))


def log(out: Path, task: int) -> str:
    return (out.parent / "logs" / f"{task}.txt").read_text()


def ended(cluster: Slurm, job: str) -> bool:
    """Whether both tasks have; a failure is none."""
    states = [cluster.state(f"{job}_{task}") for task in (0, 1)]
    assert not {"FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"} & set(states), states
    return states == ["COMPLETED"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("how", ["requeue", "out of time", "preempted"])
def test_a_task_that_is_ended_in_the_middle_comes_back_and_finishes_with_the_same_bytes(
    how: str, cluster: Slurm, login: dict[str, str], array: tuple[Path, dict[str, bytes], list[str]]
) -> None:
    out, whole, command = array
    done = subprocess.run(command, env=login, capture_output=True, text=True, check=True, timeout=60)
    job = done.stdout.strip()
    until(lambda: fits(out) >= 1)
    if how == "requeue":
        cluster.say("scontrol", "requeue", f"{job}_0")
    elif how == "out of time":  # as Slurm warns, by --signal
        cluster.say("scancel", "--signal=USR1", "--batch", f"{job}_0")
    else:
        urgent = ["sbatch", "--wait", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null"]
        subprocess.run([*urgent, "--wrap", "true"], env=login, check=True, timeout=PATIENCE_S, capture_output=True)
    until(lambda: ended(cluster, job))
    assert "REQUEUE" in log(out, 0) or "PREEMPTION" in log(out, 0), log(out, 0)
    assert ("out of time: requeued" in log(out, 0)) == (how == "out of time")
    assert "The dataset is complete" in log(out, 0) + log(out, 1)
    assert dataset(LocalStorage(out)) == whole
    assert len(os.listdir(out.parent / "events")) == 2
