"""What to build: rows that name objects, where their views lie, and what is known about them.

Authoring form: JSON Lines, one object a line (`jsonl`). Run form: one Parquet file whose row group k is
shard k (`runform`). Rows come from GObjaverse's index files (`gobjaverse`), from folders of views
(`folders`), or from an editor; `check` names every fault. `render` makes views from a mesh.
"""

from gaussianverse.manifests.errors import ManifestError, RenderError
from gaussianverse.manifests.schema import CATEGORIES, IndexedRow, Row

__all__ = ["CATEGORIES", "IndexedRow", "ManifestError", "RenderError", "Row"]
