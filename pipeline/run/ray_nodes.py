"""Runs a function once on each node of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gaussianverse.pipeline.errors import PipelineError, message

_EXAMINE_S = 1800.0
"""Time limit for a check of the nodes: gsplat takes minutes to compile."""


def living(ray: Any) -> list[Any]:
    """Ray's facts about the nodes that live."""
    return [node for node in ray.nodes() if node["Alive"]]


def can_fit(node: Any, gpus: float) -> bool:
    """Whether a node has a core, and the share of a GPU that a fit takes."""
    return bool(node["Resources"].get("CPU", 0) >= 1 and node["Resources"].get("GPU", 0) >= gpus)


def only_on(node: str, *, soft: bool = False) -> dict[str, Any]:
    """Options of a task that runs on the node of this id only; if `soft`, also on others once it is gone."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=soft)}


def on_each(
    ray: Any, nodes: list[Any], function: Callable[..., Any], *args: Any, cpus: float = 1, gpus: float = 0
) -> Iterator[tuple[str, Any]]:
    """Run `function` on these nodes, on all at once; yield the address of each with what it returned.

    Yields:
        Address and result; in place of a result, the PipelineError that says why there is none. Nodes that left in
        the meantime are left out.
    """
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(function)
    handles = {task.options(**only_on(node["NodeID"])).remote(*args): node for node in nodes}
    for handle, node in handles.items():
        try:
            yield node["NodeManagerAddress"], ray.get(handle, timeout=_EXAMINE_S)
        except ray.exceptions.GetTimeoutError:
            text = f"its check did not end in {_EXAMINE_S / 60:.0f} minutes; wait until other runs leave a core free"
            yield node["NodeManagerAddress"], PipelineError(text)
        except ray.exceptions.RayError as error:
            if any(one["NodeID"] == node["NodeID"] for one in living(ray)):
                yield node["NodeManagerAddress"], PipelineError(message(error))
