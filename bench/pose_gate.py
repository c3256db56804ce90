"""`python -m bench.pose_gate`: what the pose gate says of right sets of views and of wrong ones.

Silhouettes are drawn by the product's own renderer: meshes of two collections and objects made to be hard, from the
product's rig (A), random cameras (B) and GObjaverse's own (G). docs/pose-gate.md draws the conclusion.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from bench import pose_sets as sets
from bench.objects import SHARED
from bench.pose_render import through_verb
from bench.pose_sets import Array, Posed
from bench.record import keep
from gaussianverse.fitter.agreement import check
from gaussianverse.fitter.agreement.kernels import MARGIN
from gaussianverse.fitter.agreement.silhouettes import silhouettes
from gaussianverse.fitter.agreement.suggestions import suggest
from gaussianverse.fitter.agreement.verdict import AGREES, Verdict
from gaussianverse.manifests.errors import RenderError

FLIP = np.array([1.0, -1.0, -1.0, 1.0])
GROSS = ("inverse", "y and z flipped", "inverse, flipped", "transposed", "sides swapped")
_DIFFERENT = 4  # squared pixels of 96 by which silhouettes differ in a way that can be seen


def exact(posed: Posed, rng: np.random.Generator, rig: str) -> Iterator[tuple[str, Posed]]:
    """Yield right sets of all views and of some."""
    every = np.arange(len(posed.alpha))
    yield f"{rig}, all views", posed
    for count in (32, 20, 8, 4, 3, 2):
        yield f"{rig}, {count} views", posed.some(np.sort(rng.permutation(every)[:count]))


def right(posed: Posed, rng: np.random.Generator, rig: str) -> Iterator[tuple[str, Posed]]:
    """Yield right sets, exact and inexact."""
    yield from exact(posed, rng, rig)
    yield (
        f"{rig}, 64 px",
        posed._replace(alpha=_halved(posed.alpha), K=posed.K * [[0.5, 1, 0.5], [1, 0.5, 0.5], [1, 1, 1]]),
    )
    yield f"{rig}, poses off by 0.15 degrees", sets.jittered(posed, 0.15, rng)
    yield f"{rig}, poses off by 0.4 degrees", sets.jittered(posed, 0.4, rng)
    yield f"{rig}, alpha cut", sets.cut(posed)
    yield f"{rig}, masks grown or shrunk", sets.grown(posed, rng)
    yield f"{rig}, masks segmented", sets.segmented(posed, rng)
    yield f"{rig}, world x 0.001 at UTM", sets.placed(posed, 1e-3, (500_000.0, 5_600_000.0, 300.0))
    yield f"{rig}, world x 1000", sets.placed(posed, 1e3, (0.0, 0.0, 0.0))
    if rig != "B":  # margins around an object that is cropped say that there is nothing
        yield f"{rig}, in a corner", sets.in_a_corner(posed)
    yield f"{rig}, cropped to 69 %", sets.cropped(posed, 0.69)
    yield f"{rig}, cropped to 40 %", sets.cropped(posed, 0.4)
    yield f"{rig}, 4:3", sets.wide(posed)


def _halved(alpha: sets.Bytes) -> sets.Bytes:
    V, H, W = alpha.shape
    return np.rint(alpha.reshape(V, H // 2, 2, W // 2, 2).mean((2, 4))).astype(np.uint8)


def swapped(K: Array) -> Array:
    other = K.copy()
    other[:, [0, 1], [0, 1]], other[:, [0, 1], [2, 2]] = K[:, [1, 0], [1, 0]], K[:, [1, 0], [2, 2]]
    return other


def wrong(posed: Posed) -> Iterator[tuple[str, str, Posed]]:
    """Yield the name of a fault, a word of the suggestion that is right ("" if none is), and the set."""
    alpha, c2w, K = posed
    V = len(alpha)
    turned, quarter, half = c2w.copy(), c2w.copy(), c2w.copy()
    turned[:, :3, :3] = np.swapaxes(c2w[:, :3, :3], 1, 2)
    quarter[V // 2 :] = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ quarter[V // 2 :]
    half[V // 2 :, :3, 3] *= 1.2
    longer = sets.wide(posed)
    text = np.array(sorted(range(V), key=str))
    yield "inverse", "they are world-to-camera", posed._replace(c2w=np.linalg.inv(c2w))
    yield "y and z flipped", "y and z axes", posed._replace(c2w=c2w * FLIP)
    yield "inverse, flipped", "inverted and then", posed._replace(c2w=np.linalg.inv(c2w * FLIP))
    yield "transposed", "transposed", posed._replace(c2w=turned)
    yield "sides swapped", "width and height", longer._replace(K=swapped(longer.K))
    yield "mirrored", "left to right", posed._replace(alpha=alpha[:, :, ::-1])
    yield "upside down", "top to bottom", posed._replace(alpha=alpha[:, ::-1])
    yield "half a turn", "half a turn", posed._replace(alpha=alpha[:, ::-1, ::-1])
    yield "quarter turn", "turned left", posed._replace(alpha=np.rot90(alpha, -1, (1, 2)))
    yield "one picture", "", posed._replace(alpha=np.repeat(alpha[:1], V, 0))
    yield "one pose late", "before its own", posed._replace(alpha=np.roll(alpha, 1, 0))
    yield "reversed", "reverse", posed._replace(alpha=alpha[::-1])
    yield "ordered as text", "pictures are ordered by number", posed._replace(alpha=alpha[text])
    yield "half the world turned", "", posed._replace(c2w=quarter)
    yield "half at 1.2 times the distance", "", posed._replace(c2w=half)
    yield "field of view 49.1 for 39.6", "focal lengths", posed._replace(K=K * _zoom(0.788))
    yield "float32 at 5e5", "", posed._replace(c2w=_rounded(c2w))
    yield "alpha inverted", "alpha is inverted", posed._replace(alpha=255 - alpha)


def _zoom(factor: float) -> Array:
    return np.array([[factor, 1, 1], [1, factor, 1], [1, 1, 1]])


def _rounded(c2w: Array) -> Array:
    far = c2w.copy()
    far[:, :3, 3] = (c2w[:, :3, 3] + 5e5).astype(np.float32) - 5e5
    return far


def single(posed: Posed, rng: np.random.Generator) -> Iterator[tuple[str, Posed, set[int]]]:
    """Yield sets in which few views are wrong, and which."""
    some = rng.permutation(len(posed.alpha))[:5]
    v = int(some[0])
    pose = posed.c2w[v]
    angle = np.radians(10)
    aside, orbit = np.eye(4), np.eye(4)
    aside[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    orbit[:3, :3] = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    permuted = posed.alpha.copy()
    permuted[some] = posed.alpha[np.roll(some, 1)]
    yield "5 pictures permuted", posed._replace(alpha=permuted), set(some.tolist())
    for name, other in (("one looks 10 degrees aside", pose @ aside), ("one orbits by 10 degrees", orbit @ pose)):
        c2w = posed.c2w.copy()
        c2w[v] = other
        yield name, posed._replace(c2w=c2w), {v}
    mirrored = posed.alpha.copy()
    mirrored[v] = mirrored[v, :, ::-1]
    yield "one mirrored", posed._replace(alpha=mirrored), {v}


def visible(fault: Posed, truth: Posed) -> bool:
    """Whether pictures of a fault differ from the true ones by more than 2 px of 96 in a quarter of the views."""
    a, b = silhouettes(np.ascontiguousarray(fault.alpha)), silhouettes(truth.alpha)
    if a.solid.shape != b.solid.shape:
        return True
    inner = np.s_[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    differ = (a.solid & (b.beyond[inner] > _DIFFERENT)) | (b.solid & (a.beyond[inner] > _DIFFERENT))
    return bool(differ.any((1, 2)).mean() >= 0.25)


class Table:
    """Counts by name of a set."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.seconds: list[float] = []

    def judge(self, name: str, posed: Posed, **more: Any) -> Verdict:
        start = time.thread_time()
        found = check(np.ascontiguousarray(posed.alpha), posed.c2w, posed.K)
        if len(posed.alpha) == 40:
            self.seconds.append(time.thread_time() - start)
        row = {"outcome": found.outcome, "agreement": found.agreement, "wrong": len(found.wrong)}
        self.rows[name].append({**row, **more})
        return found

    def summary(self) -> dict[str, Any]:
        return {name: _summary(rows) for name, rows in self.rows.items()}


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    told = [r["agreement"] for r in rows if r["agreement"] >= 0]
    found: dict[str, Any] = {"sets": len(rows)}
    for outcome in ("agrees", "doubtful", "refused", "cannot tell"):
        found[outcome] = sum(r["outcome"] == outcome for r in rows)
    found["wrong_views"] = sum(r["wrong"] for r in rows)
    if told:
        found["agreement"] = [round(float(q), 4) for q in np.quantile(told, (0, 0.01, 0.5, 1))]
    seen = [r for r in rows if r.get("seen", False)]
    if seen:
        found |= {"seen": len(seen), "seen_told": sum(r["outcome"] != "agrees" for r in seen)}
        found["seen_refused"] = sum(r["outcome"] == "refused" for r in seen)
    return found


