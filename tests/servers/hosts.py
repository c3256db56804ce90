"""Hosts on a network of their own, on this machine: links are cut and mended, and hosts die whole.

A host is a set of Linux namespaces: its own network and address, host name, process ids, and folder for temporary
files; the rest of the disk is shared. The network is a bridge in a namespace of its own. So nothing of it touches
this machine's network, and nothing outlives the process that made it: each set of namespaces is held by a `cat` that
ends with its standard input, and everything in them, processes and links, ends with that `cat`.

    with network(2) as (hosts, wires):
        wires.cut(hosts[1])
        hosts[0].run("ping", "-c1", hosts[1].address)  # fails
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PROGRAMS = ("cat", "hostname", "ip", "mount", "nsenter", "unshare")
_CLONE_NEWNET = 0x40000000
_NOBODY = "02:00:00:00:00:00"


def why_not() -> str:
    """Why there can be no hosts here; "" if there can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"no {', '.join(missing)}; install iproute2 and util-linux"
    try:
        with network(2) as (hosts, _), hosts[0].here():
            pass
    except (OSError, subprocess.CalledProcessError) as fault:
        said = (getattr(fault, "stderr", "") or str(fault)).strip()
        return f"namespaces and bridges, which hosts are made of, cannot be made here: {said}"
    return ""


class Namespaces:
    """New namespaces of these kinds, and the process that keeps them."""

    def __init__(self, *options: str) -> None:
        pipe = subprocess.PIPE
        self._keeper = subprocess.Popen(["unshare", *options, "cat"], stdin=pipe, stdout=pipe, stderr=pipe)
        self.pid = self._keeper.pid
        with suppress(BrokenPipeError):
            self._keeper.stdin.write(b"\n")  # type: ignore[union-attr]
            self._keeper.stdin.flush()  # type: ignore[union-attr]
        if not self._keeper.stdout.readline():  # type: ignore[union-attr]  # it answers from within
            _, complaint = self._keeper.communicate()
            raise OSError(complaint.decode())

    def ip(self, *commands: str) -> None:
        """Commands of `ip`, on this network."""
        inside = ["nsenter", f"--net=/proc/{self.pid}/ns/net", "ip", "-batch", "-"]
        lines = "".join(f"{command}\n" for command in commands)
        subprocess.run(inside, input=lines, text=True, capture_output=True, check=True)

    def end(self) -> None:
        """Kill every process within, and return when they are dead. More than once does nothing."""
        self._keeper.communicate()


class Host(Namespaces):
    """A machine of its own, but for the disk.

    Attributes:
        name: its host name.
        address: its IPv4 address.
        folder: for temporary files; on every host the same path, and other files.
    """

    def __init__(self, number: int, folder: Path) -> None:
        super().__init__("--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        self.number, self.folder = number, folder
        self.name, self.address = f"host{number}", f"10.77.0.{number + 1}"
        self.hardware = f"02:00:0a:4d:00:{number + 1:02x}"
        try:
            self.run("hostname", self.name)
            self.run("mount", "-t", "tmpfs", "none", str(folder))
            self.ip("link set lo up")
        except BaseException:
            self.end()
            raise

    def start(
        self,
        *command: str,
        environment: Mapping[str, str] | None = None,
        stdout: int = subprocess.DEVNULL,
        stderr: int = subprocess.DEVNULL,
    ) -> subprocess.Popen[str]:
        """A process on this host, in the current folder; `environment` is added to this process's own."""
        spaces = {"net": "net", "uts": "uts", "mount": "mnt", "pid": "pid_for_children"}
        inside = [f"--{kind}=/proc/{self.pid}/ns/{name}" for kind, name in spaces.items()]
        return subprocess.Popen(
            ["nsenter", *inside, f"--wd={Path.cwd()}", *command],
            env={**os.environ, **(environment or {}), "TMPDIR": str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
        )

    def run(self, *command: str, environment: Mapping[str, str] | None = None, seconds: float = 60) -> str:
        """Run a command on this host; returns what it prints.

        Raises:
            CalledProcessError: it failed.
            TimeoutExpired: it did not end.
        """
        pipe = subprocess.PIPE
        with self.start(*command, environment=environment, stdout=pipe, stderr=pipe) as process:
            try:
                said, complaint = process.communicate(timeout=seconds)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command, said, complaint)
        return said

    @contextmanager
    def here(self) -> Iterator[None]:
        """Sockets that this thread makes meanwhile are on this host's network, now and later; so are those of
        threads that it starts."""
        libc = ctypes.CDLL(None, use_errno=True)

        def move(to: int) -> None:
            if libc.setns(to, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

        with open("/proc/thread-self/ns/net") as home, open(f"/proc/{self.pid}/ns/net") as away:
            move(away.fileno())
            try:
                yield
            finally:
                move(home.fileno())

    def processes(self) -> dict[int, str]:
        """The command line of each process, by the number that it has outside."""
        own = os.readlink(f"/proc/{self.pid}/ns/pid_for_children")
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                if os.readlink(process / "ns" / "pid") == own:
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(process.name)] = command.decode(errors="replace").strip()
        return found


class Wires(Namespaces):
    """The switch between hosts. What is lost on the way is lost without a word, as behind a router: nobody resets a
    connection, and nobody says that a host cannot be reached."""

    def __init__(self) -> None:
        super().__init__("--net")
        self._hosts: list[Host] = []
        self.ip("link add switch up type bridge forward_delay 0")

    def join(self, host: Host) -> None:
        """Plug a new host in."""
        self.ip(
            f"link add port{host.number} type veth peer name wire address {host.hardware} netns {host.pid}",
            f"link set port{host.number} up master switch",
        )
        host.ip(f"address add {host.address}/24 dev wire", "link set wire up")
        for other in self._hosts:
            self.mend_between(host, other)
        self._hosts.append(host)

    def cut(self, host: Host) -> None:
        """Unplug a host."""
        self.ip(f"link set port{host.number} down")

    def mend(self, host: Host) -> None:
        """Plug it in again."""
        self.ip(f"link set port{host.number} up")

    def cut_between(self, one: Host, other: Host) -> None:
        """Lose what these two say to each other, and nothing else."""
        _send(one, other, _NOBODY)
        _send(other, one, _NOBODY)

    def mend_between(self, one: Host, other: Host) -> None:
        """Let these two hear each other again."""
        _send(one, other, other.hardware)
        _send(other, one, one.hardware)


def _send(host: Host, to: Host, hardware: str) -> None:
    """Fix the hardware address by which `host` reaches another; else it would ask, and so notice who is gone."""
    host.ip(f"neighbour replace {to.address} lladdr {hardware} dev wire nud permanent")


@contextmanager
def network(count: int) -> Iterator[tuple[list[Host], Wires]]:
    """Hosts, plugged in, and their wires, for as long as the context lasts.

    Raises:
        OSError: there can be no namespaces here.
        CalledProcessError: there can be no such network here.
    """
    with ExitStack() as stack:
        # short, since Ray's sockets lie below it and a socket's path has room for 107 bytes
        folder = Path(tempfile.mkdtemp(prefix="hosts-", dir="/tmp"))
        stack.callback(folder.rmdir)
        wires = Wires()
        stack.callback(wires.end)
        hosts = []
        for number in range(count):
            host = Host(number, folder)
            stack.callback(host.end)
            wires.join(host)
            hosts.append(host)
        yield hosts, wires
