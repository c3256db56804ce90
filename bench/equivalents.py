"""The 24 pairs of scales and rotation that describe one Gaussian, and the one whose rotation is nearest to none."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gaussianverse.atlas import Gaussians
from gaussianverse.atlas.gaussians import canonical_quats

Floats = NDArray[np.float64]


def rotations() -> tuple[Floats, NDArray[np.int64]]:
    """Quaternions of the cube's 24 rotations, wxyz [24, 4], and the axes that they permute, [24, 3].

    A Gaussian of scales s and quaternion q is that of scales `s[axes[k]]` and quaternion q times `quats[k]`.
    """
    found: dict[tuple[int, ...], Floats] = {}
    for parts in itertools.product((-1, 0, 1), repeat=4):
        if sum(map(abs, parts)) in (1, 2, 4):
            quat = np.array(parts, float) / np.linalg.norm(parts)
            found.setdefault(tuple(np.rint(matrix(quat)).astype(int).ravel()), quat)
    quats = np.array(list(found.values()))
    axes = np.array([np.abs(np.reshape(m, (3, 3))).argmax(0) for m in found])
    return quats, axes


def matrix(quat: Floats) -> Floats:
    """Rotation matrix [3, 3] of a unit quaternion, wxyz."""
    w, x, y, z = quat
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + 2 * w * cross + 2 * cross @ cross)


def product(a: Floats, b: Floats) -> Floats:
    """Hamilton product of quaternions wxyz, [.., 4]."""
    aw, av, bw, bv = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    w = aw * bw - (av * bv).sum(-1, keepdims=True)
    return np.concatenate([w, aw * bv + bw * av + np.cross(av, bv)], -1)


def nearest(gaussians: Gaussians) -> Gaussians:
    """The same Gaussians, each with the equivalent of scales and rotation whose angle is smallest."""
    quats, axes = rotations()
    turned = product(gaussians.quats[:, None].astype(float), quats[None])
    best = np.abs(turned[..., 0]).argmax(1)
    rows = np.arange(len(best))
    scales = np.take_along_axis(gaussians.scales, axes[best], axis=1)
    return replace(gaussians, scales=scales, quats=canonical_quats(turned[rows, best]))
