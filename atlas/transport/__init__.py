"""Exact optimal transport between points, with a certificate."""

from gaussianverse.atlas.transport.solver import MAX_REL_GAP, Assignment, assign

__all__ = ["MAX_REL_GAP", "Assignment", "assign"]
