"""All layouts, by their names."""

from __future__ import annotations

import difflib

from gaussianverse.manifests.errors import LayoutError
from gaussianverse.manifests.rendering.layouts.frames import TRANSFORMS, TRELLIS
from gaussianverse.manifests.rendering.layouts.ganything import GANYTHING
from gaussianverse.manifests.rendering.layouts.gobjaverse import GOBJAVERSE
from gaussianverse.manifests.rendering.layouts.layout import Layout
from gaussianverse.manifests.rendering.layouts.poses import GEN3D, LGM, SRN
from gaussianverse.manifests.rendering.layouts.world_to_camera import INSTANTMESH, ZERO123

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (GOBJAVERSE, TRANSFORMS, LGM, GANYTHING, GEN3D, TRELLIS, ZERO123, INSTANTMESH, SRN)
}


def layout_of(name: str) -> Layout:
    """The layout of a name.

    Raises:
        LayoutError: there is none.
    """
    if name not in LAYOUTS:
        near = difflib.get_close_matches(name, LAYOUTS, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise LayoutError(f"unknown layout {name!r}{hint}; expected one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
