"""Runs tasks on Ray, on a cluster or on this machine."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from importlib import import_module
from typing import Any

from gaussianverse.pipeline.config import RunConfig
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.errors import PipelineError, message
from gaussianverse.pipeline.node import machine
from gaussianverse.pipeline.policy import INFRASTRUCTURE, failed
from gaussianverse.pipeline.run import tasks
from gaussianverse.pipeline.run.executor import FIT, PACK, Job, Task

_EXAMINE_S = 1800.0
"""Time limit for a check of the nodes: gsplat takes minutes to compile."""
_COUNT_S = 1.0
"""Seconds for which a count of the cluster's resources is used; asking its head for every task slows the driver."""


class RayExecutor:
    """Runs tasks as Ray tasks of one CPU; fits also get a share of a GPU if the configuration says so."""

    def __init__(self, ray: Any, config: RunConfig, job: Job) -> None:
        self._ray, self._job, self._gpus = ray, job, config.gpus_per_fit
        self._slots, self._counted = 1, -_COUNT_S
        self._dead, self._most_excused = self._dead_nodes(), config.policy.kills
        self._submitted: dict[Hashable, tuple[Task, frozenset[str]]] = {}
        """Tasks under way, each with the nodes that were already dead when it was submitted."""
        # Ray retries nothing: the driver decides which failures are retried
        plain = {"num_cpus": 1, "max_retries": 0}
        fit = {**plain, "num_gpus": self._gpus, "max_calls": config.ray.max_calls} if self._gpus else plain
        self._fit = ray.remote(**fit)(tasks.fit_object)
        self._atlas = ray.remote(**plain)(tasks.atlas_object)
        self._pack = ray.remote(**plain)(tasks.pack_shard)

    def examine_nodes(self, config: RunConfig) -> None:
        """Check every node once, and compile its kernels.

        gsplat compiles at its first use, which takes minutes; a node that joins later compiles with its first fit.

        Raises:
            PipelineError: a node cannot do the work; the message names it.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        checks = {}
        for node in self._ray.nodes():
            if not node["Alive"] or not self._can_fit(node):
                continue
            check = self._ray.remote(num_cpus=1, num_gpus=self._gpus, max_retries=0)(machine.examine_node)
            strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            handle = check.options(scheduling_strategy=strategy).remote(config)
            checks[handle] = node["NodeManagerAddress"]
        for handle, address in checks.items():
            try:
                fault = self._ray.get(handle, timeout=_EXAMINE_S)
            except self._ray.exceptions.RayError as error:
                fault = message(error)
            if fault:
                raise PipelineError(f"node {address}: {fault}")

    @property
    def metrics(self) -> Any:
        """Ray's counters and gauges, `ray.util.metrics`."""
        return import_module("ray.util.metrics")

    def slots(self) -> int:
        """See `Executor`: limited by the CPUs and, if fits use them, by the GPUs; at most a second old."""
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
        attempt = task.history.attempts + 1
        if task.kind == PACK:
            handle = self._pack.remote(self._job, task.stage, task.shard)
        elif task.kind == FIT:
            fit = self._alone(self._fit) if task.alone else self._fit
            handle = fit.remote(self._job, task.row, attempt, task.history.count("nan_loss"))
        else:
            handle = (self._alone(self._atlas) if task.alone else self._atlas).remote(self._job, task.row, attempt)
        self._submitted[handle] = task, self._dead
        return handle  # type: ignore[no-any-return]

    def wait(self, handles: Sequence[Hashable], timeout_s: float) -> list[Hashable]:
        """See `Executor`."""
        ready, _ = self._ray.wait(list(handles), num_returns=1, timeout=timeout_s)
        if ready:  # collect the others that have ended
            ready, _ = self._ray.wait(list(handles), num_returns=len(handles), timeout=0)
        return list(ready)

    def result(self, handle: Hashable) -> Facts:
        """See `Executor`."""
        exceptions, submitted = self._ray.exceptions, self._submitted.pop(handle, None)
        try:
            return dict(self._ray.get(handle))
        except exceptions.TaskCancelledError as error:
            return failed("timeout", error)
        except exceptions.OutOfMemoryError as error:
            return failed("out_of_memory", error)
        except exceptions.NodeDiedError as error:
            return failed(INFRASTRUCTURE, error)
        except exceptions.WorkerCrashedError as error:
            # Ray also blames the worker, without naming its node, if the node was cut off and came back. A crash is
            # excused if a node has died since the task was submitted, but not for ever: an object may kill its
            # workers on a cluster whose nodes come and go
            self._dead = self._dead_nodes()
            excused = (
                submitted is not None
                and self._dead - submitted[1]
                and submitted[0].history.count(INFRASTRUCTURE) < self._most_excused
            )
            return failed(INFRASTRUCTURE if excused else "worker_killed", error)
        except exceptions.RayTaskError as error:
            return failed("unknown", error.cause if isinstance(error.cause, Exception) else error)
        except exceptions.RayError as error:
            return failed(INFRASTRUCTURE, error)

    def cancel(self, handle: Hashable) -> None:
        """See `Executor`."""
        self._submitted.pop(handle, None)
        self._ray.cancel(handle, force=True)

    def _alone(self, function: Any) -> Any:
        """A task that takes all cores of the largest node, so that no other runs beside it."""
        cores = [n["Resources"].get("CPU", 1) for n in self._ray.nodes() if n["Alive"] and self._can_fit(n)]
        return function.options(num_cpus=max(cores, default=1))

    def _can_fit(self, node: Any) -> bool:
        return bool(node["Resources"].get("CPU", 0) >= 1 and node["Resources"].get("GPU", 0) >= self._gpus)

    def _dead_nodes(self) -> frozenset[str]:
        return frozenset(node["NodeID"] for node in self._ray.nodes() if not node["Alive"])
