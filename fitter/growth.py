"""Growing and pruning of anchors (Scaffold-GS 3.3), and the bound enforced by the visibility ranking."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gaussianverse.fitter.anchors import Anchors, Decoded, new_anchors
from gaussianverse.fitter.config import GrowthConfig
from gaussianverse.fitter.ranking import drop_to_bound


@dataclass
class Statistics:
    """Sums over the views since the last adjust step."""

    seen: Tensor  # [A] number of views in which the anchor was in the frustum
    visibility: Tensor  # [A, K] sum of max(alpha, 0) in those views
    gradient: Tensor  # [A, K] sum of the norm of the screen gradient, in half-image units
    drawn: Tensor  # [A, K] number of views in which the Gaussian was drawn

    @classmethod
    def empty(cls, anchors: Anchors) -> Statistics:
        """Statistics of no views."""
        each = torch.zeros(anchors.alive.shape, device=anchors.positions.device)
        return cls(each[:, 0].clone(), each.clone(), each.clone(), each.clone())

    @property
    def anchor_visibility(self) -> Tensor:
        """Accumulated opacity over the number of views, [A]; 0 if never seen."""
        return self.visibility.sum(1) / self.seen.clamp(min=1)

    def mean_visibility(self, opacities: Tensor) -> Tensor:
        """Mean of max(alpha, 0) [A, K]; anchors that were not seen have their current opacity."""
        mean = self.visibility / self.seen.clamp(min=1)[:, None]
        return torch.where(self.seen[:, None] > 0, mean, opacities.clamp(min=0))


def screen_gradient(means2d: Tensor, width: int, height: int) -> Tensor:
    """Norm [C, G] of `means2d.grad` in half-image units, independent of the number of cameras."""
    assert means2d.grad is not None
    scale = means2d.grad.new_tensor([width / 2, height / 2]) * len(means2d)
    norms: Tensor = torch.linalg.vector_norm(means2d.grad * scale, dim=-1)
    return norms


def observe(
    statistics: Statistics,
    anchors: Anchors,
    decoded: Decoded,
    opacities: Tensor,
    meta: dict[str, Tensor],
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
) -> None:
    """Add the views of one training step, after backward; `opacities` is `anchors.opacities()`."""
    with torch.no_grad():
        camera = torch.einsum("cij,aj->cai", viewmats[:, :3, :3], anchors.positions) + viewmats[:, None, :3, 3]
        pixel = torch.einsum("cij,caj->cai", Ks, camera)
        x, y = pixel[..., 0] / pixel[..., 2], pixel[..., 1] / pixel[..., 2]
        ahead = (camera[..., 2] > 0.01) & (x > 0) & (x < width) & (y > 0) & (y < height)
        views = ahead.sum(0).to(statistics.seen.dtype)
        statistics.seen += views
        statistics.visibility += views[:, None] * opacities.clamp(min=0)
        drawn = (meta["radii"] > 0).all(-1)
        norms = torch.where(drawn, screen_gradient(meta["means2d"], width, height), 0.0)
        statistics.gradient.view(-1).index_add_(0, decoded.source, norms.sum(0))
        statistics.drawn.view(-1).index_add_(0, decoded.source, drawn.sum(0).to(torch.float32))


def grow(
    anchors: Anchors, statistics: Statistics, config: GrowthConfig, interval: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """New anchors, as `new_anchors` returns them, for grid cells that need more detail.

    An offset whose mean gradient reaches the threshold, doubled for each finer grid, proposes the cell of its
    Gaussian, except for a random share 2^-(level+1) of the offsets. Cells that hold an anchor, old or new, are
    skipped. The new anchor is at the cell's centre; its features are the elementwise maximum over the proposers.
    """
    proposals = (anchors.positions[:, None] + anchors.offsets * torch.exp(anchors.scalings[:, None, :3])).detach()
    proposals = proposals.reshape(-1, 3)
    mean = (statistics.gradient / statistics.drawn.clamp(min=1)).reshape(-1)
    eligible = (anchors.alive & (statistics.drawn > 0.5 * config.success * interval)).reshape(-1)
    taken = anchors.positions
    features, positions, spacing = [], [], []
    for level, voxels in enumerate(config.cells):
        side = config.voxel * voxels
        asking = eligible & (mean >= config.gradient_threshold * 2**level)
        asking &= torch.rand(len(mean), generator=generator).to(mean.device) > 0.5 ** (level + 1)
        rows = asking.nonzero()[:, 0]
        cells, of_row = torch.unique(torch.round(proposals[rows] / side).long(), dim=0, return_inverse=True)
        occupied = torch.unique(torch.round(taken / side).long(), dim=0)
        both, counts = torch.unique(torch.cat([cells, occupied]), dim=0, return_counts=True)
        free = ~_contains(both[counts > 1], cells)
        if not free.any():
            continue
        parents = anchors.features.detach()[rows // anchors.k]
        best = parents.new_full((len(cells), parents.shape[1]), -torch.inf)
        best = best.scatter_reduce(0, of_row[:, None].expand_as(parents), parents, "amax")
        features.append(best[free])
        positions.append(cells[free] * side)
        spacing.append(torch.full_like(positions[-1][:, 0], side))
        taken = torch.cat([taken, positions[-1]])
    if not positions:
        positions, spacing = [anchors.positions[:0]], [anchors.positions[:0, 0]]
        features = [anchors.features.detach()[:0]]
    fresh = new_anchors(torch.cat(positions), torch.cat(spacing), anchors.k, anchors.features.shape[1], generator)
    return fresh | {"features": torch.cat(features)}


def _contains(sorted_rows: Tensor, rows: Tensor) -> Tensor:
    """Mask [R] of the `rows` [R, 3] that occur in `sorted_rows` [S, 3]."""
    if not len(sorted_rows):
        return torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    _, inverse = torch.unique(torch.cat([sorted_rows, rows]), dim=0, return_inverse=True)
    return torch.isin(inverse[len(sorted_rows) :], inverse[: len(sorted_rows)])


def survivors(anchors: Anchors, statistics: Statistics, config: GrowthConfig, interval: int) -> Tensor:
    """Mask [A] of anchors to keep: all but empty ones, and faint ones that were seen often enough to judge."""
    judged = statistics.seen > config.success * interval
    faint = judged & (statistics.visibility.sum(1) < config.min_opacity * statistics.seen)
    return ~faint & anchors.alive.any(1)


def bounded(anchors: Anchors, statistics: Statistics, tau: int, ranking: str, generator: torch.Generator) -> Anchors:
    """Drop offsets by the visibility ranking until at most `tau` alive ones have positive opacity."""
    with torch.no_grad():
        opacities = anchors.opacities()
        exists = opacities > 0
        visibility = statistics.mean_visibility(opacities)
        anchor_visibility = torch.where(
            statistics.seen > 0, statistics.anchor_visibility, opacities.clamp(min=0).sum(1)
        )
        kept = drop_to_bound(exists, tau, visibility, anchor_visibility, opacities, ranking, generator)
    return replace(anchors, alive=anchors.alive & ~(exists & ~kept))