def measure(
    name: str, drawn: dict[str, Posed], tables: dict[str, Table], few: dict[str, list[int]], ask: bool
) -> None:
    """Judge all right and wrong sets of one object."""
    rng = np.random.default_rng(len(name))
    kind = "flat" if name in sets.FLAT else "solid"
    for rig, posed in drawn.items():
        for what, posed_so in right(posed, rng, rig):
            found = tables[f"right, {kind}"].judge(what, posed_so)
            if found.outcome == "refused" or (found.wrong and "views" in what):
                sys.stderr.write(f"{name}: {what}: {found}\n")
        for fault, word, posed_so in wrong(posed):
            if rig == "G" and fault not in GROSS:
                continue
            at_all = rig != "A" or posed_so.alpha is posed.alpha or visible(posed_so, posed)
            found = tables["wrong"].judge(f"{rig}, {fault}", posed_so, seen=at_all)
            if ask and found.outcome != "agrees":
                _ask(few, fault, word, posed_so)
        if kind == "solid" and rig != "G":
            for fault, posed_so, bad in single(posed, rng):
                found = tables["single"].judge(f"{rig}, {fault}", posed_so)
                hits = len(bad & set(found.wrong))
                _add(few, f"{rig}, {fault}", hits, len(found.wrong), len(bad))


