"""Errors of training, sampling and evaluation that the caller can mend; each names the fault and the mend."""

from __future__ import annotations


class TrainingError(ValueError):
    """A checkpoint, dataset, option or caption that cannot be used as asked."""
