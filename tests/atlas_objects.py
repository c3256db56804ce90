"""Gaussians of several shapes, for the tests of the atlas."""

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.gaussians import Gaussians, canonical_quats

Floats = npt.NDArray[np.float64]


def cloud(shape: str, count: int, seed: int = 0) -> Floats:
    """Positions [count, 3] within +-0.5: shell, ball, rod, plate, line, plane, lattice, copies, corner, cluster."""
    rng = np.random.default_rng([seed, count])
    uniform = rng.uniform(-0.5, 0.5, (count, 3))
    if shape == "shell":
        normal = rng.normal(size=(count, 3))
        return 0.5 * normal / np.linalg.norm(normal, axis=1, keepdims=True)
    if shape == "ball":
        return np.clip(rng.normal(size=(count, 3)) * 0.12, -0.5, 0.5)
    if shape == "rod":
        return uniform * [0.03, 1.0, 0.03]
    if shape == "plate":
        return uniform * [1.0, 0.8, 0.02]
    if shape == "line":
        return uniform[:, :1] * [0.6, 0.48, 0.64]
    if shape == "plane":
        return uniform * [1.0, 1.0, 0.0]
    if shape == "lattice":
        return rng.integers(-4, 5, (count, 3)) / 8
    if shape == "copies":
        return uniform[rng.integers(0, max(1, count // 4), count)]
    if shape == "corner":
        return 0.4 + 0.2 * uniform
    if shape == "cluster":
        tiny = 1e-6 * uniform
        tiny[: max(1, count // 200)] = uniform[: max(1, count // 200)]
        return tiny
    assert shape == "volume", shape
    return uniform


SHAPES = (
    "shell", "ball", "rod", "plate", "line", "plane", "lattice", "copies", "corner", "cluster", "volume",
)  # fmt: skip


def gaussians(means: npt.ArrayLike, seed: int = 0) -> Gaussians:
    """Gaussians with random attributes at `means`, rounded to float32."""
    positions = np.asarray(means, np.float32)
    count = len(positions)
    rng = np.random.default_rng([seed, count, 1])
    return Gaussians(
        means=positions,
        scales=np.exp(rng.normal(-5, 0.7, (count, 3))).astype(np.float32),
        quats=canonical_quats(rng.normal(size=(count, 4))),
        opacities=rng.uniform(0.01, 1.0, count).astype(np.float32),
        colors=rng.uniform(0.0, 1.0, (count, 3)).astype(np.float32),
    )
