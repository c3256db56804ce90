"""Slurm, with two nodes on this machine: munged, slurmctld and a slurmd per node, in a folder of their own.

apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge

    with serving(folder) as slurm:
        run("sbatch", .., environment=slurm.environment)
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.processes import Processes, free_ports, processes

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "sinfo", "squeue")
NODES = ("node1", "node2")

# Jobs of `urgent` preempt those of `spot`, which are requeued. There are no cgroups here, and the four cores of the
# two nodes are those of one machine. A requeued job waits until its old credential has expired.
_CONFIG = """\
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=2
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmdSpoolDir={folder}/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
MinJobAge=3600
{nodes}
PartitionName=spot Nodes=ALL Default=YES PriorityTier=1
PartitionName=urgent Nodes=ALL PriorityTier=10
"""


def why_not() -> str:
    """Why it cannot run here; "" if it can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"no {', '.join(missing)}; install Slurm and munge, see tests/servers/slurm.py"
    return "" if os.geteuid() == 0 else "slurmd is started as root"


@dataclass(frozen=True)
class Slurm:
    """A cluster that runs.

    Attributes:
        environment: in which Slurm's commands find it.
    """

    environment: dict[str, str]

    def say(self, *command: str) -> str:
        """Run one of Slurm's commands; returns what it prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    def state(self, job: str) -> str:
        """State of a job or a task of an array, such as RUNNING."""
        words = self.say("scontrol", "--oneliner", "show", "job", job).split()
        return next(word.removeprefix("JobState=") for word in words if word.startswith("JobState="))


@contextmanager
def serving(folder: Path) -> Iterator[Slurm]:
    """A controller and two nodes of two cores each, for as long as the context lasts."""
    host, (controller, *ports) = socket.gethostname().partition(".")[0], free_ports(1 + len(NODES))
    for name in ("state", *NODES):
        (folder / name).mkdir(parents=True)
    nodes = [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=4000"
        for name, port in zip(NODES, ports, strict=True)
    ]
    config, key = folder / "slurm.conf", folder / "munge.key"
    text = _CONFIG.format(host=host, controller=controller, folder=folder, nodes="\n".join(nodes))
    config.write_text(text)
    key.write_bytes(secrets.token_bytes(64))
    key.chmod(0o600)
    slurm = Slurm({**os.environ, "SLURM_CONF": str(config)})
    with processes(folder) as started:
        _start(started, folder, key, config)
        started.until(lambda: _idle(slurm), "Slurm")
        try:
            yield slurm
        finally:
            # jobs are children of no daemon here, and would outlive them
            slurm.say("scancel", "--full", "--signal=KILL", "--user=root")
            slurm.say("scancel", "--user=root")
            started.until(lambda: not slurm.say("squeue", "--noheader"), "the end of all jobs")


def _start(started: Processes, folder: Path, key: Path, config: Path) -> None:
    files = {"key": key, "socket": folder / "munge.sock", "pid": folder / "munged.pid", "log": folder / "munged.log"}
    options = [f"--{name}-file={path}" if name != "socket" else f"--socket={path}" for name, path in files.items()]
    started.start("munged", "munged", "--foreground", "--force", f"--seed-file={folder}/munge.seed", *options)
    started.until((folder / "munge.sock").exists, "munged")
    started.start("slurmctld", "slurmctld", "-D", "-f", str(config))
    for name in NODES:
        started.start(name, "slurmd", "-D", "-N", name, "-f", str(config))


def _idle(slurm: Slurm) -> bool:
    try:
        return slurm.say("sinfo", "--noheader", "--format=%t %D").split()[:2] == ["idle", str(len(NODES))]
    except subprocess.CalledProcessError:
        return False
