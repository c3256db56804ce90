"""How many fits a GPU should run at once, in processes or in threads with streams, and memory over many fits."""

from __future__ import annotations

import dataclasses
import multiprocessing
import queue
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from bench.gpu.clock import Clock
from bench.gpu.fits import views_of
from bench.gpu.steps import shortened
from bench.gpu.target import Target, standing_in
from gaussianverse.fitter import FitConfig, fit_object
from gaussianverse.fitter.memory import peak_mb, reset_peak

_NEAR = 0.95
"""A smaller number of fits at once is as good as a larger one if it does this share of its steps."""


def _worker(target: Target, folder: Path, config: FitConfig, tasks: Any, results: Any) -> None:
    """Fit whenever a number of steps comes, until None comes; the first fit loads what is loaded once."""
    with standing_in(target):
        views = views_of(folder, target.fitted(config).size)
        while (steps := tasks.get()) is not None:
            try:
                fit_object(views, shortened(target, config, steps))
                results.put((target.peak_mb(), ""))
            except Exception as error:
                results.put((0.0, f"{type(error).__name__}: {error}"))


def at_once(target: Target, folder: Path, config: FitConfig, clock: Clock) -> dict[str, Any]:
    """Steps per second of all processes together, by their number, and the smallest number near the best."""
    context, sizes = multiprocessing.get_context("spawn"), target.sizes
    results = context.Queue()
    tasks = [context.Queue() for _ in range(max(sizes.at_once))]
    workers = [
        context.Process(target=_worker, args=(target, folder, config, each, results), daemon=True) for each in tasks
    ]
    for worker in workers:
        worker.start()

    def together(count: int, steps: int) -> tuple[float, list[float]]:
        start = time.perf_counter()
        for each in tasks[:count]:
            each.put(steps)
        try:
            found = [results.get(timeout=max(1.0, clock.left())) for _ in range(count)]
        except queue.Empty:
            raise RuntimeError(f"{count} fits at once did not end in the time left") from None
        if errors := [error for _, error in found if error]:
            raise RuntimeError(f"{count} fits at once: {errors[0]}")
        return time.perf_counter() - start, [mb for mb, _ in found]

    table: list[dict[str, Any]] = []
    try:
        started, _ = together(len(workers), max(3, sizes.loaded // 10))
        for count in sizes.at_once:
            seconds, memory = together(count, sizes.loaded)
            rate = count * sizes.loaded / seconds
            table.append({"fits": count, "seconds": seconds, "steps_per_s": rate, "gpu_mb_each": max(memory)})
    except RuntimeError as error:
        return {"table": table, "error": str(error)}
    finally:
        for worker, each in zip(workers, tasks, strict=True):
            each.put(None)
            worker.join(timeout=3)
            if worker.is_alive():
                worker.terminate()
    best = max(row["steps_per_s"] for row in table)
    chosen = next(row["fits"] for row in table if row["steps_per_s"] >= _NEAR * best)
    return {"start_s": started, "table": table, "best": chosen, "gpus_per_fit": 1 / chosen}


def streams(target: Target, folder: Path, config: FitConfig) -> list[dict[str, Any]]:
    """Steps per second of threads of one process together, each with a stream of its own."""
    views, steps = views_of(folder, target.fitted(config).size), target.sizes.loaded
    short = shortened(target, config, steps)

    def one(seed: int) -> None:
        stream: AbstractContextManager[Any] = nullcontext() if target.dry else torch.cuda.stream(torch.cuda.Stream())
        with stream:
            fit_object(views, short, seed=seed)

    table = []
    for count in target.sizes.at_once[:3]:
        target.synchronize()
        start = time.perf_counter()
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(one, range(count)))
        target.synchronize()
        seconds = time.perf_counter() - start
        table.append({"fits": count, "seconds": seconds, "steps_per_s": count * steps / seconds})
    return table


def growth(target: Target, folder: Path, config: FitConfig, clock: Clock) -> dict[str, Any]:
    """Memory on the GPU and of the process after many short fits, against that after the first ten."""
    steps, size = target.sizes.short
    short = dataclasses.replace(shortened(target, config, steps), size=size, start_size=0, start_until=0.0)
    views, marks = views_of(folder, size), list[tuple[float, float]]()
    for k in range(target.sizes.fits):
        reset_peak()
        fit_object(views, short, seed=k)
        marks.append((target.allocated_mb(), peak_mb()))
        if clock.left() == 0:
            break
    first, last = marks[min(9, len(marks) - 1)], marks[-1]
    return {
        "fits": len(marks),
        "gpu_growth_mb": last[0] - first[0],
        "process_growth_mb": last[1] - first[1],
        "process_mb": last[1],
    }
