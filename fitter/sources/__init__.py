"""Readers of multi-view renders; each yields `View` records from one layout on disk."""

from gaussianverse.fitter.sources.view import View

__all__ = ["View"]
