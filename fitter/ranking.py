"""Visibility ranking, which bounds a fit to tau Gaussians (paper section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from gaussianverse.fitter.config import RANKINGS


def drop_to_bound(
    alive: Tensor,
    tau: int,
    gaussian_visibility: Tensor,
    anchor_visibility: Tensor,
    opacity: Tensor,
    ranking: str,
    generator: torch.Generator,
) -> Tensor:
    """Select the offsets that stay alive, at most `tau`.

    All alive offsets are ranked by their own visibility and by their anchor's; ties share the mean rank. The
    two ranks are averaged and the lowest are dropped, ties by index.

    Args:
        alive: bool [A, K].
        tau: the bound, >= 0.
        gaussian_visibility: mean of max(alpha, 0) over the views that could see the anchor, [A, K].
        anchor_visibility: accumulated opacity of the anchor over its number of views, [A].
        opacity: current raw opacity, [A, K].
        ranking: "gaussian+anchor" (the paper's), or an ablation: "gaussian", "opacity", "random", "none"
            (keeps the lowest indices).
        generator: source of the "random" ranking.

    Returns:
        bool [A, K], a subset of `alive` with min(tau, alive.sum()) elements.
    """
    from scipy.stats import rankdata  # 32 MB and a second, which fits without anchors do without

    where = alive.reshape(-1).nonzero()[:, 0]
    surplus = len(where) - tau
    if surplus <= 0:
        return alive
    own = gaussian_visibility.reshape(-1)[where].double().cpu().numpy()
    if ranking == "gaussian+anchor":
        anchor = anchor_visibility.repeat_interleave(alive.shape[1])[where].double().cpu().numpy()
        score = torch.from_numpy(rankdata(own) + rankdata(anchor))
    elif ranking == "gaussian":
        score = torch.from_numpy(rankdata(own))
    elif ranking == "opacity":
        score = opacity.reshape(-1)[where].double()
    elif ranking == "random":
        score = torch.rand(len(where), generator=generator, dtype=torch.float64)
    elif ranking == "none":
        score = -torch.arange(len(where), dtype=torch.float64)
    else:
        raise ValueError(f"ranking is {ranking!r}, expected one of {', '.join(RANKINGS)}")
    kept = alive.clone().reshape(-1)
    kept[where[torch.argsort(score.cpu(), stable=True)[:surplus].to(where.device)]] = False
    return kept.reshape(alive.shape)
