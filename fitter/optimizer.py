"""Adam for named tensors whose rows are added and removed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def decayed(rate: tuple[float, float], progress: float) -> float:
    """Learning rate at `progress` in [0, 1] on its exponential way from start to end; the start, if either is 0."""
    start, end = rate
    return start * (end / start) ** progress if start > 0 and end > 0 else start


class RowAdam:
    """Adam (eps 1e-15) with one learning rate per tensor, which decays exponentially from start to end.

    Args:
        tensors: trained tensors by name; copied as leaves that require a gradient.
        rates: (start, end) by the same names.
    """

    def __init__(self, tensors: Mapping[str, Tensor], rates: Mapping[str, tuple[float, float]]) -> None:
        self._rates = dict(rates)
        self.tensors = {name: t.detach().clone().requires_grad_() for name, t in tensors.items()}
        groups = [{"params": [t], "name": name, "lr": rates[name][0]} for name, t in self.tensors.items()]
        self._adam = torch.optim.Adam(groups, eps=1e-15, fused=True)

    def step(self, progress: float) -> None:
        """Update the tensors with the rates at `progress` in [0, 1], and clear the gradients."""
        for group in self._adam.param_groups:
            group["lr"] = decayed(self._rates[group["name"]], progress)
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)

    def rows(self, name: str, keep: Tensor, added: Tensor | None = None) -> Tensor:
        """Keep some rows of a tensor (index or mask), append others without history, return the new leaf."""
        old = self.tensors[name]
        tail = old.new_empty((0, *old.shape[1:])) if added is None else added
        new = torch.cat([old.detach()[keep], tail]).requires_grad_()
        state = self._adam.state.pop(old, None)
        if state:
            for moment in ("exp_avg", "exp_avg_sq"):
                state[moment] = torch.cat([state[moment][keep], torch.zeros_like(tail)])
            self._adam.state[new] = state
        for group in self._adam.param_groups:
            if group["name"] == name:
                group["params"] = [new]
        self.tensors[name] = new
        return new

    def forget(self, name: str, rows: Tensor) -> None:
        """Clear the history of rows of a tensor whose values were set from outside."""
        state = self._adam.state.get(self.tensors[name])
        if state:
            for moment in ("exp_avg", "exp_avg_sq"):
                state[moment][rows] = 0