def _add(few: dict[str, list[int]], name: str, *counts: int) -> None:
    few[name] = [a + b for a, b in zip(few.get(name, [0, 0, 0]), counts, strict=True)]


def _ask(few: dict[str, list[int]], fault: str, word: str, posed: Posed) -> None:
    said = suggest(np.ascontiguousarray(posed.alpha), posed.c2w, posed.K)
    good = said is not None and bool(word) and word in said.text
    if said is not None and not good:
        sys.stderr.write(f"{fault}: suggested {said.text} ({said.agreement:.3f})\n")
    _add(few, f"suggested, {fault}", int(good), int(said is not None), 1)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--meshes", type=int, default=30, help="meshes of the collection (default: 30)")
    parser.add_argument("--held-out", type=int, default=24, help="further meshes, only right sets (default: 24)")
    parser.add_argument("--all", type=int, default=1000, help="meshes for the rig of the product alone")
    parser.add_argument(
        "--render-verb", type=int, metavar="PX", help="instead, all meshes through `gaussianverse render --size PX`"
    )
    options = parser.parse_args(arguments)
    if options.render_verb:
        files = sorted(sets.quaternius())[: options.all]
        keep("pose_gate_render", through_verb(files, options.render_verb))
        return 0
    tables = {name: Table() for name in ("right, solid", "right, flat", "wrong", "single", "held out", "all meshes")}
    few: dict[str, list[int]] = {}
    files = sets.quaternius() if SHARED.is_dir() else []
    others = sorted((SHARED / "meshes").rglob("*.glb"))
    objects = [*sets.made().items(), *sets.meshes(others), *sets.meshes(files[: options.meshes])]
    try:
        first = sets.draw(objects[0][1], {"A": sets.rigs_of(objects[0][1], 0)["A"]})["A"]
    except RenderError as error:
        sys.stderr.write(f"nothing can be drawn: {error}\n")
        return 1
    check(first.alpha[::-1].copy(), first.c2w, first.K)  # compiles, or loads what was compiled
    for name, mesh in sets.meshes(sorted(files)[: options.all]):
        drawn = sets.draw(mesh, {"A": sets.rigs_of(mesh, 0)["A"]})["A"]
        if tables["all meshes"].judge("A", drawn).outcome != "agrees":
            sys.stderr.write(f"{name}: {tables['all meshes'].rows['A'][-1]}\n")
    sys.stderr.write(f"{len(tables['all meshes'].rows['A'])} meshes judged\n")
    for i, (name, mesh) in enumerate(objects):
        measure(name, sets.draw(mesh, sets.rigs_of(mesh, i)), tables, few, ask=i % 5 == 0)
    for i, (_, mesh) in enumerate(sets.meshes(files[options.meshes : options.meshes + options.held_out])):
        for rig, posed in sets.draw(mesh, sets.rigs_of(mesh, 1000 + i)).items():
            for what, posed_so in exact(posed, np.random.default_rng(i), rig):
                tables["held out"].judge(what, posed_so)
    keep("pose_gate", result(tables, few, len(objects)))
    return 0


def result(tables: dict[str, Table], few: dict[str, list[int]], objects: int) -> dict[str, Any]:
    rights = [
        r for n in ("right, solid", "right, flat", "held out") for rows in tables[n].rows.values() for r in rows
    ]
    seconds = [s for table in tables.values() for s in table.seconds]
    return {
        "objects": objects,
        "right_sets": len(rights),
        "right_refused": sum(r["outcome"] == "refused" for r in rights),
        "meshes": len(tables["all meshes"].rows["A"]),
        "meshes_refused": sum(r["outcome"] == "refused" for r in tables["all meshes"].rows["A"]),
        "cpu_s_40": {"median": float(np.median(seconds)), "max": float(np.max(seconds))},
        "good": AGREES,
        "named": {name: {"right": a, "said": b, "of": c} for name, (a, b, c) in sorted(few.items())},
        "tables": {name: table.summary() for name, table in tables.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
