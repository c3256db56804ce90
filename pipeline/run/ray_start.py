"""Starts Ray for a run, in a folder and with a token that no other user can read, or joins a cluster."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gaussianverse.fitter.threads import available_cores
from gaussianverse.pipeline.config import RunConfig
from gaussianverse.pipeline.errors import PipelineError, message
from gaussianverse.pipeline.interrupt import last_words, sigterm_kept
from gaussianverse.pipeline.run import ray_token
from gaussianverse.pipeline.run.executor import Job
from gaussianverse.pipeline.run.ray_executor import RayExecutor
from gaussianverse.pipeline.run.ray_folder import private_folder

_MEND = "start the cluster (`ray start --head`), or correct the address"
_CONNECT_S = 5.0
"""Time limit for a name and a connection, and another for the first answer; Ray itself waits for minutes."""
_VIEWS = "views"
"""Folder beside Ray's own for views that are fetched; it goes with the run."""
# one thread per worker: the pipeline is parallel over objects
_WORKER_THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}


@contextmanager
def ray_executor(config: RunConfig, job: Job) -> Iterator[RayExecutor]:
    """Start Ray on 127.0.0.1, or join the cluster at `config.ray.address`; leave it at the end of the context.

    Raises:
        PipelineError: Ray does not start, the cluster cannot be reached, or one of its nodes cannot do the work.
    """
    with ExitStack() as stack:
        folder = None
        if not config.ray.address:
            folder = stack.enter_context(private_folder())
            job = replace(job, scratch=str(folder.parent / _VIEWS))
        executor = RayExecutor(stack.enter_context(connected(config, folder)), config, job)
        if config.ray.address:
            stack.callback(executor.forget_shares)  # the cluster's head lives on
        if config.ray.address or config.gpus_per_fit:
            executor.examine_nodes(config)
        yield executor


@contextmanager
def connected(config: RunConfig, folder: Path | None = None) -> Iterator[Any]:
    """Yield the module `ray` once it runs here, or has joined the cluster at `config.ray.address`.

    Args:
        config: of the run.
        folder: of a Ray that runs here, which nobody else enters.

    Raises:
        PipelineError: Ray does not start, or the cluster cannot be reached or refuses the token.
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
                "_temp_dir": str(folder),
            }
        import ray

        stack.callback(ray.shutdown)
        environment = {"env_vars": _WORKER_THREADS}
        try:
            with sigterm_kept():
                ray.init(log_to_driver=False, configure_logging=False, runtime_env=environment, **options)
        except Exception as error:  # Ray raises as many kinds as it has parts, the plain Exception among them
            raise PipelineError(f"Ray did not start: {message(error)}") from error
        if not config.ray.address:
            stack.enter_context(last_words(_kill_own_processes))
        yield ray


def _kill_own_processes() -> None:
    """Kill the processes that `ray.init` started; workers end with them, and Ray's two agents a minute later."""
    node = import_module("ray._private.worker")._global_node
    node.kill_all_processes(check_alive=False, allow_graceful=False)


def reachable(address: str) -> str:
    """The address of a Ray cluster, once something has answered there.

    Args:
        address: "host:port", "ray://host:port" of a Ray client server, or "auto" for a cluster of this machine.

    Raises:
        PipelineError: it has another form, nothing that speaks Ray's protocol answers within seconds, or what
            answers refuses the token.
    """
    if address == "auto":
        try:
            address = str(import_module("ray._private.services").canonicalize_bootstrap_address(address))
        except Exception as error:
            raise PipelineError(f"Ray cluster at 'auto': {message(error)}") from error
    server, token, fault = _server(address), ray_token.shown(), list[str]()
    probe = threading.Thread(target=lambda: fault.append(_fault_of(*server, token)), daemon=True)
    probe.start()
    probe.join(2 * _CONNECT_S)  # a name server may take longer than any time limit of a socket
    found = fault[0] if fault else f"no answer; {_MEND}"
    if found:
        raise PipelineError(f"Ray cluster at {address}: {found}")
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


def _fault_of(host: str, port: int, call: str, token: ray_token.Shown) -> str:
    """Why no Ray that takes this token answers there, with the mend; "" if one does."""
    try:
        socket.create_connection((host, port), _CONNECT_S).close()
    except OSError as error:
        return f"{message(error)}; {_MEND}"
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return ""  # Ray has the certificates that an answer needs
    grpc = import_module("grpc")
    with grpc.insecure_channel(f"[{host}]:{port}" if ":" in host else f"{host}:{port}") as channel:
        ask = channel.unary_unary(call, request_serializer=bytes, response_deserializer=bytes)
        try:
            ask(b"", timeout=_CONNECT_S, metadata=token.metadata)
        except grpc.RpcError as error:
            code = error.code().name
            if code == "UNAUTHENTICATED":
                return ray_token.refused(token)
            # other errors are answers; Ray says more about them
            if code in ("UNAVAILABLE", "UNIMPLEMENTED", "DEADLINE_EXCEEDED", "UNKNOWN"):
                return f"something listens there, but does not answer as Ray does ({code}); {_MEND}"
    return ""
