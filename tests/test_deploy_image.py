"""deploy/Containerfile: its instructions as they stand, in a mount namespace in place of a container engine.

/opt, /etc/profile.d and /root/.cache are empty there, so that nothing is found but what the instructions install.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NEEDS = {"apt-get": "Ubuntu", "python -m gaussianverse.pipeline.node.gpu": "nvcc"}
"""How commands begin that need what is not here, and what that is; docs/gpu.md tells how the second was tried."""
EMPTY = ("/opt", "/etc/profile.d", "/root/.cache")


def namespaces() -> bool:
    """Whether this process may make mount namespaces."""
    if not shutil.which("unshare"):
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


def instructions() -> Iterator[tuple[str, str]]:
    """Instructions of the Containerfile and their arguments, with continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "deploy" / "Containerfile").read_text(), flags=re.M)
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            yield line.split()[0], line.split(maxsplit=1)[1]


def script() -> str:
    """The instructions in the language of the shell."""
    lines = ["set -eu"]
    for name, rest in instructions():
        if name == "WORKDIR":
            lines.append(f"mkdir -p {rest} && cd {rest}")
        elif name == "COPY":
            *files, target = shlex.split(rest)
            given = shlex.join(str(ROOT / file) for file in files)
            lines.append(f"cp -a {given} {target}" if target == "./" else f"cp -aT {given} {target}")
        elif name == "ENV":
            lines += [f"export {word}" for word in re.findall(r'\w+=(?:"[^"]*"|\S+)', rest)]
        elif name == "RUN" and not rest.startswith(tuple(NEEDS)):
            lines.append(rest)
        elif name == "CMD":
            lines.append(shlex.join(json.loads(rest)))
    return "\n".join(lines)


def test_it_copies_all_rooms_and_files_that_exist() -> None:
    copied = [word for name, rest in instructions() if name == "COPY" for word in shlex.split(rest)[:-1]]
    links = {path.name for path in (ROOT / "gaussianverse").iterdir() if path.is_symlink()}
    assert {"gaussianverse", *links} <= set(copied)
    assert all((ROOT / name).exists() for name in copied)


def test_what_cannot_run_here_is_what_is_named() -> None:
    left_out = [rest for name, rest in instructions() if name == "RUN" and rest.startswith(tuple(NEEDS))]
    assert len(left_out) == len(NEEDS)
    assert {name for name, _ in instructions()} == {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "CMD"}


@pytest.mark.slow
@pytest.mark.skipif(not namespaces(), reason="no right to make mount namespaces")
def test_its_instructions_make_an_environment_that_does_the_whole_job() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as work:
        job = f"""\
cd {work}
test "$(command -v gaussianverse)" = /opt/venv/bin/gaussianverse
gaussianverse doctor --profile test --out out
gaussianverse fit-shard --sample --profile test --out out
gaussianverse verify --out out
bash -lc 'command -v ray'
"""
        empty = "".join(f"mkdir -p {work}{path} {path} && mount --bind {work}{path} {path}\n" for path in EMPTY)
        # `python3` is the one below the tests' environment
        path = f"{Path(sys.executable).resolve().parent}:/usr/local/bin:/usr/bin:/bin"
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL", "RAY_"))
        }
        command = ["unshare", "--mount", "bash", "-c", f"{empty}{script()}\n{job}"]
        environment = {**kept, "PATH": path, "HOME": "/root"}
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, env=environment, timeout=1800)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "every byte, sample and hash is right" in done.stdout
    assert done.stdout.endswith("/opt/venv/bin/ray\n")
