"""CPU seconds, user and system, of processes that run `import gaussianverse` and `gaussianverse --help`.

The baseline is `python -c pass`; the processes alternate.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from bench.record import keep

COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "import": [sys.executable, "-c", "import gaussianverse"],
    "help": [str(Path(sys.executable).parent / "gaussianverse"), "--help"],
    "reader": [sys.executable, "-c", "from gaussianverse import AtlasDataset"],
}


def cpu_seconds(command: list[str]) -> float:
    """CPU seconds of a process and its children."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    runs: int = parser.parse_args().runs
    for command in COMMANDS.values():
        cpu_seconds(command)  # warms byte code and the page cache
    times = [{name: cpu_seconds(command) for name, command in COMMANDS.items()} for _ in range(runs)]
    result: dict[str, float] = {f"{name}_cpu_s": round(median(run[name] for run in times), 3) for name in COMMANDS}
    for name in ("import", "help"):
        result[f"{name}_over_python_s"] = round(median(run[name] - run["python"] for run in times), 3)
    keep("startup", {"runs": runs, **result})


if __name__ == "__main__":
    main()
