"""Manifests: rows that name the objects to build, where their views are, and what is known about them.

The authoring form is JSON Lines with one object a line (`jsonl`); the run form is one Parquet file whose row
group k is shard k (`runform`). Rows come from GObjaverse's index files (`gobjaverse`), from folders of views
(`folders`) or of 3D Gaussians (`splats`), or from an editor. `check` lists every fault. `rendering` makes
views from a mesh.
"""

from typing import TYPE_CHECKING

from gaussianverse.lazy import lazy

if TYPE_CHECKING:
    from gaussianverse.manifests.errors import ManifestError, RenderError
    from gaussianverse.manifests.schema import CATEGORIES, IndexedRow, Row

__all__ = ["CATEGORIES", "IndexedRow", "ManifestError", "RenderError", "Row"]
__getattr__ = lazy(
    __name__,
    {
        **dict.fromkeys(("ManifestError", "RenderError"), "manifests.errors"),
        **dict.fromkeys(("CATEGORIES", "IndexedRow", "Row"), "manifests.schema"),
    },
)
