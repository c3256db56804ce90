"""Starts Ray for a run, in a folder and with a token that no other user can read, or joins a cluster."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gaussianverse.fitter.threads import available_cores
from gaussianverse.pipeline.config import RunConfig
from gaussianverse.pipeline.errors import PipelineError, message
from gaussianverse.pipeline.interrupt import sigterm_kept
from gaussianverse.pipeline.run.executor import Job
from gaussianverse.pipeline.run.ray_executor import RayExecutor

_CONNECT_S = 5.0
"""Time limit for a name and a connection, and another for the first answer; Ray itself waits for minutes."""
_LONGEST_FOLDER = (107 if sys.platform == "linux" else 103) - 72
"""Characters of Ray's folder: what a socket's path has room for, less what Ray adds to it."""
# one thread per worker: the pipeline is parallel over objects
_WORKER_THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}


@contextmanager
def ray_executor(config: RunConfig, job: Job) -> Iterator[RayExecutor]:
    """Start Ray on 127.0.0.1, or join the cluster at `config.ray.address`; leave it at the end of the context.

    Raises:
        PipelineError: Ray does not start, or the cluster cannot be reached.
    """
    # Ray reads these switches from the environment when it is imported
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with ExitStack() as stack:
        if config.ray.address:
            options: dict[str, Any] = {"address": reachable(config.ray.address)}
        else:
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
            if "ray" not in sys.modules:
                # Ray's default for a new cluster; if it is set, Ray does not warn that it chose it
                os.environ.setdefault("RAY_AUTH_MODE", "token")
            options = {
                "address": "local",
                "num_cpus": config.ray.workers or available_cores(),
                "object_store_memory": config.ray.object_store_mb << 20,
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": str(stack.enter_context(private_folder())),
            }
        import ray

        stack.callback(ray.shutdown)
        environment = {"env_vars": _WORKER_THREADS}
        try:
            with sigterm_kept():
                ray.init(log_to_driver=False, configure_logging=False, runtime_env=environment, **options)
        except Exception as error:  # Ray raises as many kinds as it has parts, the plain Exception among them
            raise PipelineError(f"Ray did not start: {message(error)}") from error
        executor = RayExecutor(ray, config, job)
        if config.ray.address or config.gpus_per_fit:
            executor.examine_nodes(config)
        yield executor


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for Ray's sockets and logs that only this user can enter, and in it the token of this run.

    Ray makes everything below its folder writable for all, and keeps one token for all runs, readable for all.
    A token that the environment names is left in use.

    Raises:
        PipelineError: the folder cannot be made.
    """
    parent = ""
    try:
        parent = tempfile.gettempdir()
        if len(parent) > _LONGEST_FOLDER - len("/gv-ray-12345678/r"):
            parent = "/tmp"
        folder = Path(tempfile.mkdtemp(prefix="gv-ray-", dir=parent))  # 0700
    except OSError as error:
        raise PipelineError(
            f"no folder for Ray can be made{parent and f' in {parent}'} ({message(error)}); make room, or set TMPDIR"
        ) from error
    try:
        with _token(folder / "token"):
            yield folder / "r"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _token(path: Path) -> Iterator[None]:
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        yield
        return
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)  # Ray's processes inherit it
    _forget_token()
    try:
        yield
    finally:
        del os.environ["RAY_AUTH_TOKEN_PATH"]
        _forget_token()


def _forget_token() -> None:
    """Make a Ray that is loaded read its token again; it keeps that of an earlier run of this process."""
    if "ray" in sys.modules:
        with suppress(AttributeError):  # older than tokens
            import_module("ray._raylet").AuthenticationTokenLoader.instance().reset_cache()


def reachable(address: str) -> str:
    """The address of a Ray cluster, once something has answered there.

    Args:
        address: "host:port", "ray://host:port" of a Ray client server, or "auto" for a cluster of this machine.

    Raises:
        PipelineError: it has another form, or nothing that speaks Ray's protocol answers within seconds.
    """
    if address == "auto":
        try:
            address = str(import_module("ray._private.services").canonicalize_bootstrap_address(address))
        except Exception as error:
            raise PipelineError(f"Ray cluster at 'auto': {message(error)}") from error
    server, fault = _server(address), list[str]()
    probe = threading.Thread(target=lambda: fault.append(_fault_of(*server)), daemon=True)
    probe.start()
    probe.join(2 * _CONNECT_S)  # a name server may take longer than any time limit of a socket
    found = fault[0] if fault else "no answer"
    if found:
        raise PipelineError(
            f"Ray cluster at {address}: {found}; start the cluster (`ray start --head`), or correct the address"
        )
    return address


def _server(address: str) -> tuple[str, int, str]:
    """Host, port, and a call that the server there answers at once."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme not in _CALLS or parts.path.strip("/"):
        raise PipelineError(f"Ray cluster at {address!r}: expected host:port, ray://host:port, auto or local")
    return host, port, _CALLS[parts.scheme]


_CALLS = {"": "/ray.rpc.NodeInfoGcsService/CheckAlive", "ray": "/ray.rpc.RayletDriver/ClusterInfo"}
"""The call by the scheme of the address: that of a cluster's head, and that of its server for clients."""


def _fault_of(host: str, port: int, call: str) -> str:
    """Why no Ray answers there; "" if one does."""
    try:
        socket.create_connection((host, port), _CONNECT_S).close()
    except OSError as error:
        return message(error)
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return ""  # Ray has the certificates that an answer needs
    grpc = import_module("grpc")
    with grpc.insecure_channel(f"[{host}]:{port}" if ":" in host else f"{host}:{port}") as channel:
        try:
            channel.unary_unary(call, request_serializer=bytes, response_deserializer=bytes)(b"", timeout=_CONNECT_S)
        except grpc.RpcError as error:
            # other errors, such as a missing token, are answers; Ray says more about them
            if error.code().name in ("UNAVAILABLE", "UNIMPLEMENTED", "DEADLINE_EXCEEDED", "UNKNOWN"):
                return f"something listens there, but does not answer as Ray does ({error.code().name})"
    return ""
