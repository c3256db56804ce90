"""Runs tasks on Ray, on a cluster or on this machine."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from typing import Any

from gaussianverse.pipeline.config import RunConfig
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.errors import PipelineError, message
from gaussianverse.pipeline.node import machine
from gaussianverse.pipeline.node.memory import memory_shortage
from gaussianverse.pipeline.policy import INFRASTRUCTURE, failed
from gaussianverse.pipeline.run import ray_nodes, tasks
from gaussianverse.pipeline.run.executor import FIT, PACK, Job, Task
from gaussianverse.pipeline.run.following import PLACE
from gaussianverse.pipeline.run.steps import MOST, Shares, Teller

_ROOM_S = 300.0
"""Time limit for the look at a node's memory after a kill; a node without room may not even start it."""
_COUNT_S = 1.0
"""Seconds for which a count of the cluster's resources is used; asking its head for every task slows the driver."""


@dataclass(frozen=True)
class _Submitted:
    """A task under way, the nodes that were already dead when it was submitted, and the one it has for itself."""

    task: Task
    dead: frozenset[str]
    node: str = ""


def fit_object(job: Job, row: Facts, attempt: int, nan_losses: int, tell: Teller) -> Facts:
    """`tasks.fit_object`, which also says on which of Ray's nodes it ran."""
    result = tasks.fit_object(job, row, attempt, nan_losses, tell)
    return {**result, PLACE: import_module("ray").get_runtime_context().get_node_id()}


class RayExecutor:
    """Runs tasks as Ray tasks of one CPU; fits also get a share of a GPU if the configuration says so."""

    def __init__(self, ray: Any, config: RunConfig, job: Job) -> None:
        self._ray, self._job, self._gpus = ray, job, config.gpus_per_fit
        self._slots, self._counted = 1, -_COUNT_S
        self._most_excused = config.policy.kills
        self._look_at_nodes()
        self._submitted: dict[Hashable, _Submitted] = {}
        # Ray retries nothing: the driver decides which failures are retried
        plain = {"num_cpus": 1, "max_retries": 0}
        fit = {**plain, "num_gpus": self._gpus, "max_calls": config.ray.max_calls} if self._gpus else plain
        self._shares = Shares()
        self._fit = ray.remote(**fit)(fit_object)
        self._atlas = ray.remote(**plain)(tasks.atlas_object)
        self._pack = ray.remote(**plain)(tasks.pack_shard)

    def examine_nodes(self, config: RunConfig) -> None:
        """Check every node once, and compile its kernels.

        gsplat compiles at its first use, which takes minutes; a node that joins later compiles with its first fit.

        Raises:
            PipelineError: a node cannot do the work; the message names it.
        """
        nodes = [node for node in ray_nodes.living(self._ray) if ray_nodes.can_fit(node, self._gpus)]
        for address, fault in ray_nodes.on_each(self._ray, nodes, machine.examine_node, config, gpus=self._gpus):
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
            self._look_at_nodes()
            cpus = int(resources.get("CPU", 0))
            on_gpus = int(resources.get("GPU", 0) / self._gpus) if self._gpus else cpus
            self._slots = max(1, min(cpus, on_gpus))
        return self._slots

    def shares(self) -> dict[str, float]:
        """The share that is done, 0 to 1, of each fit under way by uid; of the oldest, and once its steps began."""
        fits = (str(one.task.row["uid"]) for one in self._submitted.values() if one.task.kind == FIT)
        return self._shares.read(islice(fits, min(MOST, self._slots)))

    def forget_shares(self) -> None:
        """Delete what fits told of their progress."""
        self._shares.forget()

    def submit(self, task: Task) -> Hashable:
        """See `Executor`."""
        attempt, node, options = task.history.attempts + 1, "", dict[str, Any]()
        if task.alone and task.kind != PACK:
            node, cores = self._largest_node()
            options = {"num_cpus": cores, **ray_nodes.only_on(node)}
        elif task.near and self._living > 1 and task.near not in self._dead:
            options = ray_nodes.only_on(task.near, soft=True)
        if task.kind == PACK:
            handle = self._pack.remote(self._job, task.stage, task.shard)
        elif task.kind == FIT:
            fit = self._fit.options(**options) if options else self._fit
            teller = self._shares.teller(str(task.row["uid"]), self._slots)
            handle = fit.remote(self._job, task.row, attempt, task.history.count("nan_loss"), teller)
        else:
            handle = (self._atlas.options(**options) if node else self._atlas).remote(self._job, task.row, attempt)
        self._submitted[handle] = _Submitted(task, self._dead, node)
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
            return self._killed("out_of_memory", error, submitted)
        except exceptions.NodeDiedError as error:
            return failed(INFRASTRUCTURE, error)
        except exceptions.WorkerCrashedError as error:
            # Ray also blames the worker, without naming its node, if the node was cut off and came back. A crash is
            # excused if a node has died since the task was submitted, but not for ever: an object may kill its
            # workers on a cluster whose nodes come and go
            self._look_at_nodes()
            excused = (
                submitted is not None
                and self._dead - submitted.dead
                and submitted.task.history.count(INFRASTRUCTURE) < self._most_excused
            )
            return failed(INFRASTRUCTURE, error) if excused else self._killed("worker_killed", error, submitted)
        except exceptions.RayTaskError as error:
            return failed("unknown", error.cause if isinstance(error.cause, Exception) else error)
        except exceptions.RayError as error:
            return failed(INFRASTRUCTURE, error)

    def cancel(self, handle: Hashable) -> None:
        """See `Executor`."""
        self._submitted.pop(handle, None)
        self._ray.cancel(handle, force=True)

    def _killed(self, reason: str, error: Exception, submitted: _Submitted | None) -> Facts:
        """The result of a task that was killed. One that was alone is to blame if its node has room without it.

        The task itself looks before it begins; where something else has the memory, it is killed before it can.
        """
        if submitted is not None and submitted.node and (text := self._shortage(submitted.node)):
            return failed(INFRASTRUCTURE, f"{text} ({message(error)})")
        return failed(reason, error)

    def _shortage(self, node: str) -> str:
        """Why no task on a node, on which none runs now, can be blamed for the memory; "" if one can."""
        look = self._ray.remote(num_cpus=1, max_retries=0)(memory_shortage)
        try:
            return str(self._ray.get(look.options(**ray_nodes.only_on(node)).remote(), timeout=_ROOM_S))
        except self._ray.exceptions.RayError as error:
            return (
                "the node is short of memory: a task that needs none did not come through either "
                f"({type(error).__name__}); end what else uses it"
            )

    def _largest_node(self) -> tuple[str, float]:
        """The living node with the most cores that can run fits, and their number; "" if there is none now."""
        nodes = [node for node in ray_nodes.living(self._ray) if ray_nodes.can_fit(node, self._gpus)]
        sizes = [(n["Resources"].get("CPU", 1), n["NodeID"]) for n in nodes]
        cores, node = max(sizes, default=(1, ""))
        return node, cores

    def _look_at_nodes(self) -> None:
        """Renew the ids of the nodes that have died, and the number of those that live."""
        nodes = self._ray.nodes()
        self._dead = frozenset(node["NodeID"] for node in nodes if not node["Alive"])
        self._living = len(nodes) - len(self._dead)
