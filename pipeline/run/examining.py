"""Checks that a machine can do the work of a run: what it computes, draws, reads and writes. `doctor` prints them.

On a cluster each node checks itself, with its own files, credentials and clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.errors import NotFound, StoreError
from gaussianverse.fitter.errors import BackendUnavailable
from gaussianverse.fitter.native import library
from gaussianverse.manifests.errors import RenderError
from gaussianverse.manifests.rendering import drawing
from gaussianverse.pipeline.config import RunConfig
from gaussianverse.pipeline.errors import PipelineError, message
from gaussianverse.pipeline.node import clock, gpu, hardware, machine
from gaussianverse.pipeline.node.gpu import Finding
from gaussianverse.pipeline.run import inputs
from gaussianverse.pipeline.store.probes import prove_conditional_puts, prove_rights


@dataclass(frozen=True)
class Asked:
    """What a machine must be able to do.

    Attributes:
        config: of the run.
        out: address of the output; "" = none.
        views: addresses of objects' views that must be readable.
        render: whether it draws meshes.
    """

    config: RunConfig
    out: str = ""
    views: tuple[str, ...] = ()
    render: bool = False


def work(asked: Asked) -> Iterator[Finding]:
    """Check what a fit needs of this machine, and what drawing needs if that is asked."""
    config = asked.config
    if config.fit.backend == "gsplat":
        yield from gpu.examine()
    elif devices := hardware.devices():
        yield Finding("gpu", True, ", ".join(device.name for device in devices))
    else:
        yield Finding("gpu", True, "none that torch can see; profiles `quick`, `cpu` and `test` need none")
    yield _check("fitting", lambda: machine.check_machine(config.fit), f"backend {config.fit.backend} can run here")
    yield _native()
    yield _check("kernels", lambda: machine.warm_up(config.fit, config.atlas), "run here; those of Numba are cached")
    if asked.render:
        yield _check("rendering", drawing.check, "meshes can be drawn")


def stores(asked: Asked) -> Iterator[Finding]:
    """Check that this machine reads the views, reads and writes the output, and has the time of the store."""
    if asked.out:
        storage, before = open_storage(asked.out, asked.config.store), clock.now()
        told: list[float | None] = []
        reached = _check("store", lambda: told.append(storage.clock()), "")
        if not reached.ok:
            yield reached
        elif (found := told[0]) is not None:
            yield clock.judge(f"the clock of {storage.url}", found, before, clock.now())
        if reached.ok:

            def prove() -> None:
                prove_rights(storage)
                prove_conditional_puts(storage)

            yield _check("store", prove, f"{storage.url}: may be listed, read and written; conditional puts hold")
    if asked.views:

        def read() -> None:
            for address in asked.views:
                with inputs.local(address, asked.config.store) as path:
                    if not path.exists():
                        raise inputs.NoViews(f"{address}: no views at this address on this machine")

        yield _check("views", read, f"{' and '.join(asked.views)} can be read")


def faults(asked: Asked) -> list[Finding]:
    """What keeps this machine, a node of a cluster, from the work."""
    return [finding for check in (work, stores) for finding in check(asked) if not finding.ok]


def _native() -> Finding:
    try:
        return Finding("native", True, f"CPU kernels for {library.instruction_set()}")
    except BackendUnavailable as error:
        return Finding("native", False, message(error))


def _check(name: str, check: Callable[[], object], text: str) -> Finding:
    try:
        check()
    except (PipelineError, StoreError, NotFound, RenderError, OSError) as error:
        return Finding(name, False, message(error))
    return Finding(name, True, text)
