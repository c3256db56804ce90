"""Run tasks on Ray: a cluster that is joined, or Ray on this machine."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from gaussianverse.fitter.threads import available_cores
from gaussianverse.pipeline.config import RunConfig
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.errors import PipelineError, message
from gaussianverse.pipeline.node import machine
from gaussianverse.pipeline.policy import INFRASTRUCTURE, failed
from gaussianverse.pipeline.run import tasks
from gaussianverse.pipeline.run.executor import FIT, PACK, Job, Task

_EXAMINE_S = 1800.0
"""gsplat takes minutes to compile."""
_COUNT_S = 1.0
"""How old a count of the cluster's resources may be; asking its head for every task slows the driver."""


class RayExecutor:
    """Tasks as Ray tasks of one CPU, fits with a share of a GPU where the configuration says so."""

    def __init__(self, ray: Any, config: RunConfig, job: Job) -> None:
        self._ray, self._job, self._gpus = ray, job, config.gpus_per_fit
        self._slots, self._counted = 1, -_COUNT_S
        self._dead, self._pardons = self._dead_nodes(), config.policy.kills
        self._submitted: dict[Hashable, tuple[Task, frozenset[str]]] = {}
        """Tasks under way, and the nodes that were dead already when they were submitted."""
        # Ray retries nothing: the driver knows which faults deserve it
        plain = {"num_cpus": 1, "max_retries": 0}
        fit = {**plain, "num_gpus": self._gpus, "max_calls": config.ray.max_calls} if self._gpus else plain
        self._fit = ray.remote(**fit)(tasks.fit_object)
        self._atlas = ray.remote(**plain)(tasks.atlas_object)
        self._pack = ray.remote(**plain)(tasks.pack_shard)

    def examine_nodes(self, config: RunConfig) -> None:
        """Look once at every node whether it can do the work, and build there what workers need.

        gsplat compiles at its first use, which takes minutes; a node that joins later does so with its first fit.

        Raises:
            PipelineError: a node cannot; the message names it.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        checks = {}
        for node in self._ray.nodes():
            resources = node["Resources"]
            if not node["Alive"] or resources.get("CPU", 0) < 1 or resources.get("GPU", 0) < self._gpus:
                continue
            check = self._ray.remote(num_cpus=1, num_gpus=self._gpus, max_retries=0)(machine.examine_node)
            strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            handle = check.options(scheduling_strategy=strategy).remote(config)
            checks[handle] = node["NodeManagerAddress"]
        for handle, address in checks.items():
            try:
                fault = self._ray.get(handle, timeout=_EXAMINE_S)
            except self._ray.exceptions.RayError as raised:
                fault = message(raised)
            if fault:
                raise PipelineError(f"node {address}: {fault}")

    @property
    def metrics(self) -> Any:
        """Ray's counters and gauges, `ray.util.metrics`."""
        return import_module("ray.util.metrics")

    def slots(self) -> int:
        """See `Executor`: as many as CPUs, or as fit on the GPUs; as of a second ago at most."""
        now = time.monotonic()
        if now - self._counted >= _COUNT_S:
            resources, self._counted = self._ray.cluster_resources(), now
            self._dead = self._dead_nodes()
            cpus = int(resources.get("CPU", 0))
            on_gpus = int(resources.get("GPU", 0) / self._gpus) if self._gpus else cpus
            self._slots = max(1, min(cpus, on_gpus))
        return self._slots

    def submit(self, task: Task) -> Hashable:
        """See `Executor`."""
        if task.kind == PACK:
            handle = self._pack.remote(self._job, task.stage, task.shard)
        elif task.kind == FIT:
            handle = self._fit.remote(
                self._job, task.row, task.history.attempts + 1, task.history.count("nan_loss")
            )
        else:
            handle = self._atlas.remote(self._job, task.row, task.history.attempts + 1)
        self._submitted[handle] = task, self._dead
        return handle  # type: ignore[no-any-return]

    def wait(self, handles: Sequence[Hashable], timeout_s: float) -> list[Hashable]:
        """See `Executor`."""
        ready, _ = self._ray.wait(list(handles), num_returns=1, timeout=timeout_s)
        if ready:  # and whatever else has ended meanwhile
            ready, _ = self._ray.wait(list(handles), num_returns=len(handles), timeout=0)
        return list(ready)

    def result(self, handle: Hashable) -> Facts:
        """See `Executor`."""
        exceptions, submitted = self._ray.exceptions, self._submitted.pop(handle, None)
        try:
            return dict(self._ray.get(handle))
        except exceptions.TaskCancelledError as fault:
            return failed("timeout", fault)
        except exceptions.OutOfMemoryError as fault:
            return failed("out_of_memory", fault)
        except exceptions.NodeDiedError as fault:
            return failed(INFRASTRUCTURE, fault)
        except exceptions.WorkerCrashedError as fault:
            # Ray blames the worker where its node was cut off and came back, and does not say which node it was; an
            # object that does kill its workers must not be excused for ever where nodes come and go
            self._dead = self._dead_nodes()
            excused = (
                submitted is not None
                and self._dead - submitted[1]
                and submitted[0].history.count(INFRASTRUCTURE) < self._pardons
            )
            return failed(INFRASTRUCTURE if excused else "worker_killed", fault)
        except exceptions.RayTaskError as fault:
            return failed("unknown", fault.cause if isinstance(fault.cause, Exception) else fault)
        except exceptions.RayError as fault:
            return failed(INFRASTRUCTURE, fault)

    def cancel(self, handle: Hashable) -> None:
        """See `Executor`."""
        self._submitted.pop(handle, None)
        self._ray.cancel(handle, force=True)

    def _dead_nodes(self) -> frozenset[str]:
        return frozenset(node["NodeID"] for node in self._ray.nodes() if not node["Alive"])


# one thread per worker: the pipeline's parallelism is over objects
_WORKER_THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}


@contextmanager
def ray_executor(config: RunConfig, job: Job) -> Iterator[RayExecutor]:
    """Ray for as long as the context lasts: started on 127.0.0.1, or the cluster at `config.ray.address`.

    Raises:
        PipelineError: it does not start, or cannot be reached.
    """
    # Ray reads its own switches from the environment, and only at import
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not config.ray.address:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        if "ray" not in sys.modules:  # else it has read its switches, and decides by itself
            # its own default for a new cluster; said aloud, it need not warn of having chosen it
            os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    common: dict[str, Any] = {
        "log_to_driver": False,
        "configure_logging": False,
        "runtime_env": {"env_vars": _WORKER_THREADS},
    }
    start: Callable[..., Any] = ray.init
    try:
        if config.ray.address:
            start(address=config.ray.address, **common)
        else:
            start(
                address="local",
                num_cpus=config.ray.workers or available_cores(),
                object_store_memory=config.ray.object_store_mb << 20,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                **common,
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as fault:
        raise PipelineError(f"Ray did not start: {message(fault)}") from fault
    try:
        executor = RayExecutor(ray, config, job)
        if config.ray.address or config.gpus_per_fit:
            executor.examine_nodes(config)
        yield executor
    finally:
        ray.shutdown()
